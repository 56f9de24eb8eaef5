"""PostgreSQL tables with a pgvector column."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from nudge_rag.common.arrays import Float64Array, FloatArray
from nudge_rag.common.blas_threads import map_in_threads
from nudge_rag.common.packages import import_package
from nudge_rag.common.progress import track
from nudge_rag.stores.adapter import StoreAdapter
from nudge_rag.stores.base import Capabilities, SearchResult, Similarity, StoreError
from nudge_rag.stores.checks import check_ids, check_queries, chunks, ungrouped
from nudge_rag.stores.copies import CopiesMixin, CopyNotes, NodesOfCopy
from nudge_rag.stores.history import BlobStorage
from nudge_rag.stores.keys import store_key
from nudge_rag.stores.location import StoreLocation
from nudge_rag.stores.postgres.connection import Connections, connections_of
from nudge_rag.stores.postgres.copies import PostgresCopies, parse_vectors
from nudge_rag.stores.postgres.history import PostgresHistory
from nudge_rag.stores.postgres.sent_vectors import send_vectors

if TYPE_CHECKING:
    from psycopg import sql

__all__ = ["PgVectorStore"]

OPERATORS: dict[Similarity, str] = {"cosine": "<=>", "dot": "<#>", "l2": "<->"}
IDS_PER_CALL = 5_000
QUERIES_PER_CALL = 128
# From so many such calls on, searches are shared out to so many connections: more would crowd out other applications.
CALLS_SIDE_BY_SIDE, MOST_CONNECTIONS = 4, 2
# pgvector's own default of hnsw.ef_search, and its limit: an index returns no more rows than that.
DEFAULT_EF_SEARCH = 40
LARGEST_EF_SEARCH = 1_000
COLUMN = """
SELECT t.typname, a.atttypmod FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = to_regclass(%s) AND a.attname = %s AND NOT a.attisdropped
"""
INDEXES = """
SELECT DISTINCT m.amname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)
WHERE i.indrelid = to_regclass(%s) AND a.attname = %s AND m.amname IN ('hnsw', 'ivfflat')
"""
# OFFSET keeps the cast where it is; else each row that is looked at would cast the query anew.
NEAREST = """
SELECT q.n, t.id, t.distance
FROM (SELECT v::{kind} AS v, n FROM unnest(%s::{array}) WITH ORDINALITY AS u(v, n) OFFSET 0) q, LATERAL (
SELECT {id}::text AS id, {vector} {operator} q.v AS distance FROM {table}
WHERE {only} AND {where} ORDER BY {vector} {operator} q.v LIMIT %s) t
"""
# From this version on, an HNSW index goes on until enough of its rows pass the condition.
GOES_ON = (0, 8)
VERSION = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"


class PgVectorStore(CopiesMixin, StoreAdapter):
    """Adapter for a table with an id column and a ``vector`` or ``halfvec`` column. ``where`` is an SQL condition.

    Scores are larger-is-better: 1 - distance for cosine, the inner product, minus the squared distance for l2. The
    search goes through an HNSW or IVFFlat index if the table has one and is exact otherwise. It is also exact for k
    above 1000, and for filtered searches that such an index answers short: all of them, but with HNSW since pgvector
    0.8, which looks on until it has k rows, or 20,000 did not pass. Writes are one transaction, and so is a
    switch: it swaps the names of two columns.

    Args:
        conninfo: of psycopg, such as ``postgresql://user@host/database``; or an application's own SQLAlchemy engine,
            synchronous or not, whose connections are then used, with their pool, events and roles.
        table: the table's name.
        schema: the schema's name; None for the first one on the search path that has the table.
        id_column: its name; ids are read as text.
        vector_column: its name.
        similarity: how the application ranks.
        only: an SQL condition that every node of this store meets, for tables that hold several.
        exact: search without the index.

    Raises:
        ImportError: psycopg is not installed.
        ValueError: no such table or column, a column of another type.
    """

    name = "postgres"

    def __init__(
        self,
        conninfo: Any,
        table: str,
        *,
        schema: str | None = "public",
        id_column: str = "id",
        vector_column: str = "embedding",
        similarity: Similarity = "cosine",
        only: str | None = None,
        exact: bool = False,
    ) -> None:
        sql = import_package("psycopg", "PgVectorStore", "pgvector").sql
        if similarity not in OPERATORS:
            raise ValueError(f"similarity must be one of {', '.join(OPERATORS)}, got {similarity!r}")
        self._connections = connections_of(conninfo)
        self._regclass = sql.Identifier(*[name for name in (schema, table) if name is not None]).as_string()
        # Every query is sent with parameters, also with none: percent signs in names must be doubled.
        self._table = sql.SQL(_doubled(self._regclass))
        self._id, self._vector = (
            sql.SQL(_doubled(sql.Identifier(column).as_string())) for column in (id_column, vector_column)
        )
        # Rows without a vector are no nodes.
        self._only = sql.SQL("{} AND {} IS NOT NULL").format(sql.SQL(f"({_doubled(only or 'TRUE')})"), self._vector)
        self._scope = f"{vector_column} {only or ''}".strip()
        kind, self._dimension, indexes = self._look(table, id_column, vector_column)
        self._place = f"{schema or self._schema()}.{table}.{vector_column} {only or ''}"
        self._kind = sql.SQL(kind)
        self._half = kind == "halfvec"
        self._operator = sql.SQL(OPERATORS[similarity])
        self._exact = exact or not indexes
        self._indexes = indexes
        self._goes_on = indexes == ["hnsw"] and self._version() >= GOES_ON
        self._copies: PostgresCopies = PostgresCopies(self._cursor, self._regclass, vector_column, only, id_column)
        self._options: dict[str, Any] = {"id_column": id_column, "similarity": similarity, "only": only, "exact": exact}
        self._options |= {"table": table, "schema": schema}
        self._capabilities = Capabilities(
            similarity, exact_search=self._exact, persistent=True, side_by_side=True, atomic_switch=True
        )

    @classmethod
    def from_url(cls, location: StoreLocation) -> PgVectorStore:
        """The table that ``postgresql://`` names; options that are not the table's go to psycopg."""
        names = {"schema": "schema", "id": "id_column", "vector": "vector_column", "similarity": "similarity"}
        conninfo = location.without(["table", *names])
        psycopg = import_package("psycopg", "postgresql://", "pgvector")
        try:
            psycopg.conninfo.conninfo_to_dict(conninfo)
        except psycopg.ProgrammingError as error:
            known = ", ".join(["table", *names])
            raise ValueError(
                f"psycopg does not take this postgresql:// URL: {str(error).strip()}; options of ours are {known}"
            ) from None
        try:
            return cls(conninfo, location.options["table"], **location.chosen(names))
        except psycopg.Error as error:  # a bad value of an option, or nobody who answers
            raise StoreError(f"the postgresql:// URL cannot be opened: {str(error).strip()}") from error

    @property
    def key(self) -> str:
        """From the server, the database, the table and the column."""
        with self._cursor() as cursor:
            info = cursor.connection.info
            place = f"{info.host} {info.port} {info.dbname} {self._place}"
        return store_key("postgres", place)

    def count(self) -> int:
        """Number of nodes that have a vector."""
        return int(self._rows("SELECT count(*) FROM {table} WHERE {only}")[0][0])

    def _possible(self, ids: Iterable[str]) -> list[str]:
        """Return those of ``ids`` that PostgreSQL could hold: its text has no NUL."""
        return [name for name in super()._possible(ids) if "\0" not in name]

    def _fetch(self, names: list[str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        rows_found = 0
        for chunk in chunks(names, IDS_PER_CALL):
            rows = self._rows(
                "SELECT {id}::text, vector_send({vector}::vector) FROM {table} WHERE {only} AND {id}::text = ANY(%s)",
                [chunk],
            )
            if rows:
                found.update(zip((row[0] for row in rows), parse_vectors([row[1] for row in rows]), strict=True))
            rows_found += len(rows)
        if rows_found != len(found):
            raise ValueError(
                f"{rows_found} rows in {self.name} for {len(found)} ids: each node must have one vector"
                f" ({self._twice(names)!r} has several)"
            )
        return found

    def _twice(self, names: list[str]) -> str:
        query = "SELECT {id}::text FROM {table} WHERE {only} AND {id}::text = ANY(%s) GROUP BY 1 HAVING count(*) > 1"
        return str(self._rows(query, [names])[0][0])

    def _batches(self, batch_size: int) -> Iterator[tuple[list[str], FloatArray]]:
        """All nodes as they were when the scan began, through a cursor on the server."""
        query = self._query("SELECT {id}::text, vector_send({vector}::vector) FROM {table} WHERE {only}")
        # A connection of its own: a scan may take long, and other calls are not to wait for it.
        for rows in self._connections.stream(query, batch_size):
            yield [row[0] for row in rows], parse_vectors([row[1] for row in rows])

    def search(self, queries: FloatArray, k: int, *, where: str | None = None) -> SearchResult:
        """The k best nodes of each query."""
        return self._search(queries, k, where, widely=True)

    def search_with_defaults(self, queries: FloatArray, k: int) -> SearchResult:
        """Search with the settings of pgvector that the connection has."""
        return self._search(queries, k, None, widely=False)

    def default_width(self) -> int | None:
        """The connection's hnsw.ef_search, if an HNSW index answers that does not go on searching."""
        if self._exact or "hnsw" not in self._indexes:
            return None
        with self._cursor() as cursor:
            names = ["hnsw.ef_search", "hnsw.iterative_scan"]
            query = "SELECT current_setting(%s, true), current_setting(%s, true)"
            width, goes_on = cursor.execute(query, names).fetchone() or (None, None)
        return None if goes_on not in (None, "", "off") else int(width or DEFAULT_EF_SEARCH)

    def _search(self, queries: FloatArray, k: int, where: str | None, *, widely: bool) -> SearchResult:
        checked = check_queries(queries, k, dimension=self._dimension or None).astype(np.float32)
        parts = [checked[first : first + QUERIES_PER_CALL] for first in range(0, len(checked), QUERIES_PER_CALL)]
        most = MOST_CONNECTIONS if len(parts) >= CALLS_SIDE_BY_SIDE else 1
        with self._connections.side_by_side(most) as connections:
            free: SimpleQueue[Connections] = SimpleQueue()
            for one in connections:
                free.put(one)

            def ask(part: FloatArray) -> SearchResult:
                connection = free.get()
                try:
                    return self._ask(part, k, where, connection, widely=widely)
                finally:
                    free.put(connection)

            found = map_in_threads(ask, parts, len(connections))
        return SearchResult(*([one for part in found for one in getattr(part, name)] for name in ("ids", "scores")))

    def _ask(
        self, part: FloatArray, k: int, where: str | None, connections: Connections, *, widely: bool
    ) -> SearchResult:
        """Search for some queries, by one statement."""
        width = k if widely or self._exact else None
        rows = self._nearest(part, k, where, connections, width)
        if widely and self._goes_on and len(rows) < k * len(part):
            rows = self._nearest(part, k, where, connections, width, without_index=True)
        numbers = np.array([row[0] for row in rows], dtype=np.int64) - 1
        scores = self._scores(np.array([row[2] for row in rows], dtype=np.float64))
        return SearchResult(*ungrouped(numbers, [row[1] for row in rows], scores, len(part), k))

    def _scores(self, distances: Float64Array) -> Float64Array:
        if self.capabilities.similarity == "cosine":
            return 1 - distances
        return -distances if self.capabilities.similarity == "dot" else -(distances**2)

    def matching(self, ids: Sequence[str], where: str | None) -> set[str]:
        """Return those of ``ids`` that exist and pass ``where``."""
        found: set[str] = set()
        for chunk in chunks(sorted(set(self._possible(check_ids(ids)))), IDS_PER_CALL):
            query = "SELECT {id}::text FROM {table} WHERE {only} AND {where} AND {id}::text = ANY(%s)"
            found.update(row[0] for row in self._rows(query, [chunk], where=where))
        return found

    def as_stored(self, vectors: FloatArray) -> FloatArray:
        """``vectors`` in the column's precision: float32, or rounded to float16."""
        rows = np.asarray(vectors, dtype=np.float32)
        return rows.astype(np.float16).astype(np.float32) if self._half else rows

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all writes inside one transaction, those of the store's history included."""
        with self._cursor():
            yield

    def _write(self, names: list[str], rows: FloatArray) -> None:
        """Overwrite vectors in one transaction: all of them, or none."""
        self.read(names)  # raises for ids that are unknown or there twice
        with self._cursor():
            changed = sum(len(self._update(*chunk)) for chunk in _chunked(names, rows))
            if changed != len(names):
                raise StoreError(f"{changed} rows for {len(names)} ids: the table changed; nothing was written")

    def _write_if(self, names: list[str], expected: FloatArray, rows: FloatArray) -> list[str]:
        """Compare and set, in one transaction; a row that another session is changing is waited for."""
        self._fetch(names)  # raises for ids that are there twice
        with self._cursor():
            written = {node_id for chunk in _chunked(names, rows, expected) for node_id in self._update(*chunk)}
        return [name for name in names if name not in written]

    def _update(self, names: list[str], rows: FloatArray, expected: FloatArray | None = None) -> list[str]:
        """Overwrite vectors, only expected ones if these are given: ids of the rows that were written."""
        with self._cursor() as cursor:
            given = [send_vectors(cursor, part) for part in (rows, expected) if part is not None]
        query = (
            "UPDATE {table} SET {vector} = nudge_v::{kind}"
            f" FROM unnest(%s::text[]{''.join(f', %s::{array}' for array, _ in given)})"
            f" AS nudge_new(nudge_id, nudge_v{'' if expected is None else ', nudge_old'})"
            " WHERE {only} AND {id}::text = nudge_id"
        )
        query += "" if expected is None else " AND {vector} = nudge_old::{kind}"
        values = [names, *(sent for _, sent in given)]
        return [row[0] for row in self._rows(query + " RETURNING {id}::text", values)]

    def history(self) -> BlobStorage:
        """The store's history: a table of the same schema."""
        return PostgresHistory(self._connections, self._regclass, self._scope)

    def create_copy(self, label: str) -> PgVectorStore:
        """Copy the vectors of all rows to a second column, indexed as the first. ``SELECT *`` then shows both."""
        self._copies.create(label)
        return self.open_copy(label)

    def derive_copy(self, label: str, make: Callable[[Sequence[str], FloatArray], FloatArray]) -> int:
        """Write ``make`` of the ids and vectors of all nodes to a second column; gives the number of nodes."""
        return self._copies.derive(label, make, self._connections.stream)

    def open_copy(self, label: str) -> PgVectorStore:
        """The store on the column ``label``."""
        return PgVectorStore(self._connections, vector_column=self._copies.column(label), **self._options)

    def catch_up_and_switch(self, label: str, moved: NodesOfCopy, notes: CopyNotes) -> int:
        """Bring what was written since to the copy ``label``, and swap the two columns; gives the number of nodes."""
        return self._copies.catch_up_and_switch(
            label,
            lambda names, live, copied: moved.wanted(names, live, self._same_rows, copied),
            self._connections.stream,
        )

    def _look(self, table: str, id_column: str, vector_column: str) -> tuple[str, int, list[str]]:
        """Type and dimension of the vector column, and the kinds of indexes on it."""
        with self._cursor() as cursor:
            name, called = self._regclass, self._regclass.replace('"', "")
            if cursor.execute("SELECT to_regclass(%s)", [name]).fetchone() == (None,):
                raise ValueError(f"there is no table {called}")
            for column in (id_column, vector_column):
                found = cursor.execute(COLUMN, [name, column]).fetchone()
                if found is None:
                    raise ValueError(f"table {called} has no column {column!r}")
            if found is None or found[0] not in ("vector", "halfvec"):
                raise ValueError(f"column {vector_column!r} must be a vector or halfvec, it is {found and found[0]}")
            kind, dimension = str(found[0]), int(found[1])
            if dimension < 1:
                query = self._query("SELECT vector_dims({vector}::vector) FROM {table} WHERE {only} LIMIT 1")
                first = cursor.execute(query, []).fetchone()
                dimension = 0 if first is None else int(first[0])
            indexes = cursor.execute(INDEXES, [name, vector_column]).fetchall()
            return kind, dimension, [str(row[0]) for row in indexes]

    def _version(self) -> tuple[int, ...]:
        """The first two numbers of pgvector's version."""
        with self._cursor() as cursor:
            found = cursor.execute(VERSION).fetchone()
        return tuple(int(number) for number in re.findall(r"\d+", str(found and found[0]))[:2])

    def _schema(self) -> str:
        """The schema in which the search path finds the table."""
        query = "SELECT n.nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        with self._cursor() as cursor:
            return str(cursor.execute(f"{query} WHERE c.oid = to_regclass(%s)", [self._regclass]).fetchone()[0])

    def _cursor(self) -> Any:
        """A cursor in a transaction of its own."""
        return self._connections.cursor()

    def _nearest(
        self,
        queries: FloatArray,
        k: int,
        where: str | None,
        connections: Connections,
        width: int | None,
        *,
        without_index: bool = False,
    ) -> list[Any]:
        """Number from 1, id and distance of the k nearest nodes of each query; None: the connection's width."""
        with connections.cursor() as cursor:
            if width is not None:
                is_short = bool(where) and not self._goes_on
                self._search_widely(cursor, width, without_index or self._exact or is_short)
            array, sent = send_vectors(cursor, queries)
            query = self._query(NEAREST.replace("{array}", array), where)
            return list(cursor.execute(query, [sent, k]).fetchall())

    def _search_widely(self, cursor: Any, width: int, without_index: bool) -> None:
        if without_index or width > LARGEST_EF_SEARCH:
            cursor.execute("SET LOCAL enable_indexscan = off")
            return
        # Settings of pgvector exist once its library is loaded; set_config accepts them before, too.
        settings = ["set_config('hnsw.ef_search', %s, true)", "set_config('ivfflat.probes', '32', true)"]
        if self._goes_on:
            settings.append("set_config('hnsw.iterative_scan', 'strict_order', true)")
        cursor.execute(f"SELECT {', '.join(settings)}", [str(max(100, width))])

    def _rows(self, query: str, values: Sequence[Any] = (), *, where: str | None = None) -> list[Any]:
        with self._cursor() as cursor:
            return list(cursor.execute(self._query(query, where), list(values)).fetchall())

    def _query(self, query: str, where: str | None = None) -> sql.Composed:
        from psycopg import sql

        parts = {"table": self._table, "id": self._id, "vector": self._vector, "only": self._only}
        parts |= {"where": sql.SQL(f"({_doubled(where or 'TRUE')})")}
        for name in ("kind", "operator"):
            if hasattr(self, f"_{name}"):
                parts[name] = getattr(self, f"_{name}")
        return sql.SQL(query).format(**parts)


def _chunked(names: list[str], *arrays: FloatArray) -> Iterator[tuple[Any, ...]]:
    """Names and rows of each array, for as many nodes as one statement takes."""
    for first in track(range(0, len(names), IDS_PER_CALL), "writing vectors"):
        part = slice(first, first + IDS_PER_CALL)
        yield names[part], *(array[part] for array in arrays)


def _doubled(text: str) -> str:
    """Part of a query with placeholders: a percent sign stands for itself only if it is doubled."""
    return text.replace("%", "%%")
