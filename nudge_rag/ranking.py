"""Exact top-k ranking of nodes, a block of scores at a time."""

from __future__ import annotations

import numpy as np

from nudge_rag.arrays import FloatArray, IntArray
from nudge_rag.stores.base import Similarity, score_matrix

__all__ = ["rank_nodes"]

SCORES_PER_BLOCK = 8_000_000


def rank_nodes(queries: FloatArray, vectors: FloatArray, k: int, similarity: Similarity) -> IntArray:
    """Rows of the k best ``vectors`` for each query, best first; ties go to the lower row.

    Args:
        queries: (m, d).
        vectors: (n, d).
        k: at least 1; at most n rows come back.
        similarity: cosine, dot or l2, see `nudge_rag.stores.base.score_matrix`.

    Returns:
        (m, min(k, n)) int64.

    Example:
        >>> rank_nodes(np.array([[1.0, 0.2]]), np.eye(2), 2, "cosine")
        array([[0, 1]])
    """
    k = min(k, len(vectors))
    best = np.empty((len(queries), k), dtype=np.int64)
    step = max(1, SCORES_PER_BLOCK // max(1, len(vectors)))
    for first in range(0, len(queries), step):
        scores = score_matrix(queries[first : first + step], vectors, similarity)
        for row, line in enumerate(scores):
            # Everything that ties with the k-th score is a candidate; a stable sort then keeps the lower rows.
            edge = np.partition(line, len(line) - k)[len(line) - k]
            candidates = np.flatnonzero(line >= edge)
            best[first + row] = candidates[np.argsort(-line[candidates], kind="stable")][:k]
    return best
