"""Ranks of the validation answers along NUDGE-N's path, from two matrix products that serve every step size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nudge_rag.common.arrays import FloatArray, IntArray
from nudge_rag.solvers.devices import is_foreign
from nudge_rag.solvers.labels import PreparedLabels
from nudge_rag.solvers.scoring.blocks import (
    covered_columns,
    is_worth_selecting,
    most_telling_scores,
    pair_blocks,
    tie_margin,
)
from nudge_rag.solvers.scoring.fixed_scores import FixedScores, query_vectors
from nudge_rag.solvers.step_search.arcs import Arcs
from nudge_rag.solvers.step_search.paths import Paths
from nudge_rag.solvers.step_search.products import ScorePairs, entries_above

ENTRIES_AT_ONCE = 20_000
# Of so many columns the best at a step is looked at first, if there are many more.
COLUMNS_PER_GROUP, FEWEST_GROUPS = 500, 8
# A bound on a score is computed another way than the score, and may come out lower by this much, relative to 1.
ROUNDING = 1e-5

__all__ = ["ranks_along_paths"]


def ranks_along_paths(val: PreparedLabels, arcs: Arcs, paths: Paths, fixed: FixedScores, gammas: Any) -> IntArray:
    """0-based rank of every validation pair at every step size, (p, G).

    The score of query q and covered node j is q.A_j cos(t_j) + q.B_j sin(t_j) + c_j (`Paths`). A tie, up to rounding,
    does not outrank. Ranks are exact below the depth of ``fixed.best`` and only known to be at least that depth
    otherwise.
    """
    queries = query_vectors(val, paths.similarity)
    dtype = queries.dtype
    turns = [arcs.turned(gamma) for gamma in gammas]
    cos, sin = (np.array([turn[part] for turn in turns], dtype=dtype) for part in (0, 1))
    columns = covered_columns(val.node_of_pair, paths.rows)
    ranks = np.empty((len(columns), len(turns)), dtype=np.int64)
    products = paths.products(dtype)
    for part, pairs in pair_blocks(val, len(paths.rows), products.scores_at_once):
        block = _Block(products.of(queries[part]), cos, sin)
        rows = val.query_of_pair[pairs] - part.start
        own = np.repeat(fixed.answer[pairs][None], len(turns), axis=0)
        covered = np.flatnonzero(columns[pairs] >= 0)
        own[:, covered] = block.scores(rows[covered], columns[pairs][covered])
        own += (tie_margin(dtype) * (1 + np.abs(own))).astype(dtype)
        still = (fixed.best[part][rows] > own[:, :, None]).sum(axis=2)
        if is_worth_selecting(len(rows), part.stop - part.start) and not is_foreign(block.pairs.a):
            greater = block.count_best_greater(rows, own, fixed.best.shape[1])
        else:
            greater = block.count_greater(rows, own, still, fixed.best.shape[1], products.scores_at_once)
        ranks[pairs] = (greater + still).T
    return ranks


@dataclass(frozen=True)
class _Block:
    """Scores a cos + b sin + c of a block of queries with covered nodes whose turns are (G, c)."""

    pairs: ScorePairs
    cos: FloatArray
    sin: FloatArray

    def scores(self, rows: IntArray, columns: IntArray) -> FloatArray:
        """Scores of some (row, column) entries at every step, (G, entries)."""
        a, b = self.pairs.entries(rows, columns)
        moved = a * self.cos[:, columns]
        moved += b * self.sin[:, columns]
        return np.asarray(moved + self.pairs.bias[columns])

    def count_best_greater(self, rows: IntArray, own: FloatArray, depth: int) -> IntArray:
        """As `count_greater`, up to ``depth``: the best scores of each row alone are compared with its many pairs."""
        counts = np.zeros(own.shape, dtype=np.int64)
        for step, (cos, sin) in enumerate(zip(self.cos, self.sin, strict=True)):
            moved = self.pairs.a * cos
            moved += self.pairs.b * sin
            best = most_telling_scores(moved + self.pairs.bias, depth, len(rows))
            counts[step] = (best[rows] > own[step][:, None]).sum(axis=1)
        return counts

    def count_greater(
        self, rows: IntArray, own: FloatArray, still: IntArray, depth: int, scores_at_once: int
    ) -> IntArray:
        """How many columns score above ``own`` (G, p), in the row of each pair, at every step: (G, p).

        Only the few entries whose bound lets them are looked at. Counts that make ``depth`` with ``still`` (G, p) may
        be too low.
        """
        highest = self.pairs.highest()
        counts = self._count_likely(rows, own)
        telling = np.where(counts + still < depth, own, np.inf).min(axis=0, initial=np.inf)
        if not np.isfinite(telling).any():
            return counts
        lowest = telling.copy()
        lowest[np.isfinite(telling)] -= ROUNDING * (1 + np.abs(telling[np.isfinite(telling)]))
        likely, counts = counts, np.zeros_like(counts)
        step = max(1, scores_at_once // max(1, len(self.pairs.bias)))
        for first in range(0, len(rows), step):
            which, columns = entries_above(highest, rows[first : first + step], lowest[first : first + step])
            which = which + first
            for start in range(0, len(which), ENTRIES_AT_ONCE):
                entries = slice(start, start + ENTRIES_AT_ONCE)
                ahead = self.scores(rows[which[entries]], columns[entries]) > own[:, which[entries]]
                pairs, begins = np.unique(which[entries], return_index=True)
                counts[:, pairs] += np.add.reduceat(ahead, begins, axis=1, dtype=np.int64)
        return np.maximum(counts, likely)

    def _count_likely(self, rows: IntArray, own: FloatArray) -> IntArray:
        """As `count_greater`, but only among the columns that score best at a step, one of each so many: (G, p).

        Most pairs that are far down are seen to be so by these few.
        """
        counts = np.zeros(own.shape, dtype=np.int64)
        n_groups = 0 if is_foreign(self.pairs.a) else self.pairs.a.shape[1] // COLUMNS_PER_GROUP
        if n_groups < FEWEST_GROUPS:
            return counts
        for step in sorted({0, len(own) // 4, len(own) - 1}):
            moved = self.pairs.a * self.cos[step]
            moved += self.pairs.b * self.sin[step]
            moved += self.pairs.bias
            grouped = moved[:, : n_groups * COLUMNS_PER_GROUP].reshape(len(moved), n_groups, COLUMNS_PER_GROUP)
            columns = grouped.argmax(axis=2) + COLUMNS_PER_GROUP * np.arange(n_groups)
            best = self.scores(np.repeat(np.arange(len(moved)), n_groups), columns.ravel())
            ahead = best.reshape(len(own), len(moved), n_groups)[:, rows] > own[:, :, None]
            counts = np.maximum(counts, ahead.sum(axis=2))
        return counts
