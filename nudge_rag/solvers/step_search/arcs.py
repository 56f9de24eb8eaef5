"""Great-circle arcs from covered nodes to their targets: the paths of NUDGE-N."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nudge_rag.common.arrays import Float64Array, FloatArray, IntArray, row_norms
from nudge_rag.common.blas_threads import count_threads, map_in_threads

__all__ = ["Arcs", "make_arcs"]

# Below this angle a node already sits on its target as far as float32 can tell.
SAME_DIRECTION = 1e-7
# As many rows as the processor's cache holds: what is done to them in turn does not go to memory in between.
ROWS_PER_CHUNK = 100
# Threads are worth their start from some milliseconds on: counted as so many multiplications a number.
PASS = 1_200


@dataclass(frozen=True)
class Arcs:
    """Great-circle arcs from covered nodes v_j to their targets g_j.

    A point of arc j is norm_j * (cos(t) v_j + sin(t) u_j), 0 <= t <= angle_j, with u_j the unit part of g_j orthogonal
    to v_j.

    Attributes:
        rows: (c,) covered rows.
        starts: (c, d) float64 unit vectors v_j.
        tangents: (c, d) float64 unit vectors u_j (zero if the angle is).
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
        # Of one number `np.clip` takes several times as long.
        cos_of_turn = min(1.0, max(-1.0, 1 - gamma / 2))
        angle = np.minimum(np.arccos(cos_of_turn), self.angles)
        return np.cos(angle), np.sin(angle)

    def points(self, gamma: float, originals: FloatArray) -> FloatArray:
        """Node embeddings at step ``gamma``, (c, d) in the dtype of ``originals``; rows that stay keep their bits."""
        cos, sin = self.turned(gamma)
        found = np.empty_like(originals)

        def move(first: int) -> None:
            part = slice(first, first + ROWS_PER_CHUNK)
            turned = cos[part, None] * self.starts[part]
            turned += sin[part, None] * self.tangents[part]
            turned *= self.norms[part, None]
            found[part] = turned
            still = sin[part] <= 0
            if still.any():
                found[part][still] = originals[part][still]

        map_in_threads(move, range(0, len(originals), ROWS_PER_CHUNK), count_threads(PASS * originals.size))
        return found

    def largest_gamma(self) -> float:
        """The step at which every node has reached its target; a larger one changes nothing."""
        return float(2 - 2 * np.cos(self.angles.max(initial=0.0)))


def make_arcs(rows: IntArray, originals: FloatArray, targets: Float64Array) -> Arcs:
    """Arcs from the covered ``originals`` (c, d) to their unit ``targets`` (c, d); zero targets give angle 0."""
    starts, tangents = np.empty(originals.shape), np.empty(originals.shape)
    norms, angles, opposed = np.empty(len(rows)), np.empty(len(rows)), np.empty(len(rows), dtype=np.bool_)

    def begin(first: int) -> None:
        part = slice(first, first + ROWS_PER_CHUNK)
        wide = originals[part].astype(np.float64)
        norms[part] = row_norms(wide, "covered embeddings", first_row=first)
        np.divide(wide, norms[part, None], out=starts[part])
        along = (starts[part] * targets[part]).sum(axis=1)
        across = targets[part] - along[:, None] * starts[part]
        lengths = np.linalg.norm(across, axis=1)
        opposed[part] = along < 0
        moves = (lengths > SAME_DIRECTION) & ~opposed[part]
        np.divide(across, np.where(moves, lengths, 1.0)[:, None], out=tangents[part])
        tangents[part][~moves] = 0.0
        # arctan2 rather than arccos: exact for small angles, and no square root of a tiny negative number.
        angles[part] = np.where(moves, np.arctan2(lengths, along), 0.0)

    map_in_threads(begin, range(0, len(rows), ROWS_PER_CHUNK), count_threads(PASS * originals.size))
    return Arcs(rows, starts, tangents, angles, norms, rows[opposed])
