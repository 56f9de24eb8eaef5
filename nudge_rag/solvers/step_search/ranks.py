"""Ranks of the validation answers along NUDGE-N's path, from two matrix products that serve every step size."""

from __future__ import annotations

from collections.abc import Iterator
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

# Steps are gone through in so many ranges, each with a closer bound.
STEP_RANGES = 2
ALL = slice(None)

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

    def scores(self, rows: IntArray, columns: IntArray, steps: slice = ALL) -> FloatArray:
        """Scores of some (row, column) entries at every one of the steps, (G, entries)."""
        a, b = self.pairs.entries(rows, columns)
        moved = a * self.cos[steps, columns]
        moved += b * self.sin[steps, columns]
        return np.asarray(moved + self.pairs.bias[columns])

    def count_best_greater(self, rows: IntArray, own: FloatArray, depth: int) -> IntArray:
        """As `count_greater`, up to ``depth``: the best scores of each row alone are compared with its many pairs."""
        counts = np.zeros(own.shape, dtype=np.int64)
        for step in range(len(self.cos)):
            best = most_telling_scores(self._scores_at(step), depth, len(rows))
            counts[step] = (best[rows] > own[step][:, None]).sum(axis=1)
        return counts

    def count_greater(
        self, rows: IntArray, own: FloatArray, still: IntArray, depth: int, scores_at_once: int
    ) -> IntArray:
        """How many columns score above ``own`` (G, p), in the row of each pair, at every step: (G, p).

        Only the few entries whose bound lets them are looked at. Counts that make ``depth`` with ``still`` (G, p) may
        be too low.
        """
        counts = np.zeros(own.shape, dtype=np.int64)
        for steps, highest in self._bounds():
            counts[steps] = self._count_likely(highest, rows, own[steps], steps)
            open_at = counts[steps] + still[steps] < depth
            lowest = np.where(open_at, own[steps], np.inf).min(axis=0, initial=np.inf)
            lowest[np.isfinite(lowest)] -= ROUNDING * (1 + np.abs(lowest[np.isfinite(lowest)]))
            if np.isfinite(lowest).any():
                found = self._count_above(highest, rows, own[steps], lowest, steps, scores_at_once)
                counts[steps] = np.maximum(counts[steps], found)
        return counts

    def _bounds(self) -> Iterator[tuple[slice, Any]]:
        """Some of the steps at a time, with an upper bound of each entry's scores at them, (m, c).

        A score is R cos(t - p) + c. Between two angles that are w apart it is at most the larger of both ends, or R if
        p lies between them; the nearer end is then no more than w/2 away, so that R is no more than R (1 - cos(w/2))
        above its score.
        """
        highest, n_steps = self.pairs.highest(), len(self.cos)
        if is_foreign(highest):
            yield ALL, highest
            return
        radius = highest - self.pairs.bias
        for part in np.array_split(np.arange(n_steps), min(n_steps, STEP_RANGES)):
            first, last = int(part[0]), int(part[-1])
            ends = self._scores_at(first)
            np.maximum(ends, self._scores_at(last), out=ends)
            # The widest turn between the two, by the cosine of a difference.
            cos = (self.cos[first] * self.cos[last] + self.sin[first] * self.sin[last]).min(initial=1.0)
            slack = 1 - np.sqrt((1 + max(-1.0, min(1.0, float(cos)))) / 2)
            ends += radius * radius.dtype.type(slack)
            yield slice(first, last + 1), ends

    def _scores_at(self, step: int) -> FloatArray:
        """Scores of all entries at one step."""
        moved: FloatArray = self.pairs.a * self.cos[step]
        moved += self.pairs.b * self.sin[step]
        moved += self.pairs.bias
        return moved

    def _count_likely(self, highest: Any, rows: IntArray, own: FloatArray, steps: slice) -> IntArray:
        """As `count_greater`, but only among the columns of the highest bounds, one of each so many.

        Most pairs that are far down are seen to be so by these few.
        """
        counts = np.zeros(own.shape, dtype=np.int64)
        n_groups = 0 if is_foreign(highest) else highest.shape[1] // COLUMNS_PER_GROUP
        if n_groups < FEWEST_GROUPS:
            return counts
        grouped = highest[:, : n_groups * COLUMNS_PER_GROUP].reshape(len(highest), n_groups, COLUMNS_PER_GROUP)
        columns = grouped.argmax(axis=2) + COLUMNS_PER_GROUP * np.arange(n_groups)
        best = self.scores(np.repeat(np.arange(len(highest)), n_groups), columns.ravel(), steps)
        ahead = best.reshape(len(own), len(highest), n_groups)[:, rows] > own[:, :, None]
        return np.asarray(ahead.sum(axis=2))

    def _count_above(
        self, highest: Any, rows: IntArray, own: FloatArray, lowest: FloatArray, steps: slice, scores_at_once: int
    ) -> IntArray:
        """As `count_greater`, among all entries whose bound is above the ``lowest`` (p,) of the pair."""
        counts = np.zeros(own.shape, dtype=np.int64)
        step = max(1, scores_at_once // max(1, len(self.pairs.bias)))
        for first in range(0, len(rows), step):
            which, columns = entries_above(highest, rows[first : first + step], lowest[first : first + step])
            which = which + first
            for start in range(0, len(which), ENTRIES_AT_ONCE):
                entries = slice(start, start + ENTRIES_AT_ONCE)
                ahead = self.scores(rows[which[entries]], columns[entries], steps) > own[:, which[entries]]
                pairs, begins = np.unique(which[entries], return_index=True)
                counts[:, pairs] += np.add.reduceat(ahead, begins, axis=1, dtype=np.int64)
        return counts
