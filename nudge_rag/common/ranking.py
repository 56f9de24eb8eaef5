"""Exact top-k ranking of nodes, a block of scores at a time."""

from __future__ import annotations

import numpy as np

from nudge_rag.common.arrays import FloatArray, IntArray
from nudge_rag.common.blas_threads import count_threads, map_in_threads
from nudge_rag.common.similarity import Similarity, scorer_of

__all__ = ["rank_nodes"]

# Fewer queries at once take longer each, more scores do not fit the processor's cache.
SCORES_PER_BLOCK = 4_000_000
# The best score of each so many nodes: the k-th best of these is no better than the k-th best of all.
NODES_PER_GROUP = 64


def rank_nodes(queries: FloatArray, vectors: FloatArray, k: int, similarity: Similarity) -> tuple[IntArray, FloatArray]:
    """Find the k best ``vectors`` of each query, best first; ties go to the lower row.

    Args:
        queries: (m, d).
        vectors: (n, d).
        k: at least 1; at most n rows come back.
        similarity: cosine, dot or l2, see `nudge_rag.common.similarity.score_matrix`.

    Returns:
        Rows of ``vectors`` and their scores, (m, min(k, n)) each.

    Raises:
        ValueError: a score is not a number, because numbers are too large to be multiplied.

    Example:
        >>> rank_nodes(np.array([[1.0, 0.0]]), np.eye(2), 2, "cosine")
        (array([[0, 1]]), array([[1., 0.]]))
    """
    k = min(k, len(vectors))
    rows = np.empty((len(queries), k), dtype=np.int64)
    best = np.empty((len(queries), k), dtype=np.result_type(queries, vectors))
    step = max(1, SCORES_PER_BLOCK // max(1, len(vectors)))
    score = scorer_of(vectors, similarity)

    def rank(first: int) -> None:
        part = slice(first, first + step)
        rows[part], best[part] = _best_of(score(queries[part]), k)

    map_in_threads(rank, range(0, len(queries) if k else 0, step), count_threads(len(queries) * vectors.size))
    return rows, best


def _best_of(scores: FloatArray, k: int) -> tuple[IntArray, FloatArray]:
    """Columns of the k best scores (m, n) of each row, best first, the lower one of those that tie; and the scores."""
    queries, columns = _contenders(scores, k)
    if (np.bincount(queries, minlength=len(scores)) < k).any():
        raise ValueError("a score is NaN: vectors or queries are too long to be multiplied in their precision")
    found = scores[queries, columns]
    order = np.lexsort((columns, -found, queries))
    starts = np.searchsorted(queries[order], np.arange(len(scores)))
    places = order[starts[:, None] + np.arange(k)]
    return columns[places], found[places]


def _contenders(scores: FloatArray, k: int) -> tuple[IntArray, IntArray]:
    """Rows and columns of all scores that may be among the k best of their row, and of few others."""
    n_queries, n_nodes = scores.shape
    n_groups = n_nodes // NODES_PER_GROUP
    if n_groups <= 2 * k:
        bounds = np.partition(scores, n_nodes - k, axis=1)[:, n_nodes - k]
        above = np.flatnonzero(scores >= bounds[:, None])
        return _divmod(above, n_nodes)
    # A group is every n_groups-th column: maxima of whole rows at once are several times as quick as along a row.
    grouped = scores[:, : n_groups * NODES_PER_GROUP].reshape(n_queries, NODES_PER_GROUP, n_groups)
    highest = grouped.max(axis=1)
    bounds = np.partition(highest, n_groups - k, axis=1)[:, n_groups - k]
    # Everything that ties with the k-th score may be among the best.
    queries, groups = _divmod(np.flatnonzero(highest >= bounds[:, None]), n_groups)
    hits, members = _divmod(np.flatnonzero(grouped[queries, :, groups] >= bounds[queries, None]), NODES_PER_GROUP)
    rest_queries, rest = np.nonzero(scores[:, n_groups * NODES_PER_GROUP :] >= bounds[:, None])
    return (
        np.concatenate([queries[hits], rest_queries]),
        np.concatenate([members * n_groups + groups[hits], rest + n_groups * NODES_PER_GROUP]),
    )


def _divmod(places: IntArray, width: int) -> tuple[IntArray, IntArray]:
    rows, columns = np.divmod(places, width)
    return rows, columns
