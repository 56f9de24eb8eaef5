"""Nodes that are scaled and shifted along one direction: their scores follow from those of the nodes as they were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nudge_rag.common.arrays import Float64Array, FloatArray
from nudge_rag.common.similarity import Similarity

__all__ = ["Shift", "ShiftedScores"]


@dataclass(frozen=True)
class Shift:
    """The vectors scale_j v_j + along_j u of nodes v_j, for one direction u.

    Attributes:
        scale: (c,) positive.
        along: (c,).
    """

    scale: Float64Array
    along: Float64Array


class ShiftedScores:
    """Scores of queries with shifted nodes, all shifts from one product.

    With s_j, a_j of a shift, q.v'_j = s_j q.v_j + a_j q.u; for cosine it is divided by |v'_j|, and for l2 |v'_j|^2 / 2
    is taken away, which ranks as the distance does.

    Args:
        vectors: (c, d) v_j.
        direction: (d,) u.
        shifts: of these nodes.
        similarity: how the store ranks.

    Example:
        >>> up = Shift(np.array([1.0, 0.5]), np.array([0.0, 2.0]))
        >>> scores = ShiftedScores(np.eye(2), np.array([0.0, 1.0]), [up], "dot")
        >>> scores.of(scores.products(np.array([[1.0, 3.0]])), 0)    # with (1, 0) and (0, 2.5)
        array([[1. , 7.5]])
    """

    def __init__(
        self, vectors: FloatArray, direction: Float64Array, shifts: Sequence[Shift], similarity: Similarity
    ) -> None:
        self._vectors, self._direction = vectors, direction.astype(vectors.dtype)
        own = np.einsum("cd,cd->c", vectors, vectors, dtype=np.float64)
        across, length = vectors @ direction, float(direction @ direction)
        self._columns = []
        for shift in shifts:
            scale, along = shift.scale, shift.along
            squares = scale**2 * own + 2 * scale * along * across + along**2 * length
            bias = -squares / 2 if similarity == "l2" else np.zeros(0)
            if similarity == "cosine":
                scale, along = scale / np.sqrt(squares), along / np.sqrt(squares)
            self._columns.append(tuple(each.astype(vectors.dtype) for each in (scale, along, bias)))

    def products(self, queries: FloatArray) -> tuple[FloatArray, FloatArray]:
        """q.v_j (m, c) and q.u (m,) of a block of queries (m, d)."""
        return np.asarray(queries @ self._vectors.T), np.asarray(queries @ self._direction)

    def of(self, products: tuple[FloatArray, FloatArray], shift: int) -> FloatArray:
        """Scores (m, c) at the shift of that number; a new array."""
        scale, along, bias = self._columns[shift]
        scores = products[0] * scale
        scores += np.multiply.outer(products[1], along)
        if len(bias):
            scores += bias
        return np.asarray(scores)
