"""Exact top-k ranking of nodes, a block of scores at a time."""

from __future__ import annotations

import numpy as np

from nudge_rag.common.arrays import FloatArray, IntArray
from nudge_rag.common.similarity import Similarity, scorer_of

__all__ = ["rank_nodes"]

SCORES_PER_BLOCK = 8_000_000
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

    Example:
        >>> rank_nodes(np.array([[1.0, 0.0]]), np.eye(2), 2, "cosine")
        (array([[0, 1]]), array([[1., 0.]]))
    """
    k = min(k, len(vectors))
    rows = np.empty((len(queries), k), dtype=np.int64)
    best = np.empty((len(queries), k), dtype=np.result_type(queries, vectors))
    step = max(1, SCORES_PER_BLOCK // max(1, len(vectors)))
    score = scorer_of(vectors, similarity)
    for first in range(0, len(queries) if k else 0, step):
        scores = score(queries[first : first + step])
        for query, (line, bound) in enumerate(zip(scores, _bounds(scores, k), strict=True), start=first):
            # Everything that ties with the k-th score may be among the best; a stable sort then keeps the lower rows.
            contenders = np.flatnonzero(line >= bound)
            rows[query] = contenders[np.argsort(-line[contenders], kind="stable")][:k]
            best[query] = line[rows[query]]
    return rows, best


def _bounds(scores: FloatArray, k: int) -> FloatArray:
    """For each row of scores (m, n) a number that its k-th best is not below, and few others are above."""
    n_groups = scores.shape[1] // NODES_PER_GROUP
    if n_groups > 2 * k:
        grouped = scores[:, : n_groups * NODES_PER_GROUP].reshape(len(scores), n_groups, NODES_PER_GROUP)
        scores = grouped.max(axis=2)
    return np.asarray(np.partition(scores, scores.shape[1] - k, axis=1)[:, scores.shape[1] - k])
