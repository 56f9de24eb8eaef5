"""How stores rank: cosine, dot product or Euclidean distance, always larger-is-better."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np

from nudge_rag.common.arrays import FloatArray

__all__ = ["Similarity", "score_matrix", "scorer_of"]

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
    return scorer_of(vectors, similarity)(queries)


def scorer_of(vectors: FloatArray, similarity: Similarity) -> Callable[[FloatArray], FloatArray]:
    """Return a function that scores queries (m, d) against ``vectors`` (n, d) as `score_matrix` does.

    What depends on the vectors alone is computed once, for many blocks of queries.

    Example:
        >>> import numpy as np
        >>> score = scorer_of(np.array([[1.0, 0.0], [0.0, 3.0]]), "cosine")
        >>> score(np.array([[2.0, 0.0]])), score(np.array([[0.0, 5.0]]))
        (array([[1., 0.]]), array([[0., 1.]]))
    """
    if similarity == "dot":
        return lambda queries: np.asarray(queries @ vectors.T)
    if similarity == "cosine":
        unit = _unit_or_zero(vectors)
        return lambda queries: np.asarray(_unit_or_zero(queries) @ unit.T)
    squares = (vectors * vectors).sum(1)[None, :]
    return lambda queries: np.asarray(2 * (queries @ vectors.T) - ((queries * queries).sum(1)[:, None] + squares))


def _unit_or_zero(rows: FloatArray) -> FloatArray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0))
