"""Where each covered node is pulled: the mean direction of its training queries, and the arc that leads there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nudge_rag.common.arrays import Float64Array, FloatArray, IntArray, normalize_rows, row_norms
from nudge_rag.solvers.labels import PreparedLabels

__all__ = ["Arcs", "covered_targets", "make_arcs", "summable_queries", "unit_directions"]

# Below this angle a node already sits on its target as far as float32 can tell.
SAME_DIRECTION = 1e-7
PAIRS_PER_CHUNK = 20_000
# Unit queries are summed as multiples of one over this.
SUMMABLE = 2.0**36


def covered_targets(train: PreparedLabels) -> tuple[IntArray, Float64Array]:
    """Covered rows and the unit direction of the sum of each one's training queries.

    g_j = sum over training queries i that node j answers of q_i / |q_i|, returned as g_j / |g_j| in float64. A row
    whose queries cancel out has no direction and is returned as zeros.

    Args:
        train: labels; c is the number of distinct nodes in them.

    Returns:
        rows (c,) increasing, targets (c, d).
    """
    order = np.argsort(train.node_of_pair, kind="stable")
    rows, starts, counts = np.unique(train.node_of_pair[order], return_index=True, return_counts=True)
    unit = summable_queries(train.vectors)
    sums = np.empty((len(rows), train.vectors.shape[1]), dtype=np.float64)
    queries = train.query_of_pair[order]
    for chunk in _chunks_of_pairs(counts):
        first, last = starts[chunk.start], starts[chunk.stop - 1] + counts[chunk.stop - 1]
        gathered = unit[queries[first:last]]
        # A loop of contiguous sums is quicker here than np.add.reduceat.
        for row in range(chunk.start, chunk.stop):
            start = starts[row] - first
            gathered[start : start + counts[row]].sum(axis=0, out=sums[row])
    return rows, unit_directions(sums, counts)


def summable_queries(vectors: FloatArray) -> Float64Array:
    """Queries (m, d) at unit length in float64, rounded to multiples of 2^-36.

    Sums of up to 2^16 of them are exact, so that a sum is the same in any order, and after anything was added to it
    and taken away again; what rounding changes is far below float32.

    Raises:
        ValueError: a query that is zero or not finite.
    """
    unit = normalize_rows(vectors.astype(np.float64), "training query embeddings")
    return np.asarray(np.rint(unit * SUMMABLE) / SUMMABLE)


def unit_directions(sums: Float64Array, counts: IntArray) -> Float64Array:
    """Sums (c, d) of ``counts`` unit queries, at unit length; zeros where the queries cancel out."""
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    cancelled = norms <= 1e-9 * counts[:, None]
    return np.where(cancelled, 0.0, sums / np.where(cancelled, 1.0, norms))


def _chunks_of_pairs(counts: IntArray) -> list[slice]:
    """Slices of the covered rows with about PAIRS_PER_CHUNK labels each, so that no gather grows with the labels."""
    ends = np.cumsum(counts)
    chunks, start = [], 0
    while start < len(counts):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + PAIRS_PER_CHUNK, side="right")))
        chunks.append(slice(start, stop))
        start = stop
    return chunks


@dataclass(frozen=True)
class Arcs:
    """Great-circle arcs from covered nodes v_j to their targets g_j.

    A point of arc j is norm_j * (cos(t) v_j + sin(t) u_j), 0 <= t <= angle_j, with u_j the unit part of g_j orthogonal
    to v_j.

    Attributes:
        rows: (c,) covered rows.
        starts: (c, d) float64 unit vectors v_j.
        tangents: (c, d) float64 unit vectors u_j (zero where the angle is).
        angles: (c,) float64 radians between v_j and g_j; 0 for nodes that stay in place.
        norms: (c,) float64 lengths of the original embeddings, kept by every point of the arc.
        opposed: rows with v_j . g_j < 0, left in place.
    """

    rows: IntArray
    starts: Float64Array
    tangents: Float64Array
    angles: Float64Array
    norms: Float64Array
    opposed: IntArray

    def turned(self, gamma: float) -> tuple[Float64Array, Float64Array]:
        """Cosine and sine, (c,) each, of the angle that every node is turned by at step ``gamma``.

        |v' - v|^2 <= gamma on the unit sphere is a turn of at most arccos(1 - gamma / 2).
        """
        angle = np.minimum(np.arccos(np.clip(1 - gamma / 2, -1.0, 1.0)), self.angles)
        return np.cos(angle), np.sin(angle)

    def points(self, gamma: float, originals: FloatArray) -> FloatArray:
        """Node embeddings at step ``gamma``, (c, d) in the dtype of ``originals``; rows that stay keep their bits."""
        cos, sin = self.turned(gamma)
        moved = self.norms[:, None] * (cos[:, None] * self.starts + sin[:, None] * self.tangents)
        return np.asarray(np.where((sin > 0)[:, None], moved.astype(originals.dtype), originals))

    def largest_gamma(self) -> float:
        """The step at which every node has reached its target; a larger one changes nothing."""
        return float(2 - 2 * np.cos(self.angles.max(initial=0.0)))


def make_arcs(rows: IntArray, originals: FloatArray, targets: Float64Array) -> Arcs:
    """Arcs from the covered ``originals`` (c, d) to their unit ``targets`` (c, d); zero targets give angle 0."""
    wide: Float64Array = originals.astype(np.float64)
    norms: Float64Array = row_norms(wide, "covered embeddings").astype(np.float64, copy=False)
    starts = wide / norms[:, None]
    along = (starts * targets).sum(axis=1)
    across = targets - along[:, None] * starts
    lengths = np.linalg.norm(across, axis=1)
    opposed = along < 0
    moves = (lengths > SAME_DIRECTION) & ~opposed
    tangents = np.where(moves[:, None], across / np.where(moves, lengths, 1.0)[:, None], 0.0)
    # arctan2 rather than arccos: exact for small angles, and no square root of a tiny negative number.
    angles = np.where(moves, np.arctan2(lengths, along), 0.0)
    return Arcs(rows, starts, tangents, angles, norms, rows[opposed])
