"""`BestNodes`: the best nodes of each query among batches that are read once, exact to the last tie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nudge_rag.common.arrays import Float64Array, FloatArray, IntArray
from nudge_rag.common.similarity import Similarity

__all__ = ["NO_ROW", "Best", "BestNodes", "Question", "merge_best", "score_pairs"]

# Scores of one product, and of the first one: the better its k-th node, the fewer of the others are looked at twice.
SCORES_PER_TILE, SCORES_AT_FIRST = 8_000_000, 16_000_000
NUMBERS_PER_STEP = 4_000_000
# Products of larger numbers would be infinite in float32.
LARGEST = 1e15
# Sums of squares of up to some 50,000 numbers are no less than this much of what they should be.
ROUNDED_UP = 1.01
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

    Example:
        >>> best = BestNodes(Question(np.array([[1.0, 0.0]]), 2, "dot"))
        >>> best.add(["a", "b", "c"], np.array([[1.0, 0.0], [0.0, 3.0], [1.0, 5.0]]))
        >>> best.result().ids.tolist(), best.result().scores.tolist()
        ([['a', 'c']], [[1.0, 1.0]])
    """

    def __init__(self, question: Question) -> None:
        self._question = question
        self._wide = _query_side(question)
        # None if its numbers are too large for float32.
        self._narrow = None if np.abs(self._wide).max(initial=0) > LARGEST else self._wide.astype(np.float32)
        self._exact = _ready(question.queries, question.similarity)
        self._squares = (question.queries**2).sum(axis=1)
        self._lengths = np.linalg.norm(self._wide, axis=1)
        nothing = Best.nothing(len(question.queries), question.k)
        self._scores, self._rows = nothing.scores, nothing.rows
        # The product and the nodes of every tile: new memory for each would cost as much again.
        self._space = np.empty(0, dtype=np.float32)
        self._unit = np.empty((0, 0), dtype=np.float32)
        self._names: dict[int, str | None] = {NO_ROW: None}
        self._read = 0

    def add(self, names: Sequence[str], vectors: FloatArray) -> None:
        """Look at a batch of nodes, which follow those of the batch before.

        Raises:
            ValueError: a vector that is not finite, by the node's id.
        """
        rows = vectors if vectors.dtype == np.float32 else vectors.astype(np.float64, copy=False)
        squares = _squares(rows)
        if not np.isfinite(squares).all():
            finite = np.isfinite(rows).all(axis=1)
            if not finite.all():
                raise ValueError(f"the vector of node {names[int(finite.argmin())]!r} holds NaN or infinite values")
        first, self._read = self._read, self._read + len(names)
        hidden = self._question.without
        shown = np.arange(len(names))
        if hidden and not hidden.isdisjoint(names):
            shown = np.flatnonzero([name not in hidden for name in names])
            rows, squares = rows[shown], squares[shown]
        start = 0
        while start < len(shown):
            most = SCORES_AT_FIRST if self._bounds()[0] == -np.inf else SCORES_PER_TILE
            tile = slice(start, start + max(1, most // len(self._question.queries)))
            self._add(names, shown[tile], rows[tile], squares[tile], first)
            start = tile.stop

    def result(self) -> Best:
        """The best of all nodes that were added."""
        rows, place = np.unique(self._rows, return_inverse=True)
        names = np.array([self._names[row] for row in rows.tolist()], dtype=object)
        return Best(self._scores, self._rows, names[place.reshape(self._rows.shape)], self._read)

    def _bounds(self) -> Float64Array:
        """The k-th best score of each query so far, here or in another fragment: a better node has no less."""
        return np.maximum(self._scores[:, -1], self._question.floor)

    def _add(
        self, names: Sequence[str], places: IntArray, vectors: FloatArray, squares: FloatArray, first: int
    ) -> None:
        rough, errors = self._product(vectors, squares)
        bounds = self._bounds() - errors
        if self._question.similarity == "l2":
            bounds = bounds + self._squares
        queries, columns = _contenders(rough, bounds, errors, self._question.k)
        if not len(queries):
            return
        scores = self._score(queries, columns, vectors)
        # Of each query's contenders the best k, in a row of their own.
        order = np.lexsort((columns, -scores, queries))
        queries, columns, scores = queries[order], columns[order], scores[order]
        asked, starts, counts = np.unique(queries, return_index=True, return_counts=True)
        rank = np.arange(len(queries)) - np.repeat(starts, counts)
        kept = rank < self._question.k
        at, rank, rows = np.searchsorted(asked, queries[kept]), rank[kept], first + places[columns[kept]]
        new_scores = np.full((len(asked), int(rank.max()) + 1), -np.inf)
        new_rows = np.full(new_scores.shape, NO_ROW)
        new_scores[at, rank], new_rows[at, rank] = scores[kept], rows
        self._names.update((row, names[row - first]) for row in np.unique(rows).tolist())
        order, merged = _merged(self._scores[asked], self._rows[asked], new_scores, new_rows)
        self._scores[asked], self._rows[asked] = merged

    def _product(self, vectors: FloatArray, squares: FloatArray) -> tuple[FloatArray, Float64Array]:
        """Rough scores (m, n), those of l2 plus |q|^2, and by how much those of each query may be off."""
        queries: FloatArray = self._wide
        if vectors.dtype == np.float32 and self._narrow is not None and squares.max(initial=0) <= LARGEST**2:
            queries = self._narrow
        elif vectors.dtype == np.float32:
            vectors = vectors.astype(np.float64)
            squares = _squares(vectors)
        if vectors.dtype == np.float32 and self._unit.shape < vectors.shape:
            self._unit = np.empty_like(vectors)
        nodes, longest = _node_side(vectors, squares, self._question.similarity, self._unit)
        limits = np.finfo(vectors.dtype)
        # Twice the length, and a few more: norms and squares are themselves sums of that length.
        gamma = (2 * nodes.shape[1] + 16) * float(limits.eps)
        return self._multiply(queries, nodes), 2 * (
            gamma * self._lengths * longest + nodes.shape[1] * float(limits.tiny)
        )

    def _multiply(self, queries: FloatArray, nodes: FloatArray) -> FloatArray:
        size = len(queries) * len(nodes)
        if size > SCORES_PER_TILE or queries.dtype != np.float32:
            return np.asarray(queries @ nodes.T)
        if len(self._space) < size:
            self._space = np.empty(size, dtype=np.float32)
        return np.matmul(queries, nodes.T, out=self._space[:size].reshape(len(queries), len(nodes)))

    def _score(self, queries: IntArray, columns: IntArray, vectors: FloatArray) -> Float64Array:
        similarity = self._question.similarity
        scores = np.empty(len(queries))
        step = max(1, NUMBERS_PER_STEP // max(1, vectors.shape[1]))
        for start in range(0, len(queries), step):
            part = slice(start, start + step)
            used, place = np.unique(columns[part], return_inverse=True)
            nodes = _ready(vectors[used].astype(np.float64), similarity)
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
    order, (scores, rows) = _merged(one.scores, one.rows, other.scores, other.rows)
    ids = np.take_along_axis(np.concatenate([one.ids, other.ids], axis=1), order, axis=1)
    return Best(scores, rows, ids, one.read + other.read)


def _merged(
    scores: Float64Array, rows: IntArray, other_scores: Float64Array, other_rows: IntArray
) -> tuple[IntArray, tuple[Float64Array, IntArray]]:
    """The places of the best in both side by side, as many as the first has, and their scores and rows."""
    together, numbers = np.concatenate([scores, other_scores], axis=1), np.concatenate([rows, other_rows], axis=1)
    order = np.lexsort((numbers, -together), axis=1)[:, : scores.shape[1]]
    return order, (np.take_along_axis(together, order, axis=1), np.take_along_axis(numbers, order, axis=1))


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


def _ready(rows: Float64Array, similarity: Similarity) -> Float64Array:
    """Rows in float64 as they are scored: at unit length for cosine, zeros left as they are."""
    if similarity != "cosine":
        return rows
    # By the largest number first: squares of tiny or huge ones would leave float64's range.
    largest = np.abs(rows).max(axis=1, initial=0, keepdims=True)
    scaled = np.divide(rows, largest, out=np.zeros_like(rows), where=largest > 0)
    norms = np.sqrt(np.add.reduce(scaled * scaled, axis=1))[:, None]
    return np.asarray(np.divide(scaled, norms, out=np.zeros_like(rows), where=norms > 0))


def _query_side(question: Question) -> Float64Array:
    """The queries' side of the product."""
    queries = _ready(question.queries, question.similarity)
    if question.similarity != "l2":
        return np.ascontiguousarray(queries)
    return np.concatenate([2 * queries, np.full((len(queries), 1), -1.0)], axis=1)


def _squares(vectors: FloatArray) -> FloatArray:
    """The squared length of each row; infinite if it is out of range."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(np.einsum("ij,ij->i", vectors, vectors))


def _node_side(
    vectors: FloatArray, squares: FloatArray, similarity: Similarity, space: FloatArray
) -> tuple[FloatArray, float]:
    """The nodes' side of the product, and no less than the length of its longest row.

    Rows are at unit length for cosine, in ``space`` if they are of its kind, with their squares for l2.
    """
    largest = float(squares.max(initial=0))
    if similarity == "dot":
        return vectors, ROUNDED_UP * largest**0.5
    if similarity == "l2":
        longest = ROUNDED_UP * (largest + largest * largest) ** 0.5
        return np.concatenate([vectors, squares[:, None]], axis=1), longest
    # Below it, squares have lost digits.
    small = squares <= 1e8 * np.finfo(vectors.dtype).tiny
    if small.any() and (vectors[small] != 0).any():
        return _ready(vectors.astype(np.float64), similarity).astype(vectors.dtype), ROUNDED_UP
    norms = np.sqrt(squares)
    norms[norms == 0] = 1
    out = space[: len(vectors)] if space.dtype == vectors.dtype else None
    return np.divide(vectors, norms[:, None], out=out), ROUNDED_UP
