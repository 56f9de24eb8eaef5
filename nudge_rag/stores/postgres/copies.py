"""A second vector column of a PostgreSQL table, and swapping the names of the two."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from nudge_rag.stores.base import StoreError
from nudge_rag.stores.checks import check_label
from nudge_rag.stores.copies import unknown_copy

if TYPE_CHECKING:
    from psycopg import sql

__all__ = ["PostgresCopies"]

# Other sessions queue behind a waiting lock, so wait briefly and retry.
LOCK_TIMEOUT, TRIES, BETWEEN_TRIES = "1s", 10, 0.5
COLUMNS = """
SELECT attname, attnum, attnotnull, format_type(atttypid, atttypmod) FROM pg_attribute
WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped
"""
INDEXES = """
SELECT pg_get_indexdef(i.indexrelid) FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attname = %s
WHERE i.indrelid = to_regclass(%s) AND m.amname IN ('hnsw', 'ivfflat') AND EXISTS (
    SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
    AND d.refobjid = i.indrelid AND d.refobjsubid = a.attnum)
"""
VIEWS = """
SELECT DISTINCT r.ev_class::regclass::text FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
WHERE d.classid = 'pg_rewrite'::regclass AND d.refobjid = to_regclass(%s) AND a.attname = %s
"""


class PostgresCopies:
    """Columns of a table that hold other versions of the vectors in one of them.

    Args:
        cursor: gives a cursor in a transaction of its own.
        table: the table's quoted name.
        column: the vector column.
        only: an SQL condition that the store's own rows meet.
    """

    def __init__(
        self, cursor: Callable[[], AbstractContextManager[Any]], table: str, column: str, only: str | None
    ) -> None:
        self._cursor, self._regclass, self._column = cursor, table, column
        self._only = only or "TRUE"
        # Names have 63 bytes: 30 for the column's, 9, and 24 for the label.
        encoded = column.encode()
        self._prefix = (column if len(encoded) <= 30 else hashlib.sha256(encoded).hexdigest()[:16]) + "__beside_"

    def labels(self) -> list[str]:
        """Labels of the columns that are there."""
        with self._cursor() as cursor:
            names = [row[0] for row in cursor.execute(COLUMNS, [self._regclass]).fetchall()]
        return [name.removeprefix(self._prefix) for name in names if name.startswith(self._prefix)]

    def column(self, label: str) -> str:
        """Return the column of that label.

        Raises:
            ValueError: there is none.
        """
        labels = self.labels()
        if check_label(label) not in labels:
            raise unknown_copy(label, labels, self._column)
        return self._prefix + label

    def create(self, label: str) -> None:
        """Copy the column of all rows, of other stores in the table as well, and build its indexes."""
        new = self._prefix + check_label(label)
        with self._cursor() as cursor:
            self._refuse_hidden_rows(cursor)
            found = cursor.execute(COLUMNS, [self._regclass]).fetchall()
            kind = next(row[3] for row in found if row[0] == self._column)
            indexes = [row[0] for row in cursor.execute(INDEXES, [self._column, self._regclass]).fetchall()]
            views = [row[0] for row in cursor.execute(VIEWS, [self._regclass, self._column]).fetchall()]
        if views:
            raise StoreError(
                f"views keep to the column that they were made with, whatever its name: {', '.join(views)}"
            )
        with self._exclusive() as cursor:
            cursor.execute(self._sql("ALTER TABLE {table} DROP COLUMN IF EXISTS {new}", new=new))
            cursor.execute(self._sql(f"ALTER TABLE {{table}} ADD COLUMN {{new}} {kind}", new=new))
        with self._cursor() as cursor:
            cursor.execute(self._sql("UPDATE {table} SET {new} = {live} WHERE {live} IS NOT NULL", new=new))
        for definition in indexes:
            with self._cursor() as cursor:
                method = definition[definition.index(" USING ") :]
                cursor.execute(self._sql("CREATE INDEX ON {table}") + _renamed(method, self._column, new))

    def switch(self, label: str) -> None:
        """Swap the two columns' names, and their NOT NULL constraints, in one transaction.

        Raises:
            StoreError: rows that have a vector in one of the columns only; the table is locked by another session.
        """
        new = self.column(label)
        others = (
            "SELECT count(*) FROM {table} WHERE ("
            + _braced(self._only)
            + ") IS NOT TRUE AND {live} IS DISTINCT FROM {new}"
        )
        with self._cursor() as cursor:
            self._refuse_hidden_rows(cursor)
            self._refuse(cursor, others, new, "that belong to other stores in the table have other vectors")
        with self._exclusive() as cursor:
            lonely = "SELECT count(*) FROM {table} WHERE ({live} IS NULL) <> ({new} IS NULL)"
            self._refuse(cursor, lonely, new, "have a vector in one of the versions only")
            columns = {row[0]: row for row in cursor.execute(COLUMNS, [self._regclass]).fetchall()}
            between = self._prefix + "-"  # no label has a hyphen
            for old, name in ((self._column, between), (new, self._column), (between, new)):
                cursor.execute(self._sql("ALTER TABLE {table} RENAME COLUMN {old} TO {name}", old=old, name=name))
            if columns[self._column][2]:
                cursor.execute(self._sql("ALTER TABLE {table} ALTER COLUMN {new} DROP NOT NULL", new=new))
                cursor.execute(self._sql("ALTER TABLE {table} ALTER COLUMN {live} SET NOT NULL"))

    def _refuse_hidden_rows(self, cursor: Any) -> None:
        """Row-level security hides rows, which would be without a vector in the copy."""
        ((hidden,),) = cursor.execute("SELECT row_security_active(to_regclass(%s)::oid)", [self._regclass]).fetchall()
        if hidden:
            raise StoreError(f"row-level security hides rows of {self._regclass} from this role: push in place instead")

    def _refuse(self, cursor: Any, query: str, new: str, what: str) -> None:
        ((count,),) = cursor.execute(self._sql(query, new=new)).fetchall()
        if count:
            raise StoreError(
                f"{count} row(s) of {self._regclass} {what}: switching would lose them; nothing was switched"
            )

    def drop(self, label: str) -> None:
        """Remove the column."""
        new = self.column(label)
        with self._exclusive() as cursor:
            cursor.execute(self._sql("ALTER TABLE {table} DROP COLUMN {new}", new=new))

    @contextmanager
    def _exclusive(self) -> Iterator[Any]:
        """A cursor in a transaction that holds the table for itself."""
        from psycopg.errors import LockNotAvailable

        for left in reversed(range(TRIES)):
            with self._cursor() as cursor:
                cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
                try:
                    with cursor.connection.transaction():
                        cursor.execute(self._sql("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))
                except LockNotAvailable as error:
                    if not left:
                        raise StoreError(f"other sessions hold {self._regclass}: nothing was changed") from error
                else:
                    yield cursor
                    return
            time.sleep(BETWEEN_TRIES)

    def _sql(self, query: str, **names: str) -> sql.Composed:
        from psycopg import sql

        quoted = {name: sql.Identifier(value) for name, value in {"live": self._column, **names}.items()}
        return sql.SQL(query).format(table=sql.SQL(self._regclass), **quoted)


def _braced(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _renamed(definition: str, column: str, new: str) -> sql.SQL:
    """The end of an index's definition with ``new`` in place of ``column``; text in quotes and types are left alone."""
    from psycopg import sql

    quoted = '"' + column.replace('"', '""') + '"'

    def rename(match: re.Match[str]) -> str:
        return sql.Identifier(new).as_string() if match[0] in (column, quoted) else match[0]

    return sql.SQL(re.sub(r"'(?:[^']|'')*'|::\s*\w+|\"(?:[^\"]|\"\")*\"|\w+", rename, definition))
