"""LanceDB tables, on disk or in object storage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nudge_rag.common.arrays import Float64Array, FloatArray
from nudge_rag.stores.base import Capabilities, SearchResult, Similarity, UnknownIdError
from nudge_rag.stores.checks import (
    check_batch_size,
    check_ids,
    check_queries,
    check_replacement,
    chunks,
    sql_text,
    store_key,
    ungrouped,
)

__all__ = ["LanceStore"]

SIMILARITY: dict[str, Similarity] = {"cosine": "cosine", "dot": "dot", "l2": "l2"}
IDS_PER_CALL = 1_000
QUERIES_PER_CALL = 256


class LanceStore:
    """Adapter for a ``lancedb`` table with an id column and a column of float32 or float64 vectors.

    Ranks as LanceDB does: by the metric of the vector index where there is one, by Euclidean distance otherwise; scores
    are larger-is-better (minus the squared distance for l2). With an index the search is approximate: more ``nprobes``
    find more, ``refine_factor`` scores that many times k candidates by their full vectors. ``where`` is an SQL
    condition. Every write is a version of the table.

    Args:
        table: the table.
        vector_column: its name.
        id_column: its name.
        exact: search without the index.
        latest: see what other handles and processes have written since; False for a table checked out at a version.
        nprobes: of an indexed search.
        refine_factor: of an indexed search.

    Raises:
        TypeError: anything but a table.
        ValueError: columns that are missing or of another type, an index with a metric that has no similarity here.
    """

    def __init__(
        self,
        table: Any,
        *,
        vector_column: str = "vector",
        id_column: str = "id",
        exact: bool = False,
        latest: bool = True,
        nprobes: int = 64,
        refine_factor: int = 4,
    ) -> None:
        if not all(hasattr(table, part) for part in ("merge_insert", "list_indices", "search", "schema")):
            raise TypeError(f"expected a lancedb table, got {type(table).__name__}")
        self.table = table
        self._latest = latest
        self._vector, self._id = vector_column, id_column
        self._dimension, dtype = _vector_type(table.schema, vector_column, id_column)
        metric = _index_metric(table, vector_column)
        if metric not in (None, *SIMILARITY):
            raise ValueError(f"LanceDB metric {metric!r} is not one of {', '.join(SIMILARITY)}")
        self._exact = exact or metric is None
        self._nprobes, self._refine = nprobes, refine_factor
        self._capabilities = Capabilities(
            SIMILARITY[metric or "l2"],
            dtype=dtype,
            exact_search=self._exact,
            persistent=True,
            side_by_side=latest,
            atomic_switch=latest,
        )

    @classmethod
    def open(cls, uri: str | Path, table: str, **options: Any) -> LanceStore:
        """The table of that name in a LanceDB database; ``options`` as for the class."""
        try:
            import lancedb
        except ImportError as error:
            raise ImportError("LanceStore.open needs LanceDB: pip install 'nudge-rag[lancedb]'") from error
        return cls(lancedb.connect(str(uri)).open_table(table), **options)

    @property
    def name(self) -> str:
        """The database's name."""
        return "lancedb"

    @property
    def key(self) -> str:
        """From where the table is, its name and the column."""
        place = f"{getattr(self.table, 'uri', '')} {self.table.name} {self._vector}"
        return store_key("lancedb", place)

    @property
    def capabilities(self) -> Capabilities:
        """What the store can do."""
        return self._capabilities

    def count(self) -> int:
        """Number of nodes."""
        return int(self._fresh().count_rows())

    def read(self, ids: Sequence[str]) -> FloatArray:
        """Vectors of ``ids``, (len(ids), d), in the order asked. Raises ValueError for an id that is there twice."""
        names = check_ids(ids)
        found: dict[str, FloatArray] = {}
        for chunk in chunks(list(dict.fromkeys(names)), IDS_PER_CALL):
            rows = self._select([self._id, self._vector], _among(self._id, chunk))
            answered = rows[self._id].to_pylist()
            found.update(zip(answered, self._matrix(rows), strict=True))
            if len(set(answered)) != len(answered):
                twice = next(node_id for node_id in answered if answered.count(node_id) > 1)
                raise ValueError(f"id {twice!r} is more than once in {self.name}: each node must have one vector")
        unknown = [node_id for node_id in names if node_id not in found]
        if unknown:
            raise UnknownIdError(unknown, self.name)
        if not names:
            return np.zeros((0, self._dimension), dtype=self.capabilities.dtype)
        return np.stack([found[node_id] for node_id in names])

    def scan(self, batch_size: int = 1000) -> Iterator[tuple[list[str], FloatArray]]:
        """All nodes of the table's version at the start of the scan."""
        return self._batches(check_batch_size(batch_size))

    def _batches(self, batch_size: int) -> Iterator[tuple[list[str], FloatArray]]:
        query = self._fresh().search().select([self._id, self._vector]).limit(None)
        for batch in query.to_batches(batch_size):
            if batch.num_rows:
                yield batch[self._id].to_pylist(), self._matrix(batch)

    def search(self, queries: FloatArray, k: int, *, where: str | None = None) -> SearchResult:
        """The k best nodes of each query: exactly, or as far as the index finds them."""
        checked = check_queries(queries, k, dimension=self._dimension).astype(self.capabilities.dtype)
        ids: list[list[str]] = []
        scores: list[Float64Array] = []
        for first in range(0, len(checked), QUERIES_PER_CALL):
            part = checked[first : first + QUERIES_PER_CALL]
            found = self._nearest(part, k, where)
            query = np.asarray(found["query_index"]) if "query_index" in found.column_names else np.zeros(len(found))
            found_ids, found_scores = ungrouped(
                query, found[self._id].to_pylist(), self._scores(np.asarray(found["_distance"])), len(part), k
            )
            ids.extend(found_ids)
            scores.extend(found_scores)
        return SearchResult(ids, scores)

    def _nearest(self, queries: FloatArray, k: int, where: str | None) -> Any:
        query = self._fresh().search(queries, vector_column_name=self._vector).limit(k)
        query = query.select([self._id, "_distance"]).distance_type(self.capabilities.similarity)
        if where:
            query = query.where(where, prefilter=True)
        if self._exact:
            return query.bypass_vector_index().to_arrow()
        return query.nprobes(self._nprobes).refine_factor(self._refine).to_arrow()

    def _scores(self, distances: FloatArray) -> Float64Array:
        offset = 0.0 if self.capabilities.similarity == "l2" else 1.0
        return np.asarray(offset - distances.astype(np.float64))

    def matching(self, ids: Sequence[str], where: str | None) -> set[str]:
        """Those of ``ids`` that exist and pass ``where``."""
        found: set[str] = set()
        for chunk in chunks(sorted(set(check_ids(ids))), IDS_PER_CALL):
            condition = _among(self._id, chunk) + (f" AND ({where})" if where else "")
            found.update(self._select([self._id], condition)[self._id].to_pylist())
        return found

    def as_stored(self, vectors: FloatArray) -> FloatArray:
        """``vectors`` in the column's precision."""
        return np.asarray(vectors, dtype=self.capabilities.dtype)

    def replace(self, ids: Sequence[str], vectors: FloatArray) -> None:
        """Overwrite vectors in one commit: a merge of the id and vector columns leaves all others alone."""
        names, rows = check_replacement(ids, vectors, dimension=self._dimension, dtype=self.capabilities.dtype)
        self.read(names)  # raises for ids that are unknown or there twice
        if not names:
            return
        self._merge(names, {self._vector: rows})

    def _merge(self, names: list[str], columns: dict[str, FloatArray]) -> None:
        """Overwrite columns of vectors, in one commit."""
        import pyarrow

        schema = self._fresh().schema
        arrays = [pyarrow.array(names, schema.field(self._id).type)]
        for column, rows in columns.items():
            values = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(rows.ravel()), rows.shape[1])
            arrays.append(values.cast(schema.field(column).type))
        new = pyarrow.table(arrays, names=[self._id, *columns])
        self.table.merge_insert(self._id).when_matched_update_all().execute(new)

    def create_copy(self, label: str) -> LanceStore:
        """Copy the vectors of all rows to a second column, in one commit."""
        from nudge_rag.stores.lance.copies import create_column

        self._needs_latest()
        create_column(self, label)
        return self.open_copy(label)

    def open_copy(self, label: str) -> LanceStore:
        """The version ``label``; its searches look at every row."""
        from nudge_rag.stores.lance.copies import LanceCopy

        return LanceCopy(self, label)

    def copy_labels(self) -> list[str]:
        """Labels of the versions beside the live one."""
        from nudge_rag.stores.lance.copies import labels_of

        return labels_of(self)

    def switch(self, label: str) -> None:
        """Swap the two versions of every row in which they differ, in one commit."""
        from nudge_rag.stores.lance.copies import swap_columns

        self._needs_latest()
        swap_columns(self, label)

    def drop_copy(self, label: str) -> None:
        """Remove the version ``label``."""
        from nudge_rag.stores.lance.copies import drop_column

        self._needs_latest()
        drop_column(self, label)

    def _needs_latest(self) -> None:
        if not self.capabilities.side_by_side:
            raise ValueError("a table that is checked out at a version is not written to: open it with latest=True")

    def _fresh(self) -> Any:
        """The table as it is now: a handle of LanceDB's stays at the version that it was opened at."""
        if self._latest:
            self.table.checkout_latest()
        return self.table

    def _select(self, columns: list[str], condition: str) -> Any:
        return self._fresh().search().where(condition).select(columns).limit(None).to_arrow()

    def _matrix(self, rows: Any, name: str | None = None) -> FloatArray:
        column = rows[name or self._vector]
        flat = column.combine_chunks() if hasattr(column, "combine_chunks") else column
        values = np.asarray(flat.flatten(), dtype=self.capabilities.dtype)
        return values.reshape(rows.num_rows, self._dimension)


def _vector_type(schema: Any, vector_column: str, id_column: str) -> tuple[int, str]:
    for column in (vector_column, id_column):
        if column not in schema.names:
            raise ValueError(f"the table has no column {column!r}, it has {', '.join(schema.names)}")
    kind = schema.field(vector_column).type
    if getattr(kind, "list_size", -1) < 1 or str(kind.value_type) not in ("float", "double"):
        raise ValueError(f"column {vector_column!r} must be a fixed-size list of float32 or float64, it is {kind}")
    if str(schema.field(id_column).type) not in ("string", "large_string"):
        raise ValueError(f"column {id_column!r} must hold strings, it holds {schema.field(id_column).type}")
    return int(kind.list_size), "float32" if str(kind.value_type) == "float" else "float64"


def _index_metric(table: Any, vector_column: str) -> str | None:
    for index in table.list_indices():
        if list(index.columns) == [vector_column]:
            stats = table.index_stats(index.name)
            return None if stats is None else str(stats.distance_type)
    return None


def _among(column: str, ids: Sequence[str]) -> str:
    """An SQL condition; quotes inside names and values are doubled."""
    values = ", ".join(map(sql_text, ids))
    return f"`{column.replace('`', '``')}` IN ({values})"
