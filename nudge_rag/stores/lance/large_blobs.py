"""`LargeBlobs`: blobs of megabytes in a LanceDB folder, each in a table of its own that a row names.

LanceDB merges the small files of a table into larger ones, thousands of rows at a time: of rows of megabytes that is
the whole table in memory, and on disk once more each time.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

__all__ = ["LargeBlobs"]

BYTES_OF_A_ROW = 1 << 20
# Tables that no row names: of a process that died, or that is about to write the row.
SECONDS_TO_KEEP = 3_600
TABLES_PER_PAGE = 1_000
NAMED = re.compile(rb"nudge-rag: the table (blob-[0-9a-f]{16}-[0-9a-f]{32})")


class LargeBlobs:
    """Contents that rows are too small for.

    A table has its own name each time: what a row names is never written over. The table comes before the row, and goes
    after it, so that a process that dies leaves a table that nothing names, and never a row without its table.

    Args:
        database: opens the LanceDB folder.
        scope: tells the stores that share the folder apart.
    """

    def __init__(self, database: Callable[[], Any], scope: str) -> None:
        self._database = database
        self._prefix = f"blob-{hashlib.sha256(scope.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}-"

    def store(self, content: bytes) -> bytes:
        """Return what the row of a blob holds: its content, or the name of the table that this makes for it."""
        if len(content) < BYTES_OF_A_ROW and not NAMED.fullmatch(content):
            return content
        import pyarrow

        name = self._prefix + uuid.uuid4().hex
        rows = pyarrow.table([pyarrow.array([content], pyarrow.large_binary())], names=["content"])
        self._database().create_table(name, rows)
        return f"nudge-rag: the table {name}".encode()

    def load(self, held: bytes) -> bytes:
        """Read the content of a blob whose row holds ``held``.

        Raises:
            ValueError: the table that it names is not there.
        """
        named = NAMED.fullmatch(held)
        if named is None:
            return held
        rows = self._database().open_table(named[1].decode()).search().limit(None).to_arrow()
        return bytes(rows["content"][0].as_py())

    def remove(self, held: bytes | None) -> None:
        """Drop the table that a row named, after the row is gone."""
        named = None if held is None else NAMED.fullmatch(held)
        if named is not None:
            self._database().drop_table(named[1].decode(), ignore_missing=True)

    def sweep(self, held: Callable[[], Iterator[bytes]]) -> None:
        """Drop the tables of this scope that no row names, after an hour.

        Args:
            held: gives what the rows of blobs hold; it is called if there are such tables at all.
        """
        database = self._database()
        tables = [name for name in _table_names(database) if name.startswith(self._prefix)]
        if not tables:
            return
        named = {found[1].decode() for found in map(NAMED.fullmatch, held()) if found}
        for name in tables:
            # Another process may be faster.
            with suppress(OSError, RuntimeError, ValueError):
                if name not in named and _age(database.open_table(name)) > timedelta(seconds=SECONDS_TO_KEEP):
                    database.drop_table(name, ignore_missing=True)


def _table_names(database: Any) -> Iterator[str]:
    token = None
    while True:
        page = database.list_tables(page_token=token, limit=TABLES_PER_PAGE)
        yield from page.tables
        token = page.page_token
        if not token:
            return


def _age(table: Any) -> timedelta:
    made: datetime = min(version["timestamp"] for version in table.list_versions())
    return datetime.now(made.tzinfo) - made
