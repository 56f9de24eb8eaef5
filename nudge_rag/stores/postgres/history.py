"""The history of a table in PostgreSQL, in a table of the same schema."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from nudge_rag.common import lock
from nudge_rag.errors import LockedError, StoreError
from nudge_rag.stores.history import BlobStorage, HistoriesOfTables, check_blob_name
from nudge_rag.stores.postgres.connection import Connections, SessionCursor

__all__ = ["PostgresHistory"]

TABLE = "nudge_rag_history"
# A regclass follows a table that is renamed, and is dumped and restored by its name.
CREATE = """
CREATE TABLE IF NOT EXISTS {table} (owner regclass NOT NULL, scope text NOT NULL, name text NOT NULL,
content bytea NOT NULL, PRIMARY KEY (owner, scope, name))
"""
WRITE = """
INSERT INTO {table} (owner, scope, name, content) VALUES (%s::bigint::oid, %s, %s, %s)
ON CONFLICT (owner, scope, name) DO UPDATE SET content = excluded.content
"""
# The number by which the database knows the nodes' table, its schema, and whether that has a table of histories.
LOCATE = f"""
SELECT c.oid::bigint, quote_ident(n.nspname), to_regclass(quote_ident(n.nspname) || '.{TABLE}') IS NOT NULL
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(%s)
"""
OWN = "FROM {table} WHERE owner = %s::bigint::oid AND scope = %s"
# Schemas with a table of that name that belongs to whom the nodes' table does, or to the role that asks: a table moved
# to another schema has left its history there. What is in another role's table may be hostile.
SCHEMAS = """
SELECT quote_ident(n.nspname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = %s AND c.relkind = 'r' AND has_schema_privilege(n.oid, 'USAGE')
AND has_table_privilege(c.oid, 'SELECT') AND (pg_get_userbyid(c.relowner) = current_user
OR c.relowner = (SELECT relowner FROM pg_class WHERE oid = %s::bigint::oid)) ORDER BY 1
"""
NO_RIGHT = "42501"


class PostgresHistory(HistoriesOfTables):
    """Blobs as rows of ``nudge_rag_history``, a table in the schema of the nodes' table; the lock is an advisory one.

    Inside ``transaction()`` of the store they are written with its vectors, or not at all. The role needs the right to
    create a table in that schema, or to read and write one of that name that somebody else has created.

    Args:
        connections: to the database.
        table: the nodes' table, quoted.
        scope: tells the stores in that table apart.
        owner: the number of a table that may be gone, whose history is in the schema of ``table``.
    """

    def __init__(self, connections: Connections, table: str, scope: str, *, owner: int | None = None) -> None:
        self._connections, self._nodes, self._scope, self._owner = connections, table, scope, owner
        # While this object holds the lock, the cursor of its session.
        self._session: Any = None

    @property
    def location(self) -> str:
        """The table."""
        return f"the table {TABLE} in the schema of {self._nodes}"

    def write(self, name: str, content: bytes) -> None:
        """Write or replace a row; the table is made with the first one."""
        check_blob_name(name)
        self._check_lock()
        with self._cursor("written to") as (cursor, table, owner):
            if table is None:
                _, table, _ = self._located(cursor)
                cursor.execute(CREATE.format(table=table.replace("%%", "%")))
            cursor.execute(WRITE.format(table=table), [owner, self._scope, name, content])

    def read(self, name: str) -> bytes:
        """Read the content of a row.

        Raises:
            KeyError: there is none.
        """
        rows = self._own_rows(f"SELECT content {OWN} AND name = %s", [check_blob_name(name)])
        if not rows:
            raise KeyError(name)
        return bytes(rows[0][0])

    def names(self, prefix: str = "") -> list[str]:
        """Names of all rows that begin with ``prefix``, sorted."""
        return sorted(row[0] for row in self._own_rows(f"SELECT name {OWN}", []) if row[0].startswith(prefix))

    def delete(self, name: str) -> None:
        """Delete a row, if it is there."""
        check_blob_name(name)
        self._check_lock()
        with self._cursor("written to") as (cursor, table, owner):
            if table is not None:
                cursor.execute(f"DELETE {OWN} AND name = %s".format(table=table), [owner, self._scope, name])

    def _others(self) -> list[tuple[BlobStorage, str | None]]:
        """The histories of other tables, and the names of these; None for those that are gone."""
        query = (
            "SELECT DISTINCT h.owner::oid::bigint, h.scope, c.oid::regclass::text FROM {table} h LEFT JOIN pg_class c"
            " ON c.oid = h.owner WHERE NOT (h.owner = %s::bigint::oid AND h.scope = %s) ORDER BY 3, 1, 2"
        )
        return [
            (PostgresHistory(self._connections, table or self._nodes, scope, owner=owner), table)
            for owner, scope, table in self._rows(query, [])
        ]

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold an advisory lock on a connection of its own, waiting for it at most ten seconds.

        PostgreSQL gives it back when the connection ends, however it ends.

        Raises:
            LockedError: another session still holds it.
        """
        deadline = time.monotonic() + lock.SECONDS_TO_WAIT
        with self._connections.session() as cursor:
            key = self._lock_key(cursor)
            while cursor.execute("SELECT pg_try_advisory_lock(%s::bigint)", [key]).fetchone() != (True,):
                if time.monotonic() >= deadline:
                    raise LockedError(
                        "a push or rollback is under way in another session: nothing was written; try again later"
                    )
                time.sleep(lock.BETWEEN_TRIES)
            self._session = cursor
            try:
                yield
            finally:
                self._session = None
                # The lock ends with the session, and so it has if that was ended.
                with suppress(Exception):
                    cursor.execute("SELECT pg_advisory_unlock(%s::bigint)", [key]).fetchone()

    def _check_lock(self) -> None:
        """Raise LockedError if this object held the lock and its session was ended; nothing happens outside of `lock`.

        A session that shares the connection of the writes is not asked: they fail with it.
        """
        if self._session is None or isinstance(self._session, SessionCursor):
            return
        try:
            self._session.execute("SELECT 1").fetchone()
        except Exception as error:
            raise LockedError(
                f"the lock was lost, as PostgreSQL has ended the session that held it ({str(error).strip()}): nothing"
                " more is written"
            ) from error

    def _lock_key(self, cursor: Any) -> int:
        """A number of 64 bits for the table and the scope, the same by whatever name the table goes."""
        digest = hashlib.sha256(f"nudge-rag {self._number(cursor)} {self._scope}".encode()).digest()
        return int.from_bytes(digest[:8], "big", signed=True)

    def _rows(self, query: str, values: Sequence[Any]) -> list[Any]:
        with self._cursor("read") as (cursor, table, owner):
            return [] if table is None else self._asked(cursor, query, table, owner, values)

    def _own_rows(self, query: str, values: Sequence[Any]) -> list[Any]:
        """The same of a query that finds nothing but rows of this history: the table that has any is the one."""
        with self._connected("read") as cursor:
            owner, table, is_there = self._located(cursor)
            rows = self._asked(cursor, query, table, owner, values) if is_there else []
            if rows:
                return rows
            holder = self._holder(cursor, owner, table, is_there)
            return [] if holder in (None, table) else self._asked(cursor, query, str(holder), owner, values)

    def _asked(self, cursor: Any, query: str, table: str, owner: int | None, values: Sequence[Any]) -> list[Any]:
        return list(cursor.execute(query.format(table=table), [owner, self._scope, *values]).fetchall())

    @contextmanager
    def _cursor(self, what: str) -> Iterator[tuple[Any, str | None, int | None]]:
        """A cursor in a transaction, the history's table, quoted (None if there is none), and the nodes' table."""
        with self._connected(what) as cursor:
            owner, table, is_there = self._located(cursor)
            yield cursor, self._holder(cursor, owner, table, is_there), owner

    @contextmanager
    def _connected(self, what: str) -> Iterator[Any]:
        """A cursor in a transaction, for something that the role may have no right to."""
        try:
            with self._connections.cursor() as cursor:
                yield cursor
        except Exception as error:
            if not _lacks_a_right(error):
                raise
            raise StoreError(
                f"{self.location}, which is to hold the history of pushes, cannot be {what}: the role has no right to;"
                " let its owner create the table and grant SELECT, INSERT, UPDATE and DELETE, or keep the history in a"
                " folder with versions=PATH"
            ) from error

    def _number(self, cursor: Any) -> int | None:
        """The number by which the database knows the nodes' table."""
        if self._owner is not None:
            return self._owner
        number = cursor.execute("SELECT to_regclass(%s)::oid::bigint", [self._nodes]).fetchone()[0]
        return None if number is None else int(number)

    def _located(self, cursor: Any) -> tuple[int | None, str, bool]:
        """The nodes' table's number, the table of histories in its schema, quoted, and whether that is there."""
        row = cursor.execute(LOCATE, [self._nodes]).fetchone()
        if row is None:
            raise StoreError(f"there is no table {self._nodes} any more")
        number, schema, is_there = row
        owner = int(number) if self._owner is None else self._owner
        return owner, f"{schema}.{TABLE}".replace("%", "%%"), bool(is_there)

    def _holder(self, cursor: Any, owner: int | None, own: str, is_there: bool) -> str | None:
        """The table of histories ``own``, or the one that has this history in another schema; None if there is none."""
        if is_there and self._holds(cursor, own, owner):
            return own
        for (schema,) in cursor.execute(SCHEMAS, [TABLE, owner]).fetchall():
            other = f"{schema}.{TABLE}".replace("%", "%%")
            if other != own and self._holds(cursor, other, owner):
                return other
        return own if is_there else None

    def _holds(self, cursor: Any, table: str, owner: int | None) -> bool:
        row = cursor.execute(f"SELECT EXISTS (SELECT 1 {OWN})".format(table=table), [owner, self._scope]).fetchone()
        return bool(row == (True,))


def _lacks_a_right(error: BaseException) -> bool:
    """Whether PostgreSQL said so, to psycopg or to SQLAlchemy, which keeps the driver's error in ``orig``."""
    inner = getattr(error, "orig", error)
    codes = {getattr(inner, name, None) for name in ("sqlstate", "pgcode")}
    return NO_RIGHT in codes
