"""The history of a table in SQLite, in a table of the same database."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from nudge_rag.common import lock
from nudge_rag.stores.history import BlobStorage, HistoriesOfTables, check_blob_name, local_path, unwritable_history
from nudge_rag.stores.leases import process_lock
from nudge_rag.stores.sql import sql_name

__all__ = ["SQLiteHistory"]

PREFIX = "nudge_rag_history_"
COUNT = re.compile("'([0-9a-f]{8}) pushes ([0-9]{1,18})'")
TRIGGERS = (
    "SELECT name FROM sqlite_master AS made WHERE type = 'trigger' AND tbl_name = ? COLLATE NOCASE"
    " AND substr(name, 1, ?) = ?"
)


class SQLiteHistory(HistoriesOfTables):
    """Blobs as rows of the table ``nudge_rag_history_<number>``.

    A trigger of that name on the nodes' table, which never fires, says whose history it is: SQLite renames and drops it
    with its table. The lock is one of the operating system on a file next to the database's. Inside ``transaction()``
    of the store blobs are written with its vectors, or not at all.

    Args:
        transaction: gives a transaction, which calls inside it join.
        rows: runs a statement and gives its rows.
        path: the database's file; empty if it is in memory.
        table: the nodes' table.
        scope: tells the stores in that table apart.
        holder: the table of the history, if the nodes' table may be gone; by default its trigger names it.
    """

    def __init__(
        self,
        transaction: Callable[[], AbstractContextManager[None]],
        rows: Callable[[str, Sequence[Any]], list[Any]],
        path: str,
        table: str,
        scope: str,
        *,
        holder: str | None = None,
    ) -> None:
        self._holder = holder
        self._transaction, self._execute = transaction, rows
        self._path, self._nodes, self._scope = path, table, scope

    @property
    def location(self) -> str:
        """The table."""
        return f"a table {PREFIX}… of the database of {self._nodes!r}"

    def write(self, name: str, content: bytes) -> None:
        """Write or replace a row; the table is made with the first one."""
        check_blob_name(name)
        try:
            with self._transaction():
                table = self._table() or self._make()
                self._execute(
                    f"INSERT OR REPLACE INTO {table} (scope, name, content) VALUES (?, ?, ?)",
                    [self._scope, name, content],
                )
        except Exception as error:
            if "readonly" not in str(error):
                raise
            raise unwritable_history(self.location, error) from error

    def read(self, name: str) -> bytes:
        """Read the content of a row.

        Raises:
            KeyError: there is none.
        """
        rows = self._rows("content", " AND name = ?", [check_blob_name(name)])
        if not rows:
            raise KeyError(name)
        return bytes(rows[0][0])

    def names(self, prefix: str = "") -> list[str]:
        """Names of all rows that begin with ``prefix``, sorted."""
        return sorted(row[0] for row in self._rows("name", "", []) if row[0].startswith(prefix))

    def delete(self, name: str) -> None:
        """Delete a row, if it is there."""
        check_blob_name(name)
        with self._transaction():
            table = self._table()
            if table is not None:
                self._execute(f"DELETE FROM {table} WHERE scope = ? AND name = ?", [self._scope, name])

    def is_emptied(self) -> bool:
        """Say whether a trigger on the nodes' table names a history, and no row of it is left."""
        triggers = self._execute(TRIGGERS, [self._nodes, len(PREFIX), PREFIX])
        table = self._table()
        # Of whatever scope: the trigger is the same for all.
        return bool(triggers) and (table is None or not self._execute(f"SELECT 1 FROM {table} LIMIT 1", []))

    def n_counted(self) -> int:
        """Number of pushes, as the body of the trigger on the nodes' table has it."""
        return self._counts().get(self._scope_sign(), 0)

    def count(self, n_pushes: int) -> None:
        """Keep a number of pushes in the body of the trigger on the nodes' table."""
        with self._transaction():
            table = self._table()
            if table is not None:
                counts = self._counts() | {self._scope_sign(): n_pushes}
                self._execute(f"DROP TRIGGER {table}", [])
                self._make_trigger(table, counts)

    def place(self) -> Path | None:
        """The database's file."""
        return local_path(self._path)

    def _others(self) -> list[tuple[BlobStorage, str | None]]:
        """The histories of other tables, and the names of these; None for those that are gone."""
        query = (
            "SELECT t.name, (SELECT tbl_name FROM sqlite_master WHERE type = 'trigger' AND name = t.name)"
            " FROM sqlite_master t WHERE t.type = 'table' AND substr(t.name, 1, ?) = ? ORDER BY 2, 1"
        )
        found: list[tuple[BlobStorage, str | None]] = []
        for name, table in self._execute(query, [len(PREFIX), PREFIX]):
            scopes = [row[0] for row in self._execute(f"SELECT DISTINCT scope FROM {sql_name(str(name))}", [])]
            for scope in sorted(map(str, scopes)):
                if table is None or (str(table).lower(), scope) != (self._nodes.lower(), self._scope):
                    parts = self._transaction, self._execute, self._path, str(table or self._nodes), scope
                    found.append((SQLiteHistory(*parts, holder=str(name)), table))
        return found

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Exclude other processes and threads, waiting for them at most ten seconds.

        Raises:
            LockedError: one of them still holds the lock.
        """
        path = Path(self._path).resolve() if self._path else None
        with process_lock(f"sqlite {path or id(self)} {self._nodes}"):
            if path is None:
                yield
                return
            with lock.locked_file(path.with_name(path.name + ".nudge-rag.lock"), "a push or rollback"):
                yield

    def _rows(self, column: str, condition: str, values: list[str]) -> list[Any]:
        table = self._table()
        if table is None:
            return []
        query = f"SELECT {column} FROM {table} WHERE scope = ?{condition}"
        return self._execute(query, [self._scope, *values])

    def _table(self) -> str | None:
        """The history's table, quoted; None if there is none."""
        if self._holder is not None:
            return sql_name(self._holder)
        query = f"{TRIGGERS} AND EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = made.name)"
        rows = self._execute(query, [self._nodes, len(PREFIX), PREFIX])
        return sql_name(str(rows[0][0])) if rows else None

    def _make(self) -> str:
        table = sql_name(PREFIX + secrets.token_hex(8))
        self._execute(
            f"CREATE TABLE {table} (scope TEXT, name TEXT, content BLOB NOT NULL, PRIMARY KEY (scope, name))",
            [],
        )
        self._make_trigger(table, {})
        return table

    def _make_trigger(self, table: str, counts: Mapping[str, int]) -> None:
        told = "".join(f" SELECT '{sign} pushes {n_pushes}';" for sign, n_pushes in sorted(counts.items()))
        nodes = sql_name(self._nodes)
        self._execute(f"CREATE TRIGGER {table} AFTER UPDATE ON {nodes} WHEN 0 BEGIN SELECT 1;{told} END", [])

    def _counts(self) -> dict[str, int]:
        """Numbers of pushes of all scopes."""
        rows = self._execute(TRIGGERS.replace("SELECT name", "SELECT sql"), [self._nodes, len(PREFIX), PREFIX])
        found = sorted((sign, int(number)) for row in rows for sign, number in COUNT.findall(str(row[0])))
        return dict(found)

    def _scope_sign(self) -> str:
        return hashlib.sha256(self._scope.encode("utf-8", "surrogatepass")).hexdigest()[:8]
