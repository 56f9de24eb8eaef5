"""A second column of vectors in a LanceDB table, and swapping what the two hold in one commit.

Renaming the columns would be one commit as well, but a writer with a handle from before would go on writing to the old
column, under its new name (LanceDB 0.40), and its rows would be missing from the live version.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.ranking import rank_nodes
from nudge_rag.stores.base import SearchResult
from nudge_rag.stores.checks import check_label, check_queries
from nudge_rag.stores.lance.store import LanceStore

__all__ = ["LanceCopy", "create_column", "drop_column", "labels_of", "swap_columns"]

ROWS_PER_STEP = 5_000


class LanceCopy(LanceStore):
    """The version of a store's vectors in another column, of the type ``list``.

    LanceDB takes such a column for no vector: whoever searches the table without naming a column is not asked which of
    the two they mean. Searches here look at every row.

    Args:
        live: the store.
        label: of the version.

    Raises:
        ValueError: no version of that label.
    """

    def __init__(self, live: LanceStore, label: str) -> None:
        # Not the base class's own: that refuses columns of this type.
        self.table, self._latest, self._id, self._dimension = live.table, live._latest, live._id, live._dimension
        self._vector = _column(live, label)
        self._present = f"{_quoted(self._vector)} IS NOT NULL"
        self._capabilities = replace(live.capabilities, exact_search=True, side_by_side=False, atomic_switch=False)

    def count(self) -> int:
        """Number of nodes in this version."""
        return int(self._fresh().count_rows(self._present))

    def search(self, queries: FloatArray, k: int, *, where: str | None = None) -> SearchResult:
        """The k best nodes of each query, by looking at them all."""
        checked = check_queries(queries, k, dimension=self._dimension).astype(np.float64)
        rows = self._select([self._id, self._vector], where or "TRUE")
        names = rows[self._id].to_pylist()
        if not names:
            return SearchResult([[] for _ in checked], [np.zeros(0) for _ in checked])
        best, scores = rank_nodes(checked, self._matrix(rows), k, self.capabilities.similarity)
        return SearchResult([[names[row] for row in line] for line in best], list(scores.astype(np.float64)))

    def _select(self, columns: list[str], condition: str) -> Any:
        return super()._select(columns, f"({condition}) AND {self._present}")

    def _batches(self, batch_size: int) -> Iterator[tuple[list[str], FloatArray]]:
        query = self._fresh().search().where(self._present).select([self._id, self._vector]).limit(None)
        for batch in query.to_batches(batch_size):
            if batch.num_rows:
                yield batch[self._id].to_pylist(), self._matrix(batch)


def labels_of(store: LanceStore) -> list[str]:
    """Labels of the versions beside the live one."""
    prefix = _prefix(store)
    return [name.removeprefix(prefix) for name in store._fresh().schema.names if name.startswith(prefix)]


def create_column(store: LanceStore, label: str) -> None:
    """Copy the vectors of all rows, in one commit."""
    new = _prefix(store) + check_label(label)
    if label in labels_of(store):
        drop_column(store, label)
    kind = "Float32" if store.capabilities.dtype == "float32" else "Float64"
    store._fresh().add_columns({new: f"arrow_cast({_quoted(store._vector)}, 'List({kind})')"})


def swap_columns(store: LanceStore, label: str) -> None:
    """Swap the two versions of every row in which they differ, in one commit; rows that have only one keep it."""
    new = _column(store, label)
    ids: list[str] = []
    parts: tuple[list[FloatArray], list[FloatArray]] = ([], [])
    query = store._fresh().search().where(f"{_quoted(new)} IS NOT NULL").select([store._id, store._vector, new])
    for batch in query.limit(None).to_batches(ROWS_PER_STEP):
        live, copy = (store._matrix(batch, column) for column in (store._vector, new))
        differ = np.flatnonzero((_bits(live) != _bits(copy)).any(axis=1))
        ids += [batch[store._id][int(row)].as_py() for row in differ]
        parts[0].append(copy[differ])
        parts[1].append(live[differ])
    if ids:
        written = dict(zip((store._vector, new), map(np.concatenate, parts), strict=True))
        store._merge(ids, written)


def drop_column(store: LanceStore, label: str) -> None:
    """Remove the version ``label``."""
    store._fresh().drop_columns([_column(store, label)])


def _bits(rows: FloatArray) -> np.ndarray[Any, Any]:
    return np.ascontiguousarray(rows).view(np.uint32 if rows.dtype == np.float32 else np.uint64)


def _prefix(store: LanceStore) -> str:
    return f"{store._vector}__beside_"


def _column(store: LanceStore, label: str) -> str:
    labels: Sequence[str] = labels_of(store)
    if check_label(label) not in labels:
        raise ValueError(f"there is no version {label!r} of {store._vector!r}; there are {', '.join(labels) or 'none'}")
    return _prefix(store) + label


def _quoted(column: str) -> str:
    return f"`{column.replace('`', '``')}`"
