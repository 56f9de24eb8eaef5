"""SQLite tables whose vectors are in a vec0 table of sqlite-vec."""

from __future__ import annotations

import importlib
import json
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from nudge_rag.common.arrays import Float64Array, FloatArray
from nudge_rag.common.packages import import_package
from nudge_rag.errors import MissingPackageError
from nudge_rag.stores.adapter import StoreAdapter
from nudge_rag.stores.base import Capabilities, SearchResult, Similarity, StoreError
from nudge_rag.stores.checks import check_ids, check_queries
from nudge_rag.stores.history import BlobStorage
from nudge_rag.stores.keys import store_key
from nudge_rag.stores.location import StoreLocation
from nudge_rag.stores.sql import sql_name
from nudge_rag.stores.sqlite_vec.history import SQLiteHistory

__all__ = ["SQLiteVecStore", "rowids"]

METRICS: dict[str, Similarity] = {"l2": "l2", "cosine": "cosine"}
# sqlite-vec's own limit on k.
LARGEST_K = 4_096
ROWID = re.compile(r"0|-?[1-9]\d{0,18}")


class SQLiteVecStore(StoreAdapter):
    """Adapter for a table of nodes and the vec0 table with their vectors, row for row, as LangChain's SQLiteVec has it.

    A node's id is its rowid, as text. If the table of nodes has a column that is named as the vectors are, it keeps
    a copy of them, which is written as well. Ranks by the vec0 table's metric; searches are exact, and larger scores
    are better (minus the squared distance for l2). ``where`` is an SQL condition on the table of nodes. A write is one
    transaction.

    Args:
        connection: of ``sqlite3`` or ``pysqlite3``, with sqlite-vec loaded. For use from several threads, as
            asynchronous retrievers do, it must be made with ``check_same_thread=False``.
        table: the name of the table of nodes.
        vec_table: of the vec0 table; default the first name and ``_vec``.
        vector_column: of the vectors in the vec0 table.

    Raises:
        TypeError: anything but a connection.
        ValueError: no such table or column, vectors that are not float32, a metric that has no similarity here, text
            as the vec0 table's key, sqlite-vec not loaded.
    """

    name = "sqlite-vec"
    ids_note = ", whose ids are the rows' numbers"

    def __init__(
        self, connection: Any, table: str, *, vec_table: str | None = None, vector_column: str = "text_embedding"
    ) -> None:
        if not all(hasattr(connection, part) for part in ("execute", "executemany", "in_transaction", "row_factory")):
            raise TypeError(f"expected an sqlite3 connection, got {type(connection).__name__}")
        self.connection, self._lock, self._inside = connection, threading.RLock(), False
        vectors = f"{table}_vec" if vec_table is None else vec_table
        dimension, metric = _vec0(self._definition(vectors), vectors, vector_column)
        columns = [row[0].lower() for row in self._rows("SELECT name FROM pragma_table_xinfo(?)", [table])]
        if not columns:
            raise ValueError(f"there is no table {table!r}")
        try:
            self._rows("SELECT vec_version()")
        except Exception as error:
            raise ValueError("sqlite-vec is not loaded: call sqlite_vec.load(connection) first") from error
        self._dimension = dimension
        self._table, self._vectors, self._vector = sql_name(table), sql_name(vectors), sql_name(vector_column)
        self._copied = vector_column.lower() in columns
        # Rows that are only in one of the two are no nodes.
        self._both = f"{self._table} AS n CROSS JOIN {self._vectors} AS v ON v.rowid = n.rowid"
        path = next(row[2] for row in self._rows("PRAGMA database_list") if row[1] == "main")
        self._place = f"{path or 'memory'} {table} {vectors} {vector_column}"
        scope = vector_column if vectors == f"{table}_vec" else f"{vectors} {vector_column}"
        self._history = SQLiteHistory(self.transaction, self._rows, str(path or ""), table, scope)
        self._capabilities = Capabilities(METRICS[metric], batch_search=False, persistent=bool(path))

    @classmethod
    def open(cls, path: str | Path, table: str, **options: Any) -> SQLiteVecStore:
        """Tables of the database in the file ``path``; ``options`` as for the class."""
        if not Path(path).is_file():
            raise ValueError(f"there is no SQLite database at {str(path)!r}")
        return cls(_connect(path), table, **options)

    @classmethod
    def from_url(cls, location: StoreLocation) -> SQLiteVecStore:
        """The table that ``sqlite-vec://`` names."""
        chosen = location.chosen({"vec_table": "vec_table", "vector": "vector_column"})
        return cls.open(location.needed_path, location.options["table"], **chosen)

    @property
    def key(self) -> str:
        """From the database's file, the tables and the column."""
        return store_key("sqlite-vec", self._place)

    def count(self) -> int:
        """Number of nodes that have a vector."""
        return int(self._rows(f"SELECT count(*) FROM {self._both}")[0][0])

    def _fetch(self, names: list[str]) -> dict[str, FloatArray]:
        query = f"SELECT n.rowid, v.{self._vector} FROM {self._both} WHERE n.rowid IN (SELECT value FROM json_each(?))"
        rows = self._rows(query, [rowids(names)])
        return dict(zip([str(row[0]) for row in rows], self._vectors_in([row[1] for row in rows]), strict=True))

    def _batches(self, batch_size: int) -> Iterator[tuple[list[str], FloatArray]]:
        start, after = "n.rowid >= ?", -(2**63)
        while True:
            query = f"SELECT n.rowid, v.{self._vector} FROM {self._both} WHERE {start} ORDER BY n.rowid LIMIT ?"
            rows = self._rows(query, [after, batch_size])
            if not rows:
                return
            yield [str(row[0]) for row in rows], self._vectors_in([row[1] for row in rows])
            start, after = "n.rowid > ?", rows[-1][0]

    def search(self, queries: FloatArray, k: int, *, where: str | None = None) -> SearchResult:
        """The k best nodes of each query, exactly; faster for l2 and k up to 4096, which sqlite-vec answers itself."""
        checked = check_queries(queries, k, dimension=self._dimension).astype(np.float32)
        condition = f"({where})" if where else "TRUE"
        if self.capabilities.similarity == "l2" and k <= LARGEST_K:
            query = f"""
                SELECT v.rowid, v.distance FROM {self._vectors} AS v WHERE v.{self._vector} MATCH ? AND k = ?
                AND v.rowid IN (SELECT rowid FROM {self._table} WHERE {condition}) ORDER BY v.distance
            """
        else:
            # A cosine with a zero vector has no distance: among its k nearest, sqlite-vec would lose others for it.
            distance = f"vec_distance_{self.capabilities.similarity}(v.{self._vector}, ?)"
            query = f"""
                SELECT n.rowid, coalesce({distance}, 1) AS distance FROM {self._both}
                WHERE n.rowid IN (SELECT rowid FROM {self._table} WHERE {condition}) ORDER BY distance LIMIT ?
            """
        found = [self._rows(query, [row.tobytes(), min(k, 2**62)]) for row in checked]
        return SearchResult(
            [[str(row[0]) for row in rows] for rows in found],
            [self._scores(np.array([row[1] for row in rows], dtype=np.float64)) for rows in found],
        )

    def _scores(self, distances: Float64Array) -> Float64Array:
        return -(distances**2) if self.capabilities.similarity == "l2" else 1 - distances

    def matching(self, ids: Sequence[str], where: str | None) -> set[str]:
        """Return those of ``ids`` that exist and pass ``where``."""
        condition = f"({where})" if where else "TRUE"
        query = f"""
            SELECT n.rowid FROM {self._both} WHERE n.rowid IN (SELECT value FROM json_each(?))
            AND n.rowid IN (SELECT rowid FROM {self._table} WHERE {condition})
        """
        return {str(row[0]) for row in self._rows(query, [rowids(check_ids(ids))])}

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all writes inside one transaction, those of the store's history included."""
        with self._lock:
            if self._inside:
                yield
                return
            if self.connection.in_transaction:
                raise StoreError(f"{self.name}: the connection has an open transaction; commit or roll it back first")
            self.connection.execute("BEGIN IMMEDIATE")
            self._inside = True
            try:
                yield
                self.connection.commit()
            except BaseException:
                self.connection.rollback()
                raise
            finally:
                self._inside = False

    def history(self) -> BlobStorage:
        """The store's history: a table of the same database."""
        return self._history

    def _write(self, names: list[str], rows: FloatArray) -> None:
        """Overwrite vectors, and their copies, in one transaction: all of them, or none."""
        values = [(row.tobytes(), int(name)) for name, row in zip(names, rows, strict=True) if ROWID.fullmatch(name)]
        with self.transaction():
            self.read(names)  # raises for ids that are unknown
            updates = [f"UPDATE {self._vectors} SET {self._vector} = ? WHERE rowid = ?"]
            if self._copied:
                updates.append(f"UPDATE {self._table} SET {self._vector} = ? WHERE rowid = ?")
            for update in updates:
                self.connection.executemany(update, values)

    def _write_if(self, names: list[str], expected: FloatArray, rows: FloatArray) -> list[str]:
        """Compare and set: SQLite's transaction lets no other writer in between."""
        with self.transaction():
            return super()._write_if(names, expected, rows)

    def _definition(self, table: str) -> str:
        rows = self._rows("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ? COLLATE NOCASE", [table])
        if not rows:
            raise ValueError(f"there is no table {table!r}")
        return str(rows[0][0])

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._lock:
            return list(self.connection.execute(query, values).fetchall())

    def _vectors_in(self, rows: list[bytes]) -> FloatArray:
        return np.frombuffer(b"".join(rows), dtype=np.float32).reshape(len(rows), self._dimension or 0)


