"""The history of a table in PostgreSQL, in a table of the same schema."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from nudge_rag.common import lock
from nudge_rag.errors import LockedError, StoreError
from nudge_rag.stores.history import BlobStorage, check_blob_name, copy_advice
from nudge_rag.stores.postgres.connection import Connections

__all__ = ["PostgresHistory"]

TABLE = "nudge_rag_history"
# A regclass follows a table that is renamed, and is dumped and restored by its name.
CREATE = """
CREATE TABLE IF NOT EXISTS {table} (owner regclass NOT NULL, scope text NOT NULL, name text NOT NULL,
content bytea NOT NULL, PRIMARY KEY (owner, scope, name))
"""
WRITE = """
INSERT INTO {table} (owner, scope, name, content) VALUES (to_regclass(%s), %s, %s, %s)
ON CONFLICT (owner, scope, name) DO UPDATE SET content = excluded.content
"""
OWN = "FROM {table} WHERE owner = to_regclass(%s) AND scope = %s"
NO_RIGHT = "42501"


class PostgresHistory:
    """Blobs as rows of ``nudge_rag_history``, a table in the schema of the nodes' table; the lock is an advisory one.

    Inside ``transaction()`` of the store they are written with its vectors, or not at all. The role needs the right to
    create a table in that schema, or to read and write one of that name that somebody else has created.

    Args:
        connections: to the database.
        table: the nodes' table, quoted.
        scope: tells the stores in that table apart.
    """

    def __init__(self, connections: Connections, table: str, scope: str) -> None:
        self._connections, self._owner, self._scope = connections, table, scope

    @property
    def location(self) -> str:
        """The table."""
        return f"the table {TABLE} in the schema of {self._owner}"

    def write(self, name: str, content: bytes) -> None:
        """Write or replace a row; the table is made with the first one."""
        check_blob_name(name)
        with self._cursor("written to") as (cursor, table):
            if table is None:
                table = self._quoted(cursor)
                cursor.execute(CREATE.format(table=table.replace("%%", "%")))
            cursor.execute(WRITE.format(table=table), [self._owner, self._scope, name, content])

    def read(self, name: str) -> bytes:
        """Read the content of a row.

        Raises:
            KeyError: there is none.
        """
        rows = self._rows(f"SELECT content {OWN} AND name = %s", [check_blob_name(name)])
        if not rows:
            raise KeyError(name)
        return bytes(rows[0][0])

    def names(self, prefix: str = "") -> list[str]:
        """Names of all rows that begin with ``prefix``, sorted."""
        return sorted(row[0] for row in self._rows(f"SELECT name {OWN}", []) if row[0].startswith(prefix))

    def delete(self, name: str) -> None:
        """Delete a row, if it is there."""
        check_blob_name(name)
        with self._cursor("written to") as (cursor, table):
            if table is not None:
                cursor.execute(f"DELETE {OWN} AND name = %s".format(table=table), [self._owner, self._scope, name])

    def neighbors(self) -> list[tuple[BlobStorage, str]]:
        """The histories of other tables of the schema, from one of which this table may have been made."""
        query = (
            "SELECT DISTINCT h.owner::text, h.scope FROM {table} h JOIN pg_class c ON c.oid = h.owner"
            " WHERE NOT (h.owner = to_regclass(%s) AND h.scope = %s) ORDER BY 1, 2"
        )
        return [
            (PostgresHistory(self._connections, owner, scope), copy_advice(f"the table {owner}"))
            for owner, scope in self._rows(query, [])
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
            try:
                yield
            finally:
                cursor.execute("SELECT pg_advisory_unlock(%s::bigint)", [key]).fetchone()

    def _lock_key(self, cursor: Any) -> int:
        """A number of 64 bits for the table and the scope, the same by whatever name the table goes."""
        owner = cursor.execute("SELECT to_regclass(%s)::oid::bigint", [self._owner]).fetchone()[0]
        digest = hashlib.sha256(f"nudge-rag {owner} {self._scope}".encode()).digest()
        return int.from_bytes(digest[:8], "big", signed=True)

    def _rows(self, query: str, values: Sequence[Any]) -> list[Any]:
        with self._cursor("read") as (cursor, table):
            if table is None:
                return []
            return list(cursor.execute(query.format(table=table), [self._owner, self._scope, *values]).fetchall())

    @contextmanager
    def _cursor(self, what: str) -> Iterator[tuple[Any, str | None]]:
        """A cursor in a transaction, and the history's table, quoted; None if there is none."""
        try:
            with self._connections.cursor() as cursor:
                quoted = self._quoted(cursor)
                found = cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [quoted.replace("%%", "%")]).fetchone()
                yield cursor, quoted if found == (True,) else None
        except Exception as error:
            if not _lacks_a_right(error):
                raise
            raise StoreError(
                f"{self.location}, which is to hold the history of pushes, cannot be {what}: the role has no right to;"
                " let its owner create the table and grant SELECT, INSERT, UPDATE and DELETE, or keep the history in a"
                " folder with versions=PATH"
            ) from error

    def _quoted(self, cursor: Any) -> str:
        query = (
            "SELECT quote_ident(nspname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.oid = to_regclass(%s)"
        )
        row = cursor.execute(query, [self._owner]).fetchone()
        if row is None:
            raise StoreError(f"there is no table {self._owner} any more")
        return f"{row[0]}.{TABLE}".replace("%", "%%")


def _lacks_a_right(error: BaseException) -> bool:
    """Whether PostgreSQL said so, to psycopg or to SQLAlchemy, which keeps the driver's error in ``orig``."""
    inner = getattr(error, "orig", error)
    codes = {getattr(inner, name, None) for name in ("sqlstate", "pgcode")}
    return NO_RIGHT in codes
