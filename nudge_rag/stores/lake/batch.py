"""`Batch`: nodes that were read together, made ready for the products of all queries."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property

import numpy as np

from nudge_rag.common.arrays import Float64Array, FloatArray
from nudge_rag.common.similarity import Similarity

__all__ = ["LARGEST", "Batch", "NodeSide", "Workspace", "ready_rows"]

# Products of larger numbers would be infinite in float32.
LARGEST = 1e15
# Sums of squares of up to some 50,000 numbers are no less than this much of what they should be.
ROUNDED_UP = 1.01

NodeSide = tuple[FloatArray, float]


class Workspace:
    """Memory that is used again and again: new memory for each product would cost as much as the product."""

    def __init__(self) -> None:
        self._numbers = np.empty(0, dtype=np.float32)

    def matrix(self, rows: int, columns: int) -> FloatArray:
        """An array (rows, columns) of float32, which holds until the next one is asked for.

        Example:
            >>> Workspace().matrix(2, 3).shape
            (2, 3)
        """
        size = rows * columns
        if len(self._numbers) < size:
            self._numbers = np.empty(size, dtype=np.float32)
        return self._numbers[:size].reshape(rows, columns)


class Batch:
    """Nodes in the order of reading, without those that are left out; threads may look at one batch at once.

    Args:
        names: ids of the nodes.
        vectors: (len(names), d) their vectors.
        similarity: how they are ranked.
        without: ids of nodes that are left out.
        space: for the product's side of the nodes.

    Attributes:
        ids: (b,) those of all nodes, as an object array.
        places: (n,) which of them are not left out.
        vectors: (n, d) their vectors.
        narrow: the nodes' side of a product in float32, and no less than the length of its longest row; None if the
            vectors are float64, or too large.

    Raises:
        ValueError: a vector that is not finite, by the node's id.

    Example:
        >>> batch = Batch(["a", "b"], np.array([[3.0, 4.0], [1.0, 0.0]]), "cosine", {"b"})
        >>> batch.places.tolist(), batch.narrow is None, batch.wide[0].tolist()
        ([0], True, [[0.6, 0.8]])
    """

    def __init__(
        self,
        names: Sequence[str],
        vectors: FloatArray,
        similarity: Similarity,
        without: Collection[str] = (),
        space: Workspace | None = None,
    ) -> None:
        rows = vectors if vectors.dtype == np.float32 else vectors.astype(np.float64, copy=False)
        squares = _squares(rows)
        if not np.isfinite(squares).all():
            finite = np.isfinite(rows).all(axis=1)
            if not finite.all():
                raise ValueError(f"the vector of node {names[int(finite.argmin())]!r} holds NaN or infinite values")
        places = np.arange(len(names))
        if without:
            shown = np.array([name not in without for name in names], dtype=np.bool_)
            if not shown.all():
                places = np.flatnonzero(shown)
                rows, squares = rows[places], squares[places]
        self.ids = np.empty(len(names), dtype=object)
        self.ids[:] = names
        self.places, self.vectors = places, rows
        self._squares, self._similarity = squares, similarity
        self.narrow: NodeSide | None = None
        if rows.dtype == np.float32 and squares.max(initial=0) <= LARGEST**2:
            out = None if space is None or similarity != "cosine" else space.matrix(*rows.shape)
            self.narrow = _node_side(rows, squares, similarity, out)

    @cached_property
    def wide(self) -> NodeSide:
        """As ``narrow``, in float64."""
        vectors = self.vectors.astype(np.float64, copy=False)
        squares = _squares(vectors) if self.vectors.dtype == np.float32 else self._squares
        return _node_side(vectors, squares, self._similarity)


def ready_rows(rows: Float64Array, similarity: Similarity) -> Float64Array:
    """Rows in float64 as they are scored: at unit length for cosine, zeros left as they are."""
    if similarity != "cosine":
        return rows
    # By the largest number first: squares of tiny or huge ones would leave float64's range.
    largest = np.abs(rows).max(axis=1, initial=0, keepdims=True)
    scaled = np.divide(rows, largest, out=np.zeros_like(rows), where=largest > 0)
    norms = np.sqrt(np.add.reduce(scaled * scaled, axis=1))[:, None]
    return np.asarray(np.divide(scaled, norms, out=np.zeros_like(rows), where=norms > 0))


def _squares(vectors: FloatArray) -> FloatArray:
    """The squared length of each row; infinite if it is out of range."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(np.einsum("ij,ij->i", vectors, vectors))


def _node_side(
    vectors: FloatArray, squares: FloatArray, similarity: Similarity, out: FloatArray | None = None
) -> NodeSide:
    """The nodes' side of the product, and no less than the length of its longest row.

    Rows are at unit length for cosine, in ``out`` if that is given, with their squares for l2.
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
        return ready_rows(vectors.astype(np.float64), similarity).astype(vectors.dtype), ROUNDED_UP
    norms = np.sqrt(squares)
    norms[norms == 0] = 1
    return np.divide(vectors, norms[:, None], out=out), ROUNDED_UP