def _vec0(definition: str, table: str, column: str) -> tuple[int, str]:
    """Dimension and metric of a column, from the statement that made the vec0 table, which SQLite keeps.

    Example:
        >>> _vec0('CREATE VIRTUAL TABLE "v" USING vec0(e float[3] distance_metric=cosine)', "v", "e")
        (3, 'cosine')
    """
    module = re.fullmatch(r".*\bUSING\s+vec0\s*\((.*)\)\s*", definition, re.DOTALL | re.IGNORECASE)
    if module is None:
        raise ValueError(f"{table!r} is not a vec0 table of sqlite-vec")
    parts = [part.split(None, 1) for part in module[1].split(",")]
    columns = {part[0].lower(): part[1] for part in parts if len(part) == 2}
    if any(re.match(r"text\s+primary\s+key", kind, re.IGNORECASE) for kind in columns.values()):
        raise ValueError(f"the vec0 table {table!r} has texts as its key: its rows must have the numbers of the nodes")
    if column.lower() not in columns:
        raise ValueError(f"the vec0 table {table!r} has no column {column!r}, it has {', '.join(columns)}")
    kind = columns[column.lower()]
    shape = re.match(r"(?:float|f32)\s*\[\s*(\d+)\s*\]", kind, re.IGNORECASE)
    if shape is None:
        raise ValueError(f"column {column!r} must hold float[n], it is {kind}")
    given = re.search(r"distance_metric\s*=\s*(\w+)", kind, re.IGNORECASE)
    metric = given[1].lower() if given else "l2"
    if metric not in METRICS:
        raise ValueError(f"sqlite-vec metric {metric!r} is not one of {', '.join(METRICS)}")
    return int(shape[1]), metric


def rowids(ids: Sequence[str]) -> str:
    """Those of ``ids`` that can be a row's number, as a list in JSON.

    Example:
        >>> rowids(["7", "007", "gone", "-3"])
        '[7, -3]'
    """
    return json.dumps([int(name) for name in ids if ROWID.fullmatch(name) and -(2**63) <= int(name) < 2**63])


def _connect(path: str | Path) -> Any:
    sqlite_vec = import_package("sqlite_vec", "SQLiteVecStore.open", "sqlite-vec")
    import sqlite3

    module: Any = sqlite3
    if not hasattr(sqlite3.Connection, "enable_load_extension"):
        try:
            module = importlib.import_module("pysqlite3.dbapi2")
        except ImportError as error:
            raise MissingPackageError("this Python's sqlite3, built without extensions,", "pysqlite3-binary") from error
    connection = module.connect(str(path), check_same_thread=False)
    connection.enable_load_extension(True)
    sqlite_vec.load(connection)
    connection.enable_load_extension(False)
    return connection
