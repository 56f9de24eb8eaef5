"""A store with every vector mapped while it is read: what a map of all nodes would make of it, without writing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.stores.base import Capabilities, EmbeddingStore, SearchResult
from nudge_rag.stores.checks import check_queries
from nudge_rag.stores.lake.best import BestNodes, Question

__all__ = ["MapNodes", "MappedStore"]

# Ids and vectors as a store holds them, to the vectors that they become.
MapNodes: TypeAlias = Callable[[Sequence[str], FloatArray], FloatArray]
NODES_PER_STEP = 5_000


class MappedStore:
    """A read-only view of ``store`` in which every vector is mapped.

    A search streams all nodes and is exact: no index knows the mapped vectors.

    Args:
        store: the store beneath; never written to.
        map_nodes: ids and vectors to the vectors that they become.
        is_filtered: whether the store's ``matching`` leaves out nodes also without a filter.

    Example:
        >>> from nudge_rag.stores.memory.mapping import MappingStore
        >>> store = MappingStore({"a": [1.0, 0.0], "b": [0.0, 1.0]})
        >>> swapped = MappedStore(store, lambda ids, vectors: vectors[:, ::-1])
        >>> swapped.read(["a"]).tolist(), swapped.search(np.array([[1.0, 0.1]]), 1).ids
        ([[0.0, 1.0]], [['b']])
    """

    def __init__(self, store: EmbeddingStore, map_nodes: MapNodes, *, is_filtered: bool = False) -> None:
        self.store, self._map_nodes, self._is_filtered = store, map_nodes, is_filtered

    def over(self, store: EmbeddingStore) -> MappedStore:
        """The same map over a view of the same store that lets some nodes through only."""
        return MappedStore(store, self._map_nodes, is_filtered=True)

    @property
    def name(self) -> str:
        """The name of the store beneath."""
        return self.store.name

    @property
    def key(self) -> str:
        """Not the key of the store beneath: nothing is pushed through a view."""
        return f"{self.store.key}-mapped"

    @property
    def capabilities(self) -> Capabilities:
        """Those of the store beneath, with an exact search and no second version."""
        return replace(self.store.capabilities, exact_search=True, side_by_side=False, atomic_switch=False)

    def count(self) -> int:
        """Number of nodes."""
        return self.store.count()

    def read(self, ids: Sequence[str]) -> FloatArray:
        """Mapped vectors of ``ids`` in the order asked."""
        return self._mapped(ids, self.store.read(ids))

    def scan(self, batch_size: int = 1000) -> Iterator[tuple[list[str], FloatArray]]:
        """All nodes, mapped a batch at a time."""
        return ((ids, self._mapped(ids, vectors)) for ids, vectors in self.store.scan(batch_size))

    def search(self, queries: FloatArray, k: int, *, where: Any = None) -> SearchResult:
        """The k best nodes of each query, exactly."""
        checked = check_queries(queries, k, dimension=getattr(self.store, "dimension", None))
        if not len(checked):
            return SearchResult([], [])
        best = BestNodes(Question(checked.astype(np.float64), int(k), self.capabilities.similarity))
        for names, vectors in self.scan(NODES_PER_STEP):
            is_open = where is None and not self._is_filtered
            passing = set(names) if is_open else self.store.matching(names, where)
            rows = [row for row, name in enumerate(names) if name in passing]
            if rows:
                best.add([names[row] for row in rows], vectors[rows])
        found = best.result()
        counts = (found.scores > -np.inf).sum(axis=1).tolist()
        return SearchResult(
            [line[:count].tolist() for line, count in zip(found.ids, counts, strict=True)],
            [line[:count] for line, count in zip(found.scores, counts, strict=True)],
        )

    def matching(self, ids: Sequence[str], where: Any) -> set[str]:
        """Return those of ``ids`` that exist and pass ``where``."""
        return self.store.matching(ids, where)

    def as_stored(self, vectors: FloatArray) -> FloatArray:
        """As the store beneath would give them back."""
        return self.store.as_stored(vectors)

    def replace(self, ids: Sequence[str], vectors: FloatArray) -> None:
        """A view is read-only."""
        raise TypeError("a mapped view is read-only: push the nudge to write its vectors to the store")

    def _mapped(self, ids: Sequence[str], vectors: FloatArray) -> FloatArray:
        return self.store.as_stored(self._map_nodes(ids, vectors)) if len(ids) else vectors
