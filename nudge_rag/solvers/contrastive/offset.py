"""Lower the scores of moved nodes by a constant, so that they do not win the queries of nodes that nobody labelled."""

from __future__ import annotations

import numpy as np

from nudge_rag.common.arrays import Float64Array, FloatArray, as_matrix, row_blocks, unit_rows
from nudge_rag.solvers.scoring.shifts import Shift

__all__ = ["common_direction", "lower_scores", "shift_of_offset"]

# Of the mean variance of a coordinate: enough for directions that few queries have told of.
RIDGE = 0.2
# The mean of about so many queries is near that of all.
SAMPLE = 1_024


def common_direction(queries: FloatArray) -> Float64Array:
    """The vector u (d,) that all ``queries`` (m, d) score nearly 1 with.

        u = argmin_u sum_i (q_i.u - 1)^2 + m ridge |u|^2, scaled so that the mean score is 1,

    over unit queries; a multiple of (C + ridge I)^-1 mean(q) with C their covariance. Zero if their mean is.

    Example:
        >>> common_direction(np.array([[0.6, 0.8], [0.6, -0.8]])).round(6).tolist()
        [1.666667, 0.0]
    """
    dimension = queries.shape[1]
    sample = _units(queries[:: -(-len(queries) // SAMPLE)])
    centre = sample.mean(axis=0, dtype=np.float64).astype(sample.dtype)
    total, covariance = np.zeros(dimension), np.zeros((dimension, dimension))
    for part in row_blocks(len(queries)):
        # Seen from near their mean, so that products in the queries' own precision tell how little they differ.
        apart = _units(queries[part]) - centre
        total += apart.sum(axis=0, dtype=np.float64)
        covariance += apart.T @ apart
    away = total / len(queries)
    mean = centre + away
    covariance = covariance / len(queries) - np.outer(away, away)
    spread = float(np.trace(covariance))
    direction = mean
    if spread > np.finfo(sample.dtype).eps ** 2:  # less is what rounding made of queries that are the same
        # The ridge bounds the condition by d / RIDGE.
        direction = np.linalg.solve(covariance + RIDGE * spread / dimension * np.eye(dimension), mean)
    score = float(direction @ mean)
    return np.asarray(direction / score) if score > 0 else np.zeros_like(mean)


def _units(queries: FloatArray) -> FloatArray:
    return unit_rows(as_matrix(queries, "query embeddings"))


def lower_scores(vectors: FloatArray, direction: Float64Array, offset: float, *, keep_lengths: bool) -> FloatArray:
    """``vectors`` (c, d) with the score of every query lowered by about ``offset``.

    v - offset |v| u, with ``keep_lengths`` brought back to the length that it had. ``offset`` is a cosine, and
    otherwise one at the vectors' mean length. As calibrated stacking in zero-shot learning, which lowers the
    classes seen in training against the unseen ones: Chao et al., arXiv 1605.04253.

    Example:
        >>> lower_scores(np.array([[0.6, 0.8]]), np.array([1.0, 0.0]), 0.6, keep_lengths=True).tolist()
        [[0.0, 1.0]]
    """
    if not offset:
        return vectors
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    if not keep_lengths:
        return np.asarray(vectors - offset * lengths.mean() * direction, dtype=vectors.dtype)
    moved = vectors / lengths - offset * direction
    return np.asarray(moved / np.linalg.norm(moved, axis=1, keepdims=True) * lengths, dtype=vectors.dtype)


def shift_of_offset(vectors: FloatArray, direction: Float64Array, offset: float, *, keep_lengths: bool) -> Shift:
    """What `lower_scores` does to ``vectors``, as a scale of each and a shift along ``direction``.

    Example:
        >>> shift = shift_of_offset(np.array([[0.6, 0.8]]), np.array([1.0, 0.0]), 0.6, keep_lengths=True)
        >>> shift.scale.round(6).tolist(), shift.along.round(6).tolist()    # (0.6, 0.8) / 0.8 - (0.75, 0)
        ([1.25], [-0.75])
    """
    lengths = np.sqrt(np.einsum("cd,cd->c", vectors, vectors, dtype=np.float64))
    if not offset or not keep_lengths:
        return Shift(np.ones(len(vectors)), np.full(len(vectors), -offset * lengths.mean()))
    moved = 1 - 2 * offset * (vectors @ direction) / lengths + offset**2 * float(direction @ direction)
    scale = 1 / np.sqrt(moved)
    return Shift(scale, -offset * lengths * scale)
