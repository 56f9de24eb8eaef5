"""How stores rank: cosine, dot product or Euclidean distance, always larger-is-better."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from nudge_rag.common.arrays import FloatArray

__all__ = ["Similarity", "score_matrix"]

Similarity: TypeAlias = Literal["cosine", "dot", "l2"]


def score_matrix(queries: FloatArray, vectors: FloatArray, similarity: Similarity) -> FloatArray:
    """Score every query against every vector; larger is better.

    cosine: q.v / (|q| |v|), or 0 if a norm is 0; dot: q.v; l2: -|q - v|^2.

    Args:
        queries: (m, d).
        vectors: (n, d).
        similarity: the store's similarity.

    Returns:
        (m, n) scores, in the wider of the two dtypes.

    Example:
        >>> import numpy as np
        >>> score_matrix(np.array([[2.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 3.0]]), "cosine")
        array([[1., 0.]])
        >>> score_matrix(np.array([[2.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 3.0]]), "l2")
        array([[ -1., -13.]])
    """
    if similarity == "dot":
        return np.asarray(queries @ vectors.T)
    if similarity == "cosine":
        return np.asarray(_unit_or_zero(queries) @ _unit_or_zero(vectors).T)
    squares = (queries * queries).sum(1)[:, None] + (vectors * vectors).sum(1)[None, :]
    return np.asarray(2 * (queries @ vectors.T) - squares)


def _unit_or_zero(rows: FloatArray) -> FloatArray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0))
