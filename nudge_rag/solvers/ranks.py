"""Ranks of the validation answers along NUDGE-N's path, from two matrix products that serve every step size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from nudge_rag.arrays import FloatArray, IntArray
from nudge_rag.similarity import Similarity
from nudge_rag.solvers.competitors import SCORES_PER_BLOCK, FixedScores, query_vectors
from nudge_rag.solvers.directions import Arcs
from nudge_rag.solvers.labels import PreparedLabels

# Nodes that reach the same target tie; rounding must not decide which of them comes first.
SAME_SCORE = 4.0
# Every step size goes over the same block of scores: it is to stay in the processor's cache.
SCORES_IN_CACHE = 250_000

__all__ = ["count_greater", "covered_columns", "pair_blocks", "ranks_along_arcs"]


def ranks_along_arcs(
    val: PreparedLabels, arcs: Arcs, fixed: FixedScores, gammas: Sequence[float], similarity: Similarity
) -> IntArray:
    """0-based rank of every validation pair at every step size, (p, G).

    The score of query q and covered node j is norm_j (cos(t_j) q.v_j + sin(t_j) q.u_j) - norm_j^2 / 2 for l2, without
    the last term for dot and with norm_j = 1 for cosine. A tie, up to rounding, does not outrank.
    Ranks are exact below the depth of ``fixed.best`` and only known to be at least that depth otherwise.
    """
    queries = query_vectors(val, similarity)
    dtype = queries.dtype
    scale = np.ones_like(arcs.norms) if similarity == "cosine" else arcs.norms
    bias = -(arcs.norms**2) / 2 if similarity == "l2" else np.zeros_like(arcs.norms)
    starts, tangents = (np.asarray(rows.T * scale, dtype=dtype) for rows in (arcs.starts, arcs.tangents))
    turns = [tuple(part.astype(dtype) for part in arcs.turned(gamma)) for gamma in gammas]
    columns = covered_columns(val.node_of_pair, arcs.rows)
    ranks = np.empty((len(columns), len(turns)), dtype=np.int64)
    for part, pairs in pair_blocks(val, len(arcs.rows), SCORES_IN_CACHE):
        at_start, at_tangent = queries[part] @ starts, queries[part] @ tangents
        scores, turned = np.empty_like(at_start), np.empty_like(at_start)
        for step, (cos, sin) in enumerate(turns):
            np.multiply(at_start, cos, out=scores)
            np.multiply(at_tangent, sin, out=turned)
            scores += turned
            if similarity == "l2":
                scores += bias.astype(dtype)
            rows = val.query_of_pair[pairs] - part.start
            own = np.where(columns[pairs] >= 0, scores[rows, columns[pairs]], fixed.answer[pairs])
            own += SAME_SCORE * np.finfo(dtype).eps * (1 + np.abs(own))
            ranks[pairs, step] = count_greater(scores, rows, own) + count_greater(fixed.best[part], rows, own)
    return ranks


def covered_columns(nodes: IntArray, covered: IntArray) -> IntArray:
    """Position of each node among the increasing ``covered`` rows; -1 for nodes that are not."""
    if not len(covered):
        return np.full(len(nodes), -1, dtype=np.int64)
    at = np.minimum(np.searchsorted(covered, nodes), len(covered) - 1)
    return np.where(covered[at] == nodes, at, -1)


def pair_blocks(val: PreparedLabels, n_covered: int, scores: int = SCORES_PER_BLOCK) -> Iterator[tuple[slice, slice]]:
    """Slices of the queries, each with the slice of their pairs, so that queries x covered stays near a block."""
    step = max(1, scores // max(1, n_covered))
    for first in range(0, val.n_queries, step):
        part = slice(first, min(first + step, val.n_queries))
        yield part, slice(*(int(at) for at in np.searchsorted(val.query_of_pair, [part.start, part.stop])))


def count_greater(scores: FloatArray, rows: IntArray, own: FloatArray) -> IntArray:
    """For each pair, how many entries of ``scores[rows[pair]]`` are greater than ``own[pair]``."""
    if len(rows) == len(scores) and (rows == np.arange(len(scores))).all():
        return np.asarray(np.count_nonzero(scores > own[:, None], axis=1))
    counts = np.empty(len(rows), dtype=np.int64)
    step = max(1, SCORES_PER_BLOCK // max(1, scores.shape[1]))
    for first in range(0, len(rows), step):
        chunk = slice(first, first + step)
        counts[chunk] = np.count_nonzero(scores[rows[chunk]] > own[chunk, None], axis=1)
    return counts
