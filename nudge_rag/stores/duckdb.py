"""DuckDB tables with a column of vectors, in a file or in memory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from nudge_rag.common.arrays import Float64Array, FloatArray
from nudge_rag.stores.base import Capabilities, SearchResult, Similarity, StoreError, UnknownIdError
from nudge_rag.stores.checks import (
    check_batch_size,
    check_ids,
    check_queries,
    check_replacement,
    chunks,
    sql_name,
    store_key,
)

__all__ = ["DuckDBStore"]

# A fixed-size column has functions of its own.
FUNCTIONS: dict[Similarity, tuple[str, str]] = {
    "cosine": ("array_cosine_similarity", "list_cosine_similarity"),
    "dot": ("array_inner_product", "list_inner_product"),
    "l2": ("array_distance", "list_distance"),
}
IDS_PER_CALL = 10_000
QUERIES_PER_CALL = 128
# Vectors reach DuckDB as one long column of numbers: a list of lists is converted ten times slower.
GIVEN = "SELECT nudge_row AS n, list(nudge_value ORDER BY nudge_at)::{} AS v FROM nudge_rag_given GROUP BY nudge_row"


class DuckDBStore:
    """Adapter for a table with an id column and a column of ``FLOAT[n]``, ``FLOAT[]`` or the like in ``DOUBLE``.

    Searches are exact. Scores are larger-is-better: minus the squared distance for l2. ``where`` is an SQL condition.
    Every call has a cursor of its own, and writes are one transaction.

    Args:
        connection: of ``duckdb.connect``, to the database that holds the table.
        table: the table's name.
        schema: the schema's name; default the connection's own.
        id_column: its name; ids are read as text.
        vector_column: its name.
        similarity: how the application ranks.

    Raises:
        TypeError: anything but a connection.
        ValueError: no such table or column, a column of another type, vectors of several lengths.
    """

    def __init__(
        self,
        connection: Any,
        table: str,
        *,
        schema: str | None = None,
        id_column: str = "id",
        vector_column: str = "embedding",
        similarity: Similarity = "cosine",
    ) -> None:
        if not all(hasattr(connection, part) for part in ("cursor", "execute", "register")):
            raise TypeError(f"expected a DuckDB connection, got {type(connection).__name__}")
        if similarity not in FUNCTIONS:
            raise ValueError(f"similarity must be one of {', '.join(FUNCTIONS)}, got {similarity!r}")
        self.connection = connection
        self._table = ".".join(sql_name(part) for part in (schema, table) if part is not None)
        self._id, self._vector = sql_name(id_column), sql_name(vector_column)
        # Rows without a vector are no nodes.
        self._only = f"{self._vector} IS NOT NULL AND {self._id} IS NOT NULL"
        self._kind = self._vector_type(table, id_column, vector_column)
        self._given = GIVEN.format(self._kind)
        fixed = "[]" not in self._kind
        self._function = FUNCTIONS[similarity][0 if fixed else 1]
        self._dimension = int(self._kind.partition("[")[2][:-1]) if fixed else self._common_length(vector_column)
        rows = self._rows(
            "SELECT path, current_schema() FROM duckdb_databases() WHERE database_name = current_database()"
        )
        self._path, current = rows[0]
        self._place = f"{self._path or 'memory'} {schema or current} {table} {vector_column}"
        dtype = "float32" if self._kind.startswith("FLOAT") else "float64"
        self._capabilities = Capabilities(similarity, dtype=dtype, persistent=self._path is not None)

    @classmethod
    def open(cls, path: str | Path, table: str, **options: Any) -> DuckDBStore:
        """A table of the database in the file ``path``; ``options`` as for the class."""
        try:
            import duckdb
        except ImportError as error:
            raise ImportError("DuckDBStore.open needs DuckDB: pip install 'nudge-rag[duckdb]'") from error
        if not Path(path).is_file():
            raise ValueError(f"there is no DuckDB database at {str(path)!r}")
        return cls(duckdb.connect(str(path)), table, **options)

    @property
    def name(self) -> str:
        """The database's name."""
        return "duckdb"

    @property
    def key(self) -> str:
        """From the database's file, the schema, the table and the column."""
        return store_key("duckdb", self._place)

    @property
    def capabilities(self) -> Capabilities:
        """What the store can do."""
        return self._capabilities

    def count(self) -> int:
        """Number of nodes that have a vector."""
        return int(self._rows(f"SELECT count(*) FROM {self._table} WHERE {self._only}")[0][0])

    def read(self, ids: Sequence[str]) -> FloatArray:
        """Read the vectors of ``ids``, (len(ids), d), in the order asked.

        Raises:
            ValueError: an id in two rows.
        """
        names = check_ids(ids)
        found: dict[str, FloatArray] = {}
        for chunk in chunks(list(dict.fromkeys(names)), IDS_PER_CALL):
            part, rows = self._among(chunk)
            if len(set(part)) != len(part):
                twice = next(node_id for node_id in part if part.count(node_id) > 1)
                raise ValueError(f"id {twice!r} is more than once in {self.name}: each node must have one vector")
            found.update(zip(part, rows, strict=True))
        unknown = [name for name in names if name not in found]
        if unknown:
            raise UnknownIdError(unknown, self.name)
        return self._matrix([found[name] for name in names])

    def scan(self, batch_size: int = 1000) -> Iterator[tuple[list[str], FloatArray]]:
        """All nodes that are there when the scan begins and when their batch is read."""
        return self._batches(check_batch_size(batch_size))

    def _batches(self, batch_size: int) -> Iterator[tuple[list[str], FloatArray]]:
        # Not one open cursor: while it is, DuckDB refuses to change a row of the table a second time.
        ids = [
            row[0] for row in self._rows(f"SELECT DISTINCT {self._id}::VARCHAR FROM {self._table} WHERE {self._only}")
        ]
        for chunk in chunks(ids, batch_size):
            part, rows = self._among(chunk)
            for first in range(0, len(part), batch_size):
                yield part[first : first + batch_size], rows[first : first + batch_size]

    def search(self, queries: FloatArray, k: int, *, where: str | None = None) -> SearchResult:
        """The k best nodes of each query, exactly."""
        checked = check_queries(queries, k, dimension=self._dimension or None)
        ids: list[list[str]] = []
        scores: list[Float64Array] = []
        zero = f"{[0] * self._dimension}::{self._kind}"
        query = f"""
            WITH q AS (SELECT n, v, v = {zero} AS zero FROM ({self._given})),
            t AS (SELECT id, v, v = {zero} AS zero FROM ({self._nodes(where)})),
            s AS (SELECT n, id, {self._score()} AS score FROM t, q)
            SELECT n, max_by(id, score, $k), max(score, $k) FROM s GROUP BY n
        """
        most = max(1, min(k, self.count()))
        for first in range(0, len(checked), QUERIES_PER_CALL):
            part = checked[first : first + QUERIES_PER_CALL]
            answers = {n: answer for n, *answer in self._rows(query, {"k": most}, given=part)}
            for at in range(len(part)):
                found = answers.get(at, ([], []))
                ids.append(found[0])
                scores.append(self._scores(np.array(found[1], dtype=np.float64)))
        return SearchResult(ids, scores)

    def _score(self) -> str:
        """Larger is better; a cosine with a zero vector, -1 or NaN as DuckDB's version will have it, is 0."""
        score = f"{self._function}(t.v, q.v)"
        if self.capabilities.similarity == "cosine":
            return f"if(t.zero OR q.zero OR isnan({score}), 0, {score})"
        return f"-{score}" if self.capabilities.similarity == "l2" else score

    def _scores(self, given: Float64Array) -> Float64Array:
        return -(given**2) if self.capabilities.similarity == "l2" else given

    def matching(self, ids: Sequence[str], where: str | None) -> set[str]:
        """Those of ``ids`` that exist and pass ``where``."""
        query = f"SELECT id FROM ({self._nodes(where)}) WHERE id IN (SELECT unnest($ids::VARCHAR[]))"
        return {row[0] for row in self._rows(query, {"ids": sorted(set(check_ids(ids)))})}

    def as_stored(self, vectors: FloatArray) -> FloatArray:
        """``vectors`` in the column's precision."""
        return np.asarray(vectors, dtype=self.capabilities.dtype)

    def replace(self, ids: Sequence[str], vectors: FloatArray) -> None:
        """Overwrite vectors in one transaction: all of them, or none."""
        names, rows = check_replacement(ids, vectors, dimension=self._dimension or None, dtype=self.capabilities.dtype)
        self.read(names)  # raises for ids that are unknown or there twice
        if not names:
            return
        update = f"""
            UPDATE {self._table} SET {self._vector} = nudge_vector
            FROM (SELECT $ids[n + 1] AS nudge_id, v AS nudge_vector FROM ({self._given}))
            WHERE {self._id}::VARCHAR = nudge_id AND {self._only}
        """
        with self._cursor(rows) as cursor:
            cursor.begin()
            changed = cursor.execute(update, {"ids": names}).fetchone()[0]
            if changed != len(names):
                cursor.rollback()
                raise StoreError(f"{changed} rows for {len(names)} ids: the table changed; nothing was written")
            cursor.commit()

    def _nodes(self, where: str | None = None) -> str:
        condition = f"{self._only} AND ({where})" if where else self._only
        return f"SELECT {self._id}::VARCHAR AS id, {self._vector} AS v FROM {self._table} WHERE {condition}"

    def _among(self, ids: list[str]) -> tuple[list[str], FloatArray]:
        query = f"SELECT id, v FROM ({self._nodes()}) WHERE id IN (SELECT unnest($ids::VARCHAR[]))"
        with self._cursor() as cursor:
            answer = cursor.execute(query, {"ids": ids}).fetchnumpy()
        return answer["id"].tolist(), self._matrix(list(answer["v"]))

    def _matrix(self, rows: list[FloatArray]) -> FloatArray:
        if not rows:
            return np.zeros((0, self._dimension), dtype=self.capabilities.dtype)
        return np.stack(rows).astype(self.capabilities.dtype)

    def _vector_type(self, table: str, id_column: str, vector_column: str) -> str:
        import duckdb

        try:
            columns = {row[0].lower(): row[1] for row in self._rows(f"DESCRIBE {self._table}")}
        except duckdb.CatalogException as error:
            raise ValueError(f"there is no table {table!r}: {error}") from error
        for column in (id_column, vector_column):
            if column.lower() not in columns:
                raise ValueError(f"table {table!r} has no column {column!r}, it has {', '.join(columns)}")
        kind = str(columns[vector_column.lower()])
        if not re.fullmatch(r"(FLOAT|DOUBLE)\[\d*\]", kind):
            raise ValueError(
                f"column {vector_column!r} must hold FLOAT[n], FLOAT[] or the like in DOUBLE, it is {kind}"
            )
        return kind

    def _common_length(self, vector_column: str) -> int:
        query = f"SELECT min(len({self._vector})), max(len({self._vector})) FROM {self._table} WHERE {self._only}"
        shortest, longest = self._rows(query)[0]
        if shortest != longest:
            raise ValueError(
                f"column {vector_column!r} holds vectors of {shortest} to {longest} numbers, not of one length"
            )
        return int(shortest or 0)

    @contextmanager
    def _cursor(self, given: FloatArray | None = None) -> Iterator[Any]:
        """A cursor of its own for each call, in which ``given`` is a table of numbers."""
        cursor = self.connection.cursor()
        try:
            if given is not None:
                row, at = np.divmod(np.arange(given.size), given.shape[1])
                cursor.register("nudge_rag_given", {"nudge_row": row, "nudge_at": at, "nudge_value": given.ravel()})
            yield cursor
        finally:
            cursor.close()

    def _rows(self, query: str, values: dict[str, Any] | None = None, given: FloatArray | None = None) -> list[Any]:
        with self._cursor(given) as cursor:
            return list(cursor.execute(query, values).fetchall())
