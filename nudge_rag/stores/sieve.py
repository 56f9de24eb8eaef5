"""`Sieve`: an upper bound on the product of a query with each of many vectors, from a part of their numbers."""

from __future__ import annotations

import numpy as np

from nudge_rag.common.arrays import Float32Array

__all__ = ["Sieve"]

# Beyond it, the axes of the vectors take seconds to find: numbers are taken in their own order.
LARGEST_ROTATED = 1_024
# How much of the vectors' squares may be left out, if half of the numbers or fewer hold the rest.
LEFT_OUT = 0.35
# By how much a length is rounded up, relative to it.
ROUNDING = 1e-4


class Sieve:
    """Bounds q.v from above by q1.v1 + |q2| |v2| (Cauchy-Schwarz), v1 being the part of v along the main axes.

    A product with all numbers of many vectors takes as long as reading them from memory takes; half of them take half.

    Args:
        vectors: (n, d) float32.

    Example:
        >>> vectors = np.array([[3.0, 0.0, 0.0, 1.0], [0.0, 2.0, 1.0, 0.0]], dtype=np.float32)
        >>> query = np.array([1.0, 0.0, 0.0, 1.0], dtype=np.float32)
        >>> bool((Sieve(vectors).bound(query) >= vectors @ query).all())
        True
    """

    def __init__(self, vectors: Float32Array) -> None:
        dimension = vectors.shape[1]
        # The squares of large numbers would leave float32's range.
        scaled = vectors / max(float(np.abs(vectors).max(initial=0)), float(np.finfo(np.float32).tiny))
        energies, axes = (scaled**2).sum(axis=0, dtype=np.float64), np.eye(dimension, dtype=np.float32)
        if dimension <= LARGEST_ROTATED:
            values, found = np.linalg.eigh((scaled.T @ scaled).astype(np.float64))
            energies, axes = values[::-1], np.ascontiguousarray(found[:, ::-1], dtype=np.float32)
        left_out = 1 - np.cumsum(energies) / max(float(energies.sum()), np.finfo(np.float64).tiny)
        kept = min(int(np.argmax(left_out <= LEFT_OUT)) + 1, max(1, dimension // 2))
        self._axes, self._kept = axes, kept
        turned = vectors @ axes
        self._head = np.ascontiguousarray(turned[:, :kept])
        self._tails = _lengths(turned[:, kept:])

    def bound(self, query: Float32Array) -> Float32Array:
        """Bounds (n,) on the products with a query (d,), but for the last digits of float32."""
        turned = query @ self._axes
        bounds = self._head @ turned[: self._kept]
        bounds += _lengths(turned[None, self._kept :]) * self._tails
        return np.asarray(bounds)


def _lengths(rows: Float32Array) -> Float32Array:
    """Lengths (n,) from above; the squares of large numbers would leave float32's range."""
    squares = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    return np.asarray((1 + ROUNDING) * np.sqrt(squares), dtype=np.float32)
