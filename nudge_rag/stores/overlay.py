"""A store with some of its vectors replaced in memory: try a nudge on production data without writing to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nudge_rag.common.arrays import Float32Array, FloatArray, IntArray
from nudge_rag.common.similarity import score_matrix
from nudge_rag.stores.base import Capabilities, EmbeddingStore, SearchResult
from nudge_rag.stores.checks import at_unit_length, check_queries, check_replacement
from nudge_rag.stores.mapped import MappedStore
from nudge_rag.stores.sieve import Sieve

__all__ = ["OverlayStore"]

# How many of the best moved nodes a store is asked about at first.
FIRST_ASKED = 64
# From so many numbers on, a query does not look at all of them.
NUMBERS_WORTH_A_SIEVE = 500_000
# By how much a score may be off at a first look, relative to the largest one.
ROUGHNESS = 1e-4


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
        # At unit length and in half of the numbers' width: a first look at 10,000 moved nodes takes a millisecond.
        unit = self._moved if store.capabilities.similarity != "cosine" else at_unit_length(self._moved)
        self._rough = np.ascontiguousarray(unit, dtype=np.float32)
        self._sieve = Sieve(self._rough) if self._rough.size >= NUMBERS_WORTH_A_SIEVE else None
        self._squares = (self._rough**2).sum(axis=1)
        self._row = {node_id: row for row, node_id in enumerate(self._names)}

    def over(self, store: EmbeddingStore) -> OverlayStore:
        """The same vectors over another view of the same store."""
        found = copy(self)
        found.store = self.store.over(store) if isinstance(self.store, MappedStore) else store
        return found

    @property
    def ids(self) -> tuple[str, ...]:
        """The moved nodes."""
        return tuple(self._names)

    @property
    def vectors(self) -> FloatArray:
        """Their vectors, as the store keeps them."""
        return self._moved

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
        unmoved, seen = self._search_unmoved(checked, k, where)
        last = [part[k - 1][1] if len(part) >= k else -np.inf for part in unmoved]
        moved = self._best_moved(self._rank_moved(checked, last), k, where, seen)
        merged = [_merge(part, best, k) for part, best in zip(unmoved, moved, strict=True)]
        return SearchResult([ids for ids, _ in merged], [best for _, best in merged])

    def matching(self, ids: Sequence[str], where: Any) -> set[str]:
        """Return those of ``ids`` that exist and pass ``where``."""
        return self.store.matching(ids, where)

    def as_stored(self, vectors: FloatArray) -> FloatArray:
        """As the store beneath would give them back."""
        return self.store.as_stored(vectors)

    def replace(self, ids: Sequence[str], vectors: FloatArray) -> None:
        """An overlay is read-only."""
        raise TypeError("an overlay is read-only: push the nudge to write its vectors to the store")

    def _search_unmoved(
        self, queries: FloatArray, k: int, where: Any
    ) -> tuple[list[list[tuple[str, float]]], dict[str, bool]]:
        """Best k unmoved nodes per query, and the moved nodes that were seen to pass ``where`` on the way.

        Asks for more and more until enough are found, or the store gives fewer than it was asked for.
        """
        depth = k + min(k, len(self._names))
        while True:
            found = self.store.search(queries, depth, where=where)
            unmoved = [
                [
                    (node_id, float(score))
                    for node_id, score in zip(ids, scores, strict=True)
                    if node_id not in self._row
                ]
                for ids, scores in zip(found.ids, found.scores, strict=True)
            ]
            is_open = [len(part) < k and len(ids) >= depth for part, ids in zip(unmoved, found.ids, strict=True)]
            if not any(is_open) or depth >= k + len(self._names):
                seen = {node_id: True for ids in found.ids for node_id in ids if node_id in self._row}
                return unmoved, seen
            depth = min(2 * depth, k + len(self._names))

    def _rank_moved(self, queries: FloatArray, last: list[float]) -> list[list[tuple[int, float]]]:
        """Rows and scores, best first, of the moved nodes that score as high as ``last`` says, for each query."""
        rough = np.asarray(queries, dtype=np.float32)
        if self.capabilities.similarity == "cosine":
            rough = at_unit_length(rough)
        if len(queries) == 1 and self._sieve is not None:
            contenders = [self._sift(rough[0], last[0], self._sieve)]
        else:
            estimates = self._as_scores(rough @ self._rough.T, rough, slice(None))
            contenders = [_reaching(line, bound) for line, bound in zip(estimates, last, strict=True)]
        rankings = []
        for query, rows, bound in zip(np.asarray(queries, dtype=np.float64), contenders, last, strict=True):
            moved = self._moved[rows].astype(np.float64)
            scores = score_matrix(query[None, :], moved, self.capabilities.similarity)[0]
            order = [place for place in np.argsort(-scores, kind="stable") if scores[place] >= bound]
            rankings.append([(int(rows[place]), float(scores[place])) for place in order])
        return rankings

    def _sift(self, query: Float32Array, bound: float, sieve: Sieve) -> IntArray:
        """Rows of the moved nodes that may score as high as ``bound``, looked at by a part of their numbers first."""
        rows = _reaching(self._as_scores(sieve.bound(query)[None, :], query[None, :], slice(None))[0], bound)
        if len(rows) > len(self._rough) // 4:
            rows = np.arange(len(self._rough))
        products = self._rough[rows] @ query if len(rows) < len(self._rough) else self._rough @ query
        return rows[_reaching(self._as_scores(products[None, :], query[None, :], rows)[0], bound)]

    def _as_scores(self, products: FloatArray, queries: FloatArray, rows: IntArray | slice) -> FloatArray:
        """Scores of queries with some of the moved nodes, of their products (m, n) with them."""
        if self.capabilities.similarity != "l2":
            return products
        return np.asarray(2 * products - self._squares[rows][None, :] - (queries**2).sum(axis=1)[:, None])

    def _best_moved(
        self, ranked: list[list[tuple[int, float]]], k: int, where: Any, passes: dict[str, bool]
    ) -> list[list[tuple[str, float]]]:
        """The best k moved nodes of each query that pass ``where``, as far as they can be among its best k nodes.

        The store is asked about these alone, best first, not about all moved nodes, nor about those in ``passes``.
        """
        rankings = [[row for row, _ in ranking] for ranking in ranked]
        step = max(2 * k, FIRST_ASKED)
        while True:
            open_rows = [ranking for ranking in rankings if self._undecided(ranking, passes, k)]
            names = {self._names[row] for ranking in open_rows for row in ranking[:step]} - passes.keys()
            if not names:
                break
            present = self.store.matching(sorted(names), where)
            passes |= {name: name in present for name in names}
            step *= 4
        return [
            [(self._names[row], score) for row, score in ranking if passes.get(self._names[row], False)][:k]
            for ranking in ranked
        ]

    def _undecided(self, ranking: list[int], passes: dict[str, bool], k: int) -> bool:
        """Whether fewer than k of a ranking's nodes are known to pass, and others were not asked about."""
        found = 0
        for row in ranking:
            name = self._names[row]
            if name not in passes:
                return True
            found += passes[name]
            if found == k:
                return False
        return False

    def _laid_over(self, ids: Sequence[str], vectors: FloatArray) -> FloatArray:
        rows = np.array(vectors)
        for at, node_id in enumerate(ids):
            if node_id in self._row:
                rows[at] = self._moved[self._row[node_id]]
        return rows


def _reaching(estimates: FloatArray, bound: float) -> IntArray:
    """Places of the estimates that are no less than ``bound``, but for their last digits."""
    return np.flatnonzero(estimates >= bound - ROUGHNESS * (1 + np.abs(estimates).max(initial=0)))


def _merge(
    unmoved: list[tuple[str, float]], moved: list[tuple[str, float]], k: int
) -> tuple[list[str], np.ndarray[Any, np.dtype[np.float64]]]:
    best = sorted([*unmoved, *moved], key=lambda pair: -pair[1])[:k]
    return [node_id for node_id, _ in best], np.array([score for _, score in best], dtype=np.float64)
