"""`BestNodes`: the best nodes of each query among batches that are read once, exact to the last tie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nudge_rag.common.arrays import Float64Array, FloatArray, IntArray
from nudge_rag.common.similarity import Similarity
from nudge_rag.stores.lake.batch import LARGEST, Batch, Workspace, ready_rows

__all__ = ["NO_ROW", "Best", "BestNodes", "Question", "merge_best", "score_pairs"]

# Scores of one product, and of the first one: the better its k-th node, the fewer of the others are looked at twice.
SCORES_PER_TILE, SCORES_AT_FIRST = 8_000_000, 16_000_000
NUMBERS_PER_STEP = 4_000_000
# Where there are fewer nodes than k: after all others.
NO_ROW = np.iinfo(np.int64).max


@dataclass(frozen=True, eq=False)
class Question:
    """What every fragment is asked for.

    Attributes:
        queries: (m, d) float64.
        k: how many nodes per query.
        similarity: how they are ranked.
        without: ids of nodes that are left out.
        scan: a name of its own for each scan.
        floor: (m,) the k-th best score of a fragment that this process has been through, minus infinity before: nodes
            below it need not be looked at.
    """

    queries: Float64Array
    k: int
    similarity: Similarity
    without: frozenset[str] = frozenset()
    scan: str = ""
    floor: Float64Array = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "floor", np.full(len(self.queries), -np.inf))

    def divide(self, n_parts: int) -> list[Question]:
        """Return the question in parts, of which each has its share of the queries."""
        parts = []
        for rows in np.array_split(np.arange(len(self.queries)), n_parts):
            part = replace(self, queries=self.queries[rows])
            part.floor[:] = self.floor[rows]
            parts.append(part)
        return parts


@dataclass(frozen=True, eq=False)
class Best:
    """The best nodes of each query, best first; of equal scores the lower row.

    Attributes:
        scores: (m, k) float64, minus infinity if there are fewer nodes.
        rows: (m, k) row of each node in the order of reading, `NO_ROW` if there are fewer.
        ids: (m, k) their ids, None if there are fewer.
        read: number of nodes that were read.
    """

    scores: Float64Array
    rows: IntArray
    ids: Any
    read: int = 0

    @classmethod
    def nothing(cls, n_queries: int, k: int) -> Best:
        """No node for any query."""
        shape = (n_queries, k)
        return cls(np.full(shape, -np.inf), np.full(shape, NO_ROW), np.full(shape, None, dtype=object))


class BestNodes:
    """Collect the best nodes of each query from batches of nodes.

    One product in the nodes' own precision finds the few that may be among the best: those within its rounding error of
    the k-th. They are scored in float64, each by itself, so that a score depends on the query and the node alone, not
    on the batch that the node came in. Rounding errors of a product of length d are at most d times the precision
    (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.5).

    Args:
        question: what is asked.
        space: for the products; its own without.

    Example:
        >>> best = BestNodes(Question(np.array([[1.0, 0.0]]), 2, "dot"))
        >>> best.add(["a", "b", "c"], np.array([[1.0, 0.0], [0.0, 3.0], [1.0, 5.0]]))
        >>> best.result().ids.tolist(), best.result().scores.tolist()
        ([['a', 'c']], [[1.0, 1.0]])
    """

    def __init__(self, question: Question, space: Workspace | None = None) -> None:
        self._question = question
        self._wide = _query_side(question)
        # None if its numbers are too large for float32.
        self._narrow = None if np.abs(self._wide).max(initial=0) > LARGEST else self._wide.astype(np.float32)
        self._exact = ready_rows(question.queries, question.similarity)
        self._squares = (question.queries**2).sum(axis=1)
        self._lengths = np.linalg.norm(self._wide, axis=1)
        nothing = Best.nothing(len(question.queries), question.k)
        self._scores, self._rows, self._ids = nothing.scores, nothing.rows, nothing.ids
        self._space = space or Workspace()
        self._node_space = Workspace()
        self._read = 0

    def add(self, names: Sequence[str], vectors: FloatArray) -> None:
        """Look at a batch of nodes, which follow those of the batch before.

        Raises:
            ValueError: a vector that is not finite, by the node's id.
        """
        self.look(Batch(names, vectors, self._question.similarity, self._question.without, self._node_space))

    def look(self, batch: Batch) -> None:
        """Look at a batch that was made ready for the question."""
        first, self._read = self._read, self._read + len(batch.ids)
        start = 0
        while start < len(batch.places):
            most = SCORES_AT_FIRST if self._bounds()[0] == -np.inf else SCORES_PER_TILE
            tile = slice(start, start + max(1, most // len(self._question.queries)))
            self._add(batch, tile, first)
            start = tile.stop

    def result(self) -> Best:
        """The best of all nodes that were added."""
        return Best(self._scores, self._rows, self._ids, self._read)

    def _bounds(self) -> Float64Array:
        """The k-th best score of each query so far, here or in another fragment: a better node has no less."""
        return np.maximum(self._scores[:, -1], self._question.floor)

    def _add(self, batch: Batch, tile: slice, first: int) -> None:
        rough, errors = self._product(batch, tile)
        bounds = self._bounds() - errors
        if self._question.similarity == "l2":
            bounds = bounds + self._squares
        queries, columns = _contenders(rough, bounds, errors, self._question.k)
        if not len(queries):
            return
        scores = self._score(queries, columns, batch.vectors[tile])
        # Of each query's contenders the best k, in a row of their own.
        order = np.lexsort((columns, -scores, queries))
        queries, columns, scores = queries[order], columns[order], scores[order]
        asked, starts, counts = np.unique(queries, return_index=True, return_counts=True)
        rank = np.arange(len(queries)) - np.repeat(starts, counts)
        kept = rank < self._question.k
        at, rank, places = np.searchsorted(asked, queries[kept]), rank[kept], batch.places[tile][columns[kept]]
        new = Best.nothing(len(asked), int(rank.max()) + 1)
        new.scores[at, rank], new.rows[at, rank], new.ids[at, rank] = scores[kept], first + places, batch.ids[places]
        merged = merge_best(Best(self._scores[asked], self._rows[asked], self._ids[asked]), new)
        self._scores[asked], self._rows[asked], self._ids[asked] = merged.scores, merged.rows, merged.ids

    def _product(self, batch: Batch, tile: slice) -> tuple[FloatArray, Float64Array]:
        """Rough scores (m, n), those of l2 plus |q|^2, and by how much those of each query may be off."""
        queries, side = (self._wide, None) if self._narrow is None else (self._narrow, batch.narrow)
        if side is None:
            queries, side = self._wide, batch.wide
        nodes, longest = side[0][tile], side[1]
        limits = np.finfo(nodes.dtype)
        # Twice the length, and a few more: norms and squares are themselves sums of that length.
        gamma = (2 * nodes.shape[1] + 16) * float(limits.eps)
        return self._multiply(queries, nodes), 2 * (
            gamma * self._lengths * longest + nodes.shape[1] * float(limits.tiny)
        )

    def _multiply(self, queries: FloatArray, nodes: FloatArray) -> FloatArray:
        if len(queries) * len(nodes) > SCORES_PER_TILE or queries.dtype != np.float32:
            return np.asarray(queries @ nodes.T)
        return np.matmul(queries, nodes.T, out=self._space.matrix(len(queries), len(nodes)))

    def _score(self, queries: IntArray, columns: IntArray, vectors: FloatArray) -> Float64Array:
        similarity = self._question.similarity
        scores = np.empty(len(queries))
        step = max(1, NUMBERS_PER_STEP // max(1, vectors.shape[1]))
        for start in range(0, len(queries), step):
            part = slice(start, start + step)
            used, place = np.unique(columns[part], return_inverse=True)
            nodes = ready_rows(vectors[used].astype(np.float64), similarity)
            scores[part] = score_pairs(self._exact[queries[part]], nodes[place], similarity)
        return scores


def score_pairs(queries: Float64Array, nodes: Float64Array, similarity: Similarity) -> Float64Array:
    """Score each query (n, d) with the node (n, d) in its row; for cosine, both have unit length.

    Sums run along each row by themselves: equal pairs have equal scores, wherever they stand.

    Example:
        >>> score_pairs(np.array([[1.0, 2.0]]), np.array([[3.0, 0.0]]), "l2")
        array([-8.])
    """
    if similarity == "l2":
        return np.asarray(-np.add.reduce((queries - nodes) ** 2, axis=1))
    return np.asarray(np.add.reduce(queries * nodes, axis=1))


def merge_best(one: Best, other: Best) -> Best:
    """Merge the best nodes of two sets into the best of both, as many as ``one`` has; equal scores by row."""
    scores, rows, ids = (
        np.concatenate([getattr(one, name), getattr(other, name)], axis=1) for name in ("scores", "rows", "ids")
    )
    order = np.lexsort((rows, -scores), axis=1)[:, : one.scores.shape[1]]
    scores, rows, ids = (np.take_along_axis(part, order, axis=1) for part in (scores, rows, ids))
    return Best(scores, rows, ids, one.read + other.read)


def _contenders(rough: FloatArray, bounds: Float64Array, errors: Float64Array, k: int) -> tuple[IntArray, IntArray]:
    """Pairs of query and column that may be among the best k of the query, in the order of queries."""
    hopeful = np.flatnonzero(rough.max(axis=1) >= bounds)
    if not len(hopeful):
        return hopeful, hopeful
    if rough.shape[1] > k:
        unbounded = hopeful[np.isneginf(bounds[hopeful])]
        bounds = bounds.copy()
        bounds[unbounded] = _kth(rough[unbounded], k) - 2 * errors[unbounded]
    passed = rough[hopeful] >= bounds[hopeful, None]
    crowded = np.flatnonzero(passed.sum(axis=1) > 4 * k)
    if len(crowded):
        rows = hopeful[crowded]
        passed[crowded] &= rough[rows] >= (_kth(rough[rows], k) - 2 * errors[rows])[:, None]
    at, columns = np.divmod(np.flatnonzero(passed), rough.shape[1])  # several times faster than a nonzero of two axes
    return hopeful[at], columns


def _kth(scores: FloatArray, k: int) -> Float64Array:
    """The k-th best of each row."""
    place = scores.shape[1] - k
    return np.partition(scores, place, axis=1)[:, place].astype(np.float64)


def _query_side(question: Question) -> Float64Array:
    """The queries' side of the product."""
    queries = ready_rows(question.queries, question.similarity)
    if question.similarity != "l2":
        return np.ascontiguousarray(queries)
    return np.concatenate([2 * queries, np.full((len(queries), 1), -1.0)], axis=1)
