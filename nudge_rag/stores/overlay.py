"""A store with some of its vectors replaced in memory: try a nudge on production data without writing to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nudge_rag.common.arrays import Float64Array, FloatArray
from nudge_rag.common.similarity import score_matrix
from nudge_rag.stores.base import Capabilities, EmbeddingStore, SearchResult
from nudge_rag.stores.checks import check_queries, check_replacement

__all__ = ["OverlayStore"]


class OverlayStore:
    """A read-only view of ``store`` in which ``ids`` have ``vectors``.

    A search asks the store for its best nodes, drops those that are moved, scores the moved ones in memory under the
    store's own similarity, and merges: the ranking that the store itself would give if the vectors were written to it.

    Args:
        store: the store beneath; never written to.
        ids: moved nodes. Those that the store no longer holds are ignored.
        vectors: (len(ids), d) their vectors.

    Raises:
        TypeError: vectors that are not numeric.
        ValueError: ids given twice, or vectors that do not fit.

    Example:
        >>> from nudge_rag.stores.memory.mapping import MappingStore
        >>> store = MappingStore({"a": [1.0, 0.0], "b": [0.0, 1.0]})
        >>> OverlayStore(store, ["b"], np.array([[1.0, 0.05]])).search(np.array([[1.0, 0.1]]), 1).ids
        [['b']]
    """

    def __init__(self, store: EmbeddingStore, ids: Sequence[str], vectors: ArrayLike) -> None:
        self.store = store
        self._names, rows = check_replacement(ids, vectors, dimension=None, dtype=store.capabilities.dtype)
        self._moved = store.as_stored(rows)
        self._row = {node_id: row for row, node_id in enumerate(self._names)}

    @property
    def name(self) -> str:
        """The name of the store beneath."""
        return self.store.name

    @property
    def key(self) -> str:
        """Not the key of the store beneath: nothing is pushed through an overlay."""
        return f"{self.store.key}-overlay"

    @property
    def capabilities(self) -> Capabilities:
        """Those of the store beneath; an overlay has no second version."""
        return replace(self.store.capabilities, side_by_side=False, atomic_switch=False)

    def count(self) -> int:
        """Number of nodes."""
        return self.store.count()

    def read(self, ids: Sequence[str]) -> FloatArray:
        """Vectors of ``ids`` in the order asked, moved ones as moved."""
        return self._laid_over(ids, self.store.read(ids))

    def scan(self, batch_size: int = 1000) -> Iterator[tuple[list[str], FloatArray]]:
        """All nodes, moved ones as moved."""
        return ((ids, self._laid_over(ids, vectors)) for ids, vectors in self.store.scan(batch_size))

    def search(self, queries: FloatArray, k: int, *, where: Any = None) -> SearchResult:
        """The k best nodes of each query, exactly as far as the store beneath searches exactly."""
        checked = check_queries(queries, k, dimension=self._moved.shape[1] if self._names else None)
        if not self._names:
            return self.store.search(checked, k, where=where)
        unmoved = self._search_unmoved(checked, k, where)
        present = self.store.matching(self._names, where)
        rows = [row for row, node_id in enumerate(self._names) if node_id in present]
        scores = score_matrix(
            checked.astype(np.float64), self._moved[rows].astype(np.float64), self.capabilities.similarity
        )
        names = [self._names[row] for row in rows]
        merged = [_merge(part, names, line, k) for part, line in zip(unmoved, scores, strict=True)]
        return SearchResult([ids for ids, _ in merged], [best for _, best in merged])

    def matching(self, ids: Sequence[str], where: Any) -> set[str]:
        """Those of ``ids`` that exist and pass ``where``."""
        return self.store.matching(ids, where)

    def as_stored(self, vectors: FloatArray) -> FloatArray:
        """As the store beneath would give them back."""
        return self.store.as_stored(vectors)

    def replace(self, ids: Sequence[str], vectors: FloatArray) -> None:
        """An overlay is read-only."""
        raise TypeError("an overlay is read-only: push the nudge to write its vectors to the store")

    def _search_unmoved(self, queries: FloatArray, k: int, where: Any) -> list[list[tuple[str, float]]]:
        """Best k unmoved nodes per query: ask for more and more until enough are found or the store has no more."""
        depth, size = k + min(k, len(self._names)), self.store.count()
        while True:
            found = self.store.search(queries, min(depth, max(size, 1)), where=where)
            unmoved = [
                [
                    (node_id, float(score))
                    for node_id, score in zip(ids, scores, strict=True)
                    if node_id not in self._row
                ]
                for ids, scores in zip(found.ids, found.scores, strict=True)
            ]
            if depth >= min(size, k + len(self._names)) or all(len(part) >= k for part in unmoved):
                return unmoved
            depth *= 2

    def _laid_over(self, ids: Sequence[str], vectors: FloatArray) -> FloatArray:
        rows = np.array(vectors)
        for at, node_id in enumerate(ids):
            if node_id in self._row:
                rows[at] = self._moved[self._row[node_id]]
        return rows


def _merge(
    unmoved: list[tuple[str, float]], names: list[str], scores: FloatArray, k: int
) -> tuple[list[str], Float64Array]:
    best = sorted([*unmoved, *zip(names, scores.tolist(), strict=True)], key=lambda pair: -pair[1])[:k]
    return [node_id for node_id, _ in best], np.array([score for _, score in best], dtype=np.float64)
