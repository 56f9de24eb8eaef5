"""DuckDB tables with a column of vectors, in a file or in memory."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from nudge_rag.common.arrays import Float64Array, FloatArray
from nudge_rag.common.packages import import_package
from nudge_rag.stores.adapter import StoreAdapter
from nudge_rag.stores.base import Capabilities, SearchResult, Similarity, StoreError
from nudge_rag.stores.checks import check_ids, check_queries, chunks
from nudge_rag.stores.duckdb.history import DuckDBHistory
from nudge_rag.stores.history import BlobStorage
from nudge_rag.stores.keys import store_key
from nudge_rag.stores.location import StoreLocation
from nudge_rag.stores.sql import sql_name

__all__ = ["DuckDBStore"]

# A fixed-size column has functions of its own.
FUNCTIONS: dict[Similarity, tuple[str, str]] = {
    "cosine": ("array_cosine_similarity", "list_cosine_similarity"),
    "dot": ("array_inner_product", "list_inner_product"),
    "l2": ("array_distance", "list_distance"),
}
IDS_PER_CALL = 10_000
QUERIES_PER_CALL = 128
# Two cursors that change one row at the same time: DuckDB refuses the second at once.
TRIES, BETWEEN_TRIES = 20, 0.05
# Vectors reach DuckDB as one long column of numbers: a list of lists is converted ten times slower.
GIVEN = "SELECT nudge_row AS n, list(nudge_value ORDER BY nudge_at)::{} AS v FROM nudge_rag_given GROUP BY nudge_row"


class DuckDBStore(StoreAdapter):
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

    name = "duckdb"

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
        self._local = threading.local()
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
        path, current = rows[0]
        # Known by its place, whatever link or relative path it is opened by, and wherever the process goes from here.
        self._path = str(Path(path).resolve()) if path else None
        self._place = f"{self._path or 'memory'} {schema or current} {table} {vector_column}"
        self._names = (schema or current, table, vector_column)
        dtype = "float32" if self._kind.startswith("FLOAT") else "float64"
        self._capabilities = Capabilities(similarity, dtype=dtype, persistent=self._path is not None)

    @classmethod
    def open(cls, path: str | Path, table: str, **options: Any) -> DuckDBStore:
        """A table of the database in the file ``path``; ``options`` as for the class."""
        duckdb = import_package("duckdb", "DuckDBStore.open", "duckdb")
        if not Path(path).is_file():
            raise ValueError(f"there is no DuckDB database at {str(path)!r}")
        return cls(duckdb.connect(str(path)), table, **options)

    @classmethod
    def from_url(cls, location: StoreLocation) -> DuckDBStore:
        """The table that ``duckdb://`` names."""
        names = {"schema": "schema", "id": "id_column", "vector": "vector_column", "similarity": "similarity"}
        return cls.open(location.needed_path, location.options["table"], **location.chosen(names))

    @property
    def key(self) -> str:
        """From the database's file, the schema, the table and the column."""
        return store_key("duckdb", self._place)

    def count(self) -> int:
        """Number of nodes that have a vector."""
        return int(self._rows(f"SELECT count(*) FROM {self._table} WHERE {self._only}")[0][0])

    def _fetch(self, names: list[str]) -> dict[str, FloatArray]:
        found: dict[str, FloatArray] = {}
        for chunk in chunks(names, IDS_PER_CALL):
            answered, rows = self._among(chunk)
            self._require_once(answered)
            found.update(zip(answered, rows, strict=True))
        return found

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
        zero = f"{[0] * (self._dimension or 0)}::{self._kind}"
        # A table may have any short name.
        query = f"""
            WITH nudge_queries AS (SELECT n, v, v = {zero} AS zero FROM ({self._given})),
            nudge_nodes AS (SELECT id, v, v = {zero} AS zero FROM ({self._nodes(where)})),
            nudge_scores AS (SELECT n, id, {self._score()} AS score FROM nudge_nodes AS t, nudge_queries AS q)
            SELECT n, max_by(id, score, $k), max(score, $k) FROM nudge_scores GROUP BY n
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
        """Return those of ``ids`` that exist and pass ``where``."""
        query = f"SELECT id FROM ({self._nodes(where)}) WHERE id IN (SELECT unnest($ids::VARCHAR[]))"
        return {row[0] for row in self._rows(query, {"ids": sorted(set(self._possible(check_ids(ids))))})}

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all writes inside one transaction, those of the store's history included."""
        if self._inside is not None:
            yield
            return
        cursor = self.connection.cursor()
        cursor.begin()
        self._local.cursor = cursor
        try:
            yield
            cursor.commit()
        except BaseException:
            cursor.rollback()
            raise
        finally:
            self._local.cursor = None
            cursor.close()

    @property
    def _inside(self) -> Any:
        """The cursor of this thread's transaction, None outside of one."""
        return getattr(self._local, "cursor", None)

    def history(self) -> BlobStorage:
        """The store's history: a table of the same schema."""
        place = self._path or f"memory {id(self.connection)}"
        return DuckDBHistory(self.transaction, self._cursor, place, *self._names)

    def _write(self, names: list[str], rows: FloatArray) -> None:
        """Overwrite vectors in one transaction: all of them, or none."""
        self.read(names)  # raises for ids that are unknown or there twice
        if not names:
            return
        self._retrying(names, rows, None)

    def _write_if(self, names: list[str], expected: FloatArray, rows: FloatArray) -> list[str]:
        """Compare and set, in one statement."""
        self._fetch(names)  # raises for ids that are there twice
        written = set(self._retrying(names, rows, expected))
        return [name for name in names if name not in written]

    def _retrying(self, names: list[str], rows: FloatArray, expected: FloatArray | None) -> list[str]:
        """Update in a transaction, begun anew if another cursor changes one of these rows just now."""
        import duckdb

        for left in reversed(range(TRIES)):
            try:
                with self.transaction():
                    return self._update(names, rows, expected)
            except duckdb.TransactionException as error:
                if self._inside is not None:
                    raise
                if not left:
                    raise StoreError("others are changing the same rows; nothing was written") from error
                time.sleep(BETWEEN_TRIES)
        return []

    def _update(self, names: list[str], rows: FloatArray, expected: FloatArray | None = None) -> list[str]:
        """Overwrite vectors, only expected ones if these are given: ids of the rows that were written."""
        both = rows if expected is None else np.concatenate([rows, expected])
        columns = "$ids[n + 1] AS nudge_id, v AS nudge_vector"
        given = f"SELECT {columns} FROM ({self._given}) WHERE n < {len(names)}"
        among, unchanged = f"({given}) AS nudge_new", ""
        if expected is not None:
            old = f"SELECT n - {len(names)} AS m, v AS nudge_old FROM ({self._given}) WHERE n >= {len(names)}"
            among = f"(SELECT {columns}, nudge_old FROM ({self._given}) JOIN ({old}) ON n = m) AS nudge_new"
            unchanged = f" AND {self._vector} = nudge_old"
        update = f"""
            UPDATE {self._table} SET {self._vector} = nudge_vector FROM {among}
            WHERE {self._id}::VARCHAR = nudge_id AND {self._only}{unchanged} RETURNING {self._id}::VARCHAR
        """
        with self._cursor(both) as cursor:
            written = [row[0] for row in cursor.execute(update, {"ids": names}).fetchall()]
        if expected is None and len(written) != len(names):
            raise StoreError(f"{len(written)} rows for {len(names)} ids: the table changed; nothing was written")
        return written

    def _nodes(self, where: str | None = None) -> str:
        condition = f"{self._only} AND ({where})" if where else self._only
        return f"SELECT {self._id}::VARCHAR AS id, {self._vector} AS v FROM {self._table} WHERE {condition}"

    def _among(self, ids: list[str]) -> tuple[list[str], FloatArray]:
        query = f"SELECT id, v FROM ({self._nodes()}) WHERE id IN (SELECT unnest($ids::VARCHAR[]))"
        with self._cursor() as cursor:
            answer = cursor.execute(query, {"ids": ids}).fetchnumpy()
        return answer["id"].tolist(), self._matrix(list(answer["v"]))

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
        """A cursor of its own for each call, or that of the transaction, in which ``given`` is a table of numbers."""
        inside = self._inside
        cursor = self.connection.cursor() if inside is None else inside
        try:
            if given is not None:
                row, at = np.divmod(np.arange(given.size), given.shape[1])
                cursor.register("nudge_rag_given", {"nudge_row": row, "nudge_at": at, "nudge_value": given.ravel()})
            yield cursor
        finally:
            if inside is None:
                cursor.close()

    def _rows(self, query: str, values: dict[str, Any] | None = None, given: FloatArray | None = None) -> list[Any]:
        with self._cursor(given) as cursor:
            return list(cursor.execute(query, values).fetchall())
