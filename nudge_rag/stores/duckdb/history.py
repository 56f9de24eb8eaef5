"""The history of a table in DuckDB, in a table of the same schema."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from nudge_rag.stores.history import BlobStorage, HistoriesOfTables, check_blob_name, local_path, unwritable_history
from nudge_rag.stores.leases import process_lock
from nudge_rag.stores.sql import sql_name, sql_text

__all__ = ["DuckDBHistory"]

TABLE = "nudge_rag_history"
COLUMNS = "owner VARCHAR, scope VARCHAR, name VARCHAR, content BLOB"
MARK = re.compile(r"\[nudge-rag ([0-9a-f]{16})\]")


class DuckDBHistory(HistoriesOfTables):
    """Blobs as rows of ``nudge_rag_history``, a table in the schema of the nodes' table.

    The comment on the nodes' table names its history, and stays with the table if that is renamed. DuckDB lets one
    process at a time write to a file, so that the lock is one of this process. Inside ``transaction()`` of the store
    blobs are written with its vectors, or not at all.

    Args:
        transaction: gives a transaction, which calls inside it join.
        cursor: gives a cursor, inside the transaction that is open.
        place: the database's file, or another name of the database in this process.
        schema: the schema of the nodes' table.
        table: the nodes' table.
        scope: tells the stores in that table apart: the column of vectors.
        owner: the mark of its table, for a history whose table may be gone; by default the table's comment has it.
    """

    def __init__(
        self,
        transaction: Callable[[], AbstractContextManager[None]],
        cursor: Callable[[], AbstractContextManager[Any]],
        place: str,
        schema: str,
        table: str,
        scope: str,
        *,
        owner: str | None = None,
    ) -> None:
        self._known_owner = owner
        self._transaction, self._cursor = transaction, cursor
        self._place, self._scope = place, scope
        self._schema, self._nodes = schema, table
        self._table = f"{sql_name(schema)}.{TABLE}"

    @property
    def location(self) -> str:
        """The table."""
        return f"the table {TABLE} in the schema of {self._nodes!r}"

    def write(self, name: str, content: bytes) -> None:
        """Write or replace a row; the table is made with the first one."""
        check_blob_name(name)
        import duckdb

        try:
            with self._transaction(), self._cursor() as cursor:
                comment, _ = self._looked_up(cursor)
                owner = self._owner_in(comment) or self._mark(cursor, comment)
                cursor.execute(f"CREATE TABLE IF NOT EXISTS {self._table} ({COLUMNS})")
                values = [owner, self._scope, name]
                # DuckDB's own upsert needs a key, and refuses to change a row that has one twice in a transaction.
                cursor.execute(f"DELETE FROM {self._table} WHERE owner = ? AND scope = ? AND name = ?", values)
                cursor.execute(f"INSERT INTO {self._table} VALUES (?, ?, ?, ?)", [*values, content])
        except (duckdb.InvalidInputException, duckdb.PermissionException) as error:
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
        with self._cursor() as cursor:
            comment, is_there = self._looked_up(cursor)
            owner = self._owner_in(comment)
            if owner is not None and is_there:
                query = f"DELETE FROM {self._table} WHERE owner = ? AND scope = ? AND name = ?"
                cursor.execute(query, [owner, self._scope, name])

    def is_emptied(self) -> bool:
        """Say whether the comment on the nodes' table names a history, and no row of it is left."""
        with self._cursor() as cursor:
            comment, is_there = self._looked_up(cursor)
            owner = self._owner_in(comment)
            if owner is None:
                return False
            # Of whatever scope: the comment is the same for all columns of vectors.
            query = f"SELECT count(*) FROM {self._table} WHERE owner = ?"
            return not is_there or cursor.execute(query, [owner]).fetchone() == (0,)

    def n_counted(self) -> int:
        """Number of pushes, as the comment on the nodes' table has it."""
        with self._cursor() as cursor:
            found = self._count().search(self._looked_up(cursor)[0])
        return 0 if found is None else int(found[1])

    def count(self, n_pushes: int) -> None:
        """Keep a number of pushes in the comment on the nodes' table."""
        with self._transaction(), self._cursor() as cursor:
            others = self._count().sub("", self._looked_up(cursor)[0]).strip()
            self._write_comment(cursor, f"{others} [nudge-rag {self._scope_sign()} pushes {n_pushes}]")

    def place(self) -> Path | None:
        """The database's file."""
        return local_path(self._place)

    def _others(self) -> list[tuple[BlobStorage, str | None]]:
        """The histories of other tables, and the names of these; None for those that are gone."""
        with self._cursor() as cursor:
            comment, is_there = self._looked_up(cursor)
            if not is_there:
                return []
            own = self._owner_in(comment) or ""
            rows = cursor.execute(
                f"SELECT DISTINCT h.owner, h.scope, t.table_name FROM {self._table} h LEFT JOIN (SELECT * FROM"
                " duckdb_tables() WHERE database_name = current_database() AND schema_name = ?) t ON"
                " contains(t.comment, '[nudge-rag ' || h.owner || ']') WHERE NOT (h.owner = ? AND h.scope = ?)"
                " ORDER BY 3, 1, 2",
                [self._schema, own, self._scope],
            ).fetchall()
        parts = self._transaction, self._cursor, self._place, self._schema
        return [(DuckDBHistory(*parts, name or self._nodes, scope, owner=own), name) for own, scope, name in rows]

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Exclude other threads of this process; others cannot have the file open for writing."""
        with process_lock(f"duckdb {self._place} {self._schema}"):
            yield

    def _rows(self, column: str, condition: str, values: list[str]) -> list[Any]:
        with self._cursor() as cursor:
            comment, is_there = self._looked_up(cursor)
            owner = self._owner_in(comment)
            if owner is None or not is_there:
                return []
            query = f"SELECT {column} FROM {self._table} WHERE owner = ? AND scope = ?{condition}"
            return list(cursor.execute(query, [owner, self._scope, *values]).fetchall())

    def _owner_in(self, comment: str) -> str | None:
        if self._known_owner is not None:
            return self._known_owner
        found = MARK.search(comment)
        return None if found is None else found[1]

    def _mark(self, cursor: Any, comment: str) -> str:
        owner = secrets.token_hex(8)
        self._write_comment(cursor, f"{comment} [nudge-rag {owner}]")
        return owner

    def _write_comment(self, cursor: Any, comment: str) -> None:
        nodes = f"{sql_name(self._schema)}.{sql_name(self._nodes)}"
        cursor.execute(f"COMMENT ON TABLE {nodes} IS {sql_text(comment.strip())}")

    def _scope_sign(self) -> str:
        return hashlib.sha256(self._scope.encode("utf-8", "surrogatepass")).hexdigest()[:8]

    def _count(self) -> re.Pattern[str]:
        return re.compile(rf" ?\[nudge-rag {self._scope_sign()} pushes ([0-9]{{1,18}})\]")

    def _looked_up(self, cursor: Any) -> tuple[str, bool]:
        """The comment on the nodes' table, empty if there is none, and whether there is a table of histories.

        One question for both: DuckDB lists all tables to answer it.
        """
        query = (
            "SELECT lower(table_name) = ?, coalesce(comment, '') FROM duckdb_tables() WHERE database_name ="
            " current_database() AND schema_name = ? AND lower(table_name) IN (lower(?), ?)"
        )
        found = dict(cursor.execute(query, [TABLE, self._schema, self._nodes, TABLE]).fetchall())
        return found.get(False, ""), True in found
