"""Ranks of the validation answers along NUDGE-N's path, from two matrix products that serve every step size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nudge_rag.arrays import FloatArray, IntArray
from nudge_rag.similarity import Similarity
from nudge_rag.solvers.competitors import SCORES_PER_BLOCK, FixedScores, query_vectors
from nudge_rag.solvers.directions import Arcs
from nudge_rag.solvers.labels import PreparedLabels

# Nodes that reach the same target tie; rounding must not decide which of them comes first. In units of the last place
# of 1 + |score|: products add up to a few in float32, sines and cosines of float64 to some tens in float64.
SAME_SCORE = {np.dtype(np.float32): 4.0, np.dtype(np.float64): 64.0}
# Products and their bounds are gone over several times: a block of them is to stay in the processor's cache.
SCORES_IN_CACHE = 500_000
ENTRIES_AT_ONCE = 20_000
# A bound on a score is computed another way than the score, and may come out lower by this much, relative to 1.
ROUNDING = 1e-5

__all__ = ["covered_columns", "pair_blocks", "ranks_along_arcs", "tie_margin"]


def tie_margin(dtype: Any) -> float:
    """Scores that differ by less than this, times 1 + |score|, tie."""
    return float(SAME_SCORE[np.dtype(dtype)] * np.finfo(dtype).eps)


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
    bias = (-(arcs.norms**2) / 2 if similarity == "l2" else np.zeros_like(arcs.norms)).astype(dtype)
    starts, tangents = (np.ascontiguousarray(rows.T * scale, dtype=dtype) for rows in (arcs.starts, arcs.tangents))
    turns = [arcs.turned(gamma) for gamma in gammas]
    cos, sin = (np.array([turn[part] for turn in turns], dtype=dtype) for part in (0, 1))
    columns = covered_columns(val.node_of_pair, arcs.rows)
    ranks = np.empty((len(columns), len(turns)), dtype=np.int64)
    for part, pairs in pair_blocks(val, len(arcs.rows), SCORES_IN_CACHE):
        paths = _Block(queries[part] @ starts, queries[part] @ tangents, bias, cos, sin)
        rows = val.query_of_pair[pairs] - part.start
        own = paths.scores(rows, np.maximum(columns[pairs], 0)) if len(bias) else np.zeros((len(turns), len(rows)))
        own = np.where(columns[pairs] >= 0, own, fixed.answer[pairs])
        own += (tie_margin(dtype) * (1 + np.abs(own))).astype(dtype)
        still = (fixed.best[part][rows] > own[:, :, None]).sum(axis=2)
        ranks[pairs] = (paths.count_greater(rows, own) + still).T
    return ranks


@dataclass(frozen=True)
class _Block:
    """Scores a cos + b sin + bias of a block of queries (m, c) with covered nodes whose turns are (G, c)."""

    at_start: FloatArray
    at_tangent: FloatArray
    bias: FloatArray
    cos: FloatArray
    sin: FloatArray

    def scores(self, rows: IntArray, columns: IntArray) -> FloatArray:
        """Scores of some (row, column) entries at every step, (G, entries)."""
        moved = self.at_start[rows, columns] * self.cos[:, columns]
        moved += self.at_tangent[rows, columns] * self.sin[:, columns]
        return np.asarray(moved + self.bias[columns])

    def count_greater(self, rows: IntArray, own: FloatArray) -> IntArray:
        """How many columns score above ``own`` (G, p), in the row of each pair, at every step: (G, p).

        a cos + b sin is at most sqrt(a^2 + b^2): the few entries that this lets through are all that is looked at.
        """
        highest = np.sqrt(self.at_start * self.at_start + self.at_tangent * self.at_tangent) + self.bias
        lowest = own.min(axis=0, initial=np.inf)
        lowest -= ROUNDING * (1 + np.abs(lowest))
        counts = np.zeros(own.shape, dtype=np.int64)
        step = max(1, SCORES_IN_CACHE // max(1, highest.shape[1]))
        for first in range(0, len(rows), step):
            which, columns = np.nonzero(highest[rows[first : first + step]] > lowest[first : first + step, None])
            which += first
            for start in range(0, len(which), ENTRIES_AT_ONCE):
                entries = slice(start, start + ENTRIES_AT_ONCE)
                ahead = self.scores(rows[which[entries]], columns[entries]) > own[:, which[entries]]
                pairs, begins = np.unique(which[entries], return_index=True)
                counts[:, pairs] += np.add.reduceat(ahead, begins, axis=1, dtype=np.int64)
        return counts


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
