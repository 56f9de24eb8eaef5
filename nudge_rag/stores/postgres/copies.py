"""A second vector column of a PostgreSQL table, and swapping the names of the two."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.memory import giving_back
from nudge_rag.stores.base import StoreError
from nudge_rag.stores.checks import check_label
from nudge_rag.stores.copies import unknown_copy
from nudge_rag.stores.postgres.sent_vectors import send_vectors

if TYPE_CHECKING:
    from psycopg import sql

__all__ = ["PostgresCopies", "parse_vectors"]

# Vectors that a copy must hold, by ids, live vectors and those of the copy, NaN if it has none.
Wanted = Callable[[Sequence[str], FloatArray, FloatArray], FloatArray]
# Rows of a query, a few thousand at a time, on a connection of its own.
Stream = Callable[[Any, int], Iterator[list[Any]]]

# Other sessions queue behind a waiting lock, so wait briefly and retry; yet longer than the time after which the server
# stops an autovacuum of the table for us, which may take hours.
LOCK_TIMEOUT = (
    "SELECT set_config('lock_timeout', (setting::bigint + 500)::text, true) FROM pg_settings"
    " WHERE name = 'deadlock_timeout'"
)
TRIES, BETWEEN_TRIES = 10, 0.5
# Rounds of catching up without the lock, which end when one finds so few changes.
ROUNDS, FEW = 5, 100
ROWS_PER_STEP = 5_000
# Transactions from this one on are not all visible: what they write is looked at in the next round. Without its epoch.
HORIZON = "SELECT (pg_snapshot_xmin(pg_current_snapshot())::text::bigint %% 4294967296)::text"
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
    """Columns of a table that hold copies of the vectors in one of them.

    Args:
        cursor: gives a cursor in a transaction of its own.
        table: the table's quoted name.
        column: the vector column.
        only: an SQL condition that the store's own rows meet.
        id_column: the column of ids.
    """

    def __init__(
        self,
        cursor: Callable[[], AbstractContextManager[Any]],
        table: str,
        column: str,
        only: str | None,
        id_column: str = "id",
    ) -> None:
        self._cursor, self._regclass, self._column, self._id = cursor, table, column, id_column
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
        new, indexes = self._add_column(label)
        with self._cursor() as cursor:
            cursor.execute(self._sql("UPDATE {table} SET {new} = {live} WHERE {live} IS NOT NULL", new=new))
        self._build_indexes(new, indexes)

    def derive(self, label: str, make: Callable[[Sequence[str], FloatArray], FloatArray], stream: Stream) -> int:
        """Make the vectors of a column of those that are live, some thousand rows a transaction, and build its indexes.

        Rows of other stores in the table are copied.

        Args:
            label: of the column.
            make: gives the vectors of the copy by ids and live vectors.
            stream: gives the rows of a query, on a connection of its own.

        Returns:
            Number of nodes.
        """
        new, indexes = self._add_column(label)
        own = f"({_braced(_doubled(self._only))}) IS TRUE AND {{live}} IS NOT NULL"
        with self._cursor() as cursor:
            cursor.execute(
                self._filled(f"UPDATE {{table}} SET {{new}} = {{live}} WHERE ({own}) IS NOT TRUE", new=new), []
            )
            kind = self._kind(cursor)
        query = self._filled(f"SELECT {{id}}::text, vector_send({{live}}::vector) FROM {{table}} WHERE {own}", new=new)
        n_nodes = 0
        for rows in giving_back(stream(query, ROWS_PER_STEP)):
            names = [row[0] for row in rows]
            vectors = make(names, parse_vectors([row[1] for row in rows]))
            with self._cursor() as cursor:
                array, sent = send_vectors(cursor, vectors)
                update = (
                    f"UPDATE {{table}} SET {{new}} = nudge_v::{kind} FROM unnest(%s::text[], %s::{array})"
                    f" AS nudge_new(nudge_id, nudge_v) WHERE {own} AND {{id}}::text = nudge_id"
                )
                cursor.execute(self._filled(update, new=new), [names, sent])
            n_nodes += len(names)
        self._build_indexes(new, indexes)
        return n_nodes

    def _add_column(self, label: str) -> tuple[str, list[str]]:
        """Add an empty column in place of a leftover of that label; its name, and the indexes of the live one."""
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
        return new, indexes

    def _build_indexes(self, new: str, indexes: Sequence[str]) -> None:
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
            self._swap(cursor, new)

    def catch_up_and_switch(self, label: str, wanted: Wanted, stream: Stream) -> int:
        """Bring what was written since into the column of that label, and swap the two under the table's lock.

        Rounds without the lock come first, so that under it only rows written since the last one are looked at.

        Args:
            label: of the column.
            wanted: gives the vectors of the copy by ids and both vectors.
            stream: gives the rows of a query, on a connection of its own.

        Returns:
            How many nodes were caught up.
        """
        new, total, horizon = self.column(label), 0, None
        for _ in range(ROUNDS):
            with self._cursor() as cursor:
                self._refuse_hidden_rows(cursor)
                # All rows may differ, and are not all held: only the first round looks at so many.
                horizon, n_changed = self._catch_up(cursor, new, wanted, horizon, stream if horizon is None else None)
            total += n_changed
            if n_changed <= FEW:
                break
        with self._exclusive() as cursor:
            _, n_changed = self._catch_up(cursor, new, wanted, horizon)
            self._swap(cursor, new)
        return total + n_changed

    def _catch_up(
        self, cursor: Any, new: str, wanted: Wanted, horizon: str | None, stream: Stream | None = None
    ) -> tuple[str, int]:
        """Update the copy in rows that were written since ``horizon``; gives the next one, and the number of nodes."""
        ((next_horizon,),) = cursor.execute(HORIZON, []).fetchall()
        where = "" if horizon is None else " AND age(xmin) <= age(%s::xid)"
        values = [] if horizon is None else [horizon]
        differ = where.removeprefix(" AND ") + (" AND " if where else "") + "{live} IS DISTINCT FROM {new}"
        own = f"({_braced(_doubled(self._only))}) IS TRUE AND {{live}} IS NOT NULL"
        others = f"UPDATE {{table}} SET {{new}} = {{live}} WHERE ({own}) IS NOT TRUE AND {differ}"
        cursor.execute(self._filled(others, new=new), values)
        query = self._filled(
            "SELECT {id}::text, vector_send({live}::vector), vector_send({new}::vector) FROM {table}"
            f" WHERE {own} AND {differ}",
            new=new,
        )
        # All of them before the first update, which takes the cursor; or through another connection.
        if stream is None:
            parts = _parts(cursor.execute(query, values).fetchall(), ROWS_PER_STEP)
        else:
            parts = stream(query, ROWS_PER_STEP)
        n_changed = sum(self._update_stale(cursor, new, wanted, own, rows) for rows in parts)
        return str(next_horizon), n_changed

    def _update_stale(self, cursor: Any, new: str, wanted: Wanted, own: str, rows: list[Any]) -> int:
        """Give the copy the vectors that it must hold in rows in which it does not; gives their number."""
        names, live = [row[0] for row in rows], parse_vectors([row[1] for row in rows])
        copied = np.full_like(live, np.nan)
        held = [at for at, row in enumerate(rows) if row[2] is not None]
        if held:
            copied[held] = parse_vectors([rows[at][2] for at in held])
        vectors = wanted(names, live, copied)
        stale = np.flatnonzero((copied != vectors).any(axis=1)).tolist()
        if stale:
            kind = self._kind(cursor)
            (array, wanted_now), (_, live_now) = (send_vectors(cursor, part[stale]) for part in (vectors, live))
            update = (
                f"UPDATE {{table}} SET {{new}} = nudge_v::{kind} FROM unnest(%s::text[], %s::{array}, %s::{array})"
                f" AS nudge_new(nudge_id, nudge_v, nudge_old) WHERE {own} AND {{id}}::text = nudge_id"
                f" AND {{live}} = nudge_old::{kind}"
            )
            cursor.execute(self._filled(update, new=new), [[names[at] for at in stale], wanted_now, live_now])
        return len(stale)

    def _kind(self, cursor: Any) -> str:
        """The type of the live column, such as ``vector(3)``."""
        found = cursor.execute(COLUMNS, [self._regclass]).fetchall()
        return next(str(row[3]) for row in found if row[0] == self._column)

    def _swap(self, cursor: Any, new: str) -> None:
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
                cursor.execute(LOCK_TIMEOUT)
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

        quoted = {
            name: sql.Identifier(value) for name, value in {"live": self._column, "id": self._id, **names}.items()
        }
        return sql.SQL(query).format(table=sql.SQL(self._regclass), **quoted)

    def _filled(self, query: str, **names: str) -> sql.Composed:
        """As `_sql`, for a query that is sent with values: percent signs in names are doubled."""
        from psycopg import sql

        given = {"live": self._column, "id": self._id, **names}
        quoted = {name: sql.SQL(_doubled(sql.Identifier(value).as_string())) for name, value in given.items()}
        return sql.SQL(query).format(table=sql.SQL(_doubled(self._regclass)), **quoted)


def parse_vectors(sent: Sequence[Any]) -> FloatArray:
    """Vectors as pgvector's ``vector_send`` gives them, each two bytes of dimension, two unused, and numbers.

    Example:
        >>> parse_vectors([bytes.fromhex("00020000" "3f800000" "40000000")]).tolist()
        [[1.0, 2.0]]
    """
    if len({len(content) for content in sent}) != 1:
        rows = [np.frombuffer(content, dtype=">f4", offset=4) for content in sent]
        return np.array(rows, dtype=np.float32)
    # All at once: thousands of small arrays take several times as long.
    numbers = np.frombuffer(b"".join(sent), dtype=">f4").reshape(len(sent), -1)
    return numbers[:, 1:].astype(np.float32)


def _doubled(text: str) -> str:
    return text.replace("%", "%%")


def _parts(rows: list[Any], size: int) -> Iterator[list[Any]]:
    return (rows[first : first + size] for first in range(0, len(rows), size))


def _braced(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _renamed(definition: str, column: str, new: str) -> sql.SQL:
    """The end of an index's definition with ``new`` in place of ``column``; text in quotes and types are left alone."""
    from psycopg import sql

    quoted = '"' + column.replace('"', '""') + '"'

    def rename(match: re.Match[str]) -> str:
        return sql.Identifier(new).as_string() if match[0] in (column, quoted) else match[0]

    return sql.SQL(re.sub(r"'(?:[^']|'')*'|::\s*\w+|\"(?:[^\"]|\"\")*\"|\w+", rename, definition))
