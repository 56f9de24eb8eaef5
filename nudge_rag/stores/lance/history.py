"""The history of a LanceDB table, in a table inside the folder of that table."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from nudge_rag.common import files, lock
from nudge_rag.errors import CorruptArchiveError, StoreError
from nudge_rag.stores.history import BlobStorage, check_blob_name, copy_advice, local_path
from nudge_rag.stores.lance.large_blobs import LargeBlobs
from nudge_rag.stores.leases import Lease, process_lock
from nudge_rag.stores.sql import sql_text

__all__ = ["LanceHistory"]

FOLDER, TABLE, LEASE = "_nudge_rag", "history", "lease"
# Each write makes a version of the table, which keeps the replaced rows: readers have this long to finish with one.
SECONDS_TO_KEEP = 60
WRITES_BETWEEN_CLEANING = 20
TRIES_TO_READ = 5


class LanceHistory:
    """Blobs as rows of the LanceDB table ``history`` in ``<table>.lance/_nudge_rag``; large ones in tables beside it.

    Being inside the table's own folder, they move, are renamed and are dropped with it, and no listing of tables shows
    them. Processes on one machine exclude each other by a lock of the operating system, those that share an object
    store by a lease.

    Args:
        table: the ``lancedb`` table.
        scope: tells the stores in that table apart: the column of vectors.
    """

    def __init__(self, table: Any, scope: str) -> None:
        self._nodes, self._scope = table, scope
        self._uri = str(table.uri)
        self._writes = 0
        self._large = LargeBlobs(self._database, scope)
        self._lease = Lease(_LanceRecord(self), f"lancedb {self._uri} {scope}")

    @property
    def location(self) -> str:
        """The folder."""
        return f"{self._uri}/{FOLDER}"

    def write(self, name: str, content: bytes) -> None:
        """Write or replace a row, in one commit; the table is made with the first one."""
        check_blob_name(name)
        self._lease.check()
        self.put(f"blob {name}", content)

    def read(self, name: str) -> bytes:
        """Read the content of a row.

        Raises:
            KeyError: there is none.
        """
        content = self.get(f"blob {check_blob_name(name)}")
        if content is None:
            raise KeyError(name)
        return content

    def names(self, prefix: str = "") -> list[str]:
        """Names of all rows that begin with ``prefix``, sorted."""
        start = f"{self._scope} blob "
        rows = self._read(lambda table: table.search().select(["name"]).limit(None).to_arrow()["name"].to_pylist())
        found = [row.removeprefix(start) for row in rows or [] if row.startswith(start)]
        return sorted(name for name in found if name.startswith(prefix))

    def delete(self, name: str) -> None:
        """Delete a row, if it is there."""
        check_blob_name(name)
        self._lease.check()
        self.drop(f"blob {name}")

    def is_emptied(self) -> bool:
        """Say whether the history's table, made with its first row, has none, or is gone though pushes were counted."""
        table = self._opened()
        return self.n_counted() > 0 if table is None else int(table.count_rows()) == 0

    def n_counted(self) -> int:
        """Number of pushes, as a file in the folder of the nodes' table has it; of an object store, none."""
        path = self._count_path()
        try:
            content = b"" if path is None else files.read_regular(path)
        except FileNotFoundError:
            return 0
        return int(content) if re.fullmatch(rb"[0-9]{1,18}", content) else 0

    def count(self, n_pushes: int) -> None:
        """Keep a number of pushes in a file in the folder of the nodes' table."""
        path = self._count_path()
        if path is not None:
            files.write_synced(path, str(n_pushes).encode())

    def _count_path(self) -> Path | None:
        sign = hashlib.sha256(self._scope.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        return None if "://" in self._uri else Path(self._uri) / f"{FOLDER}.pushes_{sign}"

    def place(self) -> Path | None:
        """The folder, inside that of the table."""
        return local_path(f"{self._uri}/{FOLDER}")

    def neighbors(self) -> list[tuple[BlobStorage, str]]:
        """The histories of other tables in the same folder, from one of which this table may have been made."""
        here = local_path(self._uri)
        if here is None:
            return []
        import lancedb

        folders = sorted(folder.parent for folder in here.parent.glob(f"*{here.suffix}/{FOLDER}"))
        tables = [folder.stem for folder in folders if folder != here]
        database = lancedb.connect(str(here.parent)) if tables else None
        return [
            (LanceHistory(database.open_table(name), self._scope), copy_advice(f"the table {name}"))
            for name in tables
            if database is not None
        ]

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Exclude other processes and threads.

        Raises:
            LockedError: they take longer than ten seconds.
        """
        if "://" in self._uri:
            with self._lease.hold():
                yield
            return
        folder = Path(self._uri).resolve()
        if not folder.is_dir():
            raise StoreError(f"there is no LanceDB table at {self._uri} any more")
        path = folder / f"{FOLDER}.lock"
        with process_lock(f"lancedb {folder}"), lock.locked_file(path, "a push or rollback"):
            yield

    def put(self, name: str, content: bytes) -> None:
        """Write or replace a row of any kind."""
        try:
            self._put_row(name, self._large.store(content))
            self._writes += 1
            if self._writes % WRITES_BETWEEN_CLEANING == 0:
                self._opened().optimize(cleanup_older_than=timedelta(seconds=SECONDS_TO_KEEP))
                self._large.sweep(self._held_by_all)
        except PermissionError as error:
            raise self._no_right(error) from error
        except (OSError, RuntimeError) as error:
            if "ermission denied" not in str(error) and "AccessDenied" not in str(error):
                raise
            raise self._no_right(error) from error

    def _put_row(self, name: str, held: bytes) -> None:
        import pyarrow

        columns = {
            "name": pyarrow.array([f"{self._scope} {name}"], pyarrow.string()),
            "content": pyarrow.array([held], pyarrow.large_binary()),
        }
        new = pyarrow.table(columns)
        table = self._opened()
        if table is None:
            self._database().create_table(TABLE, new, exist_ok=True)
            table = self._opened()
        table.merge_insert("name").when_matched_update_all().when_not_matched_insert_all().execute(new)

    def get(self, name: str) -> bytes | None:
        """Content of a row of any kind, None if there is none."""

        def load(table: Any) -> bytes | None:
            held = self._held_by(table, name)
            return None if held is None else self._large.load(held)

        content: bytes | None = self._read(load)
        return content

    def drop(self, name: str) -> None:
        """Delete a row of any kind."""
        table = self._opened()
        if table is not None:
            held = self._held_by(table, name)
            table.delete(self._row(name))
            self._large.remove(held)

    def _row(self, name: str) -> str:
        return f"name = {sql_text(f'{self._scope} {name}')}"

    def _held_by(self, table: Any, name: str) -> bytes | None:
        """What a row holds: the content of a blob, or the name of the table that has it."""
        rows = table.search().where(self._row(name)).select(["content"]).limit(None).to_arrow()["content"]
        return bytes(rows[0].as_py()) if len(rows) else None

    def _held_by_all(self) -> Iterator[bytes]:
        """What the rows of this scope hold, some at a time."""
        condition = f"starts_with(name, {sql_text(f'{self._scope} ')})"
        batches = self._opened().search().where(condition).select(["content"]).limit(None).to_batches()
        return (content.as_py() for batch in batches for content in batch["content"])

    def _read(self, question: Callable[[Any], Any]) -> Any:
        """An answer of the table, None if there is no table; asked again if another process cleans up meanwhile."""
        for left in reversed(range(TRIES_TO_READ)):
            table = self._opened()
            if table is None:
                return None
            try:
                return question(table)
            except (OSError, RuntimeError, ValueError) as error:
                if not left:
                    raise CorruptArchiveError(
                        f"the history in {self.location} cannot be read ({error}). Bring that folder back from a"
                        " backup; or if it is lost, remove it, and every call says how to go on without"
                    ) from error
        return None

    def _no_right(self, error: BaseException) -> StoreError:
        return StoreError(
            f"{self.location}, which is to hold the history of pushes, cannot be written to: {error}; get the right to"
            " write there, or keep the history in a folder with versions=PATH"
        )

    def _database(self) -> Any:
        import lancedb

        options: Any = getattr(self._nodes, "latest_storage_options", dict)() or None
        return lancedb.connect(f"{self._uri}/{FOLDER}", storage_options=options)

    def _opened(self) -> Any:
        """The history's table; None if there is none. Nothing is made."""
        if "://" not in self._uri and not (Path(self._uri) / FOLDER / f"{TABLE}.lance").is_dir():
            return None
        try:
            return self._database().open_table(TABLE)
        except (ValueError, FileNotFoundError) as error:
            if "not found" in str(error):
                return None
            raise


class _LanceRecord:
    """The lease's record, in a row."""

    def __init__(self, history: LanceHistory) -> None:
        self._history = history

    def read(self) -> str | None:
        """Read the text of the row, or None if there is none."""
        content = self._history.get(LEASE)
        return None if content is None else content.decode("utf-8", "replace")

    def write(self, text: str) -> None:
        """Replace the row."""
        self._history.put(LEASE, text.encode())

    def remove(self) -> None:
        """Delete the row."""
        self._history.drop(LEASE)
