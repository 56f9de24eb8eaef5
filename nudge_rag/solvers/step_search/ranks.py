"""Ranks of the validation answers along NUDGE-N's path, from two matrix products that serve every step size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nudge_rag.common.arrays import FloatArray, IntArray
from nudge_rag.common.blas_threads import count_threads, map_in_threads
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

ENTRIES_AT_ONCE, ENTRIES_IN_CACHE = 20_000, 100_000
# Of so many columns the best at a step is looked at first, if there are many more.
COLUMNS_PER_GROUP, FEWEST_GROUPS = 500, 8
# A bound on a score is computed another way than the score, and may come out lower by this much, relative to 1.
ROUNDING = 1e-5

# Of an entry that may count, steps are gone through in so many ranges, each with a closer bound.
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
    turned = [arcs.turned(gamma) for gamma in gammas]
    cos, sin = (np.array([turn[part] for turn in turned], dtype=dtype) for part in (0, 1))
    columns = covered_columns(val.node_of_pair, paths.rows)
    ranks = np.empty((len(columns), len(cos)), dtype=np.int64)
    products = paths.products(dtype)
    turns = _Turns(cos, sin)

    def rank(block_of: tuple[slice, slice]) -> None:
        part, pairs = block_of
        block = _Block(products.of(queries[part]), turns)
        rows = val.query_of_pair[pairs] - part.start
        own = np.repeat(fixed.answer[pairs][None], len(cos), axis=0)
        covered = np.flatnonzero(columns[pairs] >= 0)
        own[:, covered] = block.scores(rows[covered], columns[pairs][covered])
        own += (tie_margin(dtype) * (1 + np.abs(own))).astype(dtype)
        still = (fixed.best[part][rows] > own[:, :, None]).sum(axis=2)
        if is_worth_selecting(len(rows), part.stop - part.start) and not is_foreign(block.pairs.a):
            greater = block.count_best_greater(rows, own, fixed.best.shape[1])
        else:
            greater = block.count_greater(rows, own, still, fixed.best.shape[1], products.scores_at_once)
        ranks[pairs] = (greater + still).T

    blocks = list(pair_blocks(val, len(paths.rows), products.scores_at_once))
    map_in_threads(rank, blocks, 1 if is_foreign(paths.like) else count_threads(2 * len(queries) * paths.starts.size))
    return ranks


class _Turns:
    """Cosines and sines of the covered nodes' turns, (G, c) each, of 0 to 90 degrees, and bounds of them.

    Attributes:
        cos: cosines.
        sin: sines.
        highest_sin: (c,) the largest sine of each node.
        ranges: some of the steps at a time, and how much higher a score between their ends may be, relative to its
            largest value at any turn.
    """

    def __init__(self, cos: FloatArray, sin: FloatArray) -> None:
        self.cos, self.sin = cos, sin
        self.highest_sin = sin.max(axis=0)
        self.ranges = [self._range(part) for part in np.array_split(np.arange(len(cos)), min(len(cos), STEP_RANGES))]

    def _range(self, steps: IntArray) -> tuple[slice, float]:
        """Bound the scores between two steps.

        A score is R cos(t - p) + c. Between two angles that are w apart it is at most the larger of both ends, or R if
        p lies between them; the nearer end is then no more than w/2 away, so that R is no more than R (1 - cos(w/2))
        above its score.
        """
        first, last = int(steps[0]), int(steps[-1])
        # The widest turn between the two, by the cosine of a difference.
        cos = (self.cos[first] * self.cos[last] + self.sin[first] * self.sin[last]).min(initial=1.0)
        return slice(first, last + 1), float(1 - np.sqrt((1 + max(-1.0, min(1.0, float(cos)))) / 2))


@dataclass(frozen=True)
class _Block:
    """Scores a cos + b sin + c of a block of queries with covered nodes, at every turn."""

    pairs: ScorePairs
    turns: _Turns

    def scores(self, rows: IntArray, columns: IntArray, steps: slice = ALL) -> FloatArray:
        """Scores of some (row, column) entries at every one of the steps, (G, entries)."""
        return self._turned(*self.pairs.entries(rows, columns), columns, steps)

    def _turned(self, a: FloatArray, b: FloatArray, columns: IntArray, steps: slice | int) -> FloatArray:
        moved = a * self.turns.cos[steps, columns]
        moved += b * self.turns.sin[steps, columns]
        return np.asarray(moved + self.pairs.bias[columns])

    def count_best_greater(self, rows: IntArray, own: FloatArray, depth: int) -> IntArray:
        """As `count_greater`, up to ``depth``: the best scores of each row alone are compared with its many pairs."""
        counts = np.zeros(own.shape, dtype=np.int64)
        for step in range(len(own)):
            best = most_telling_scores(self._scores_at(step), depth, len(rows))
            counts[step] = (best[rows] > own[step][:, None]).sum(axis=1)
        return counts

    def _scores_at(self, step: int) -> FloatArray:
        """Scores of all entries at one step."""
        moved: FloatArray = self.pairs.a * self.turns.cos[step]
        moved += self.pairs.b * self.turns.sin[step]
        moved += self.pairs.bias
        return moved

    def count_greater(
        self, rows: IntArray, own: FloatArray, still: IntArray, depth: int, scores_at_once: int
    ) -> IntArray:
        """How many columns score above ``own`` (G, p), in the row of each pair, at every step: (G, p).

        Only the few entries whose bound lets them are looked at. Counts that make ``depth`` with ``still`` (G, p) may
        be too low.
        """
        highest = self._highest()
        counts = self._count_likely(highest, rows, own)
        # Where a pair is down already, nothing is counted any more.
        lowest: FloatArray = np.where(counts + still < depth, own, np.inf).astype(own.dtype)
        lowest -= ROUNDING * (1 + np.abs(own))
        least = lowest.min(axis=0, initial=np.inf)
        if np.isfinite(least).any():
            counts = np.maximum(counts, self._count_above(highest, rows, own, lowest, least, scores_at_once))
        return counts

    def _highest(self) -> Any:
        """An upper bound of each entry's scores at all steps, (m, c).

        Both a cosine and a sine are positive here: a score is at most a, or 0, plus b, or 0, times the largest sine.
        """
        if is_foreign(self.pairs.a):
            return self.pairs.highest()
        a, b, bias = self.pairs.a, self.pairs.b, self.pairs.bias
        highest = np.empty_like(b)
        has_bias = bool(bias.any())
        step = max(1, ENTRIES_IN_CACHE // max(1, b.shape[1]))
        for first in range(0, len(b), step):
            part = slice(first, first + step)
            bound = highest[part]
            np.multiply(b[part], self.turns.highest_sin, out=bound)
            np.maximum(bound, 0, out=bound)
            bound += np.maximum(a[part], 0)
            if has_bias:
                bound += bias
        return highest

    def _count_likely(self, highest: Any, rows: IntArray, own: FloatArray) -> IntArray:
        """As `count_greater`, but only among the columns of the highest bounds, one of each so many.

        Most pairs that are far down are seen to be so by these few.
        """
        counts = np.zeros(own.shape, dtype=np.int64)
        n_groups = 0 if is_foreign(highest) else highest.shape[1] // COLUMNS_PER_GROUP
        if n_groups < FEWEST_GROUPS:
            return counts
        grouped = highest[:, : n_groups * COLUMNS_PER_GROUP].reshape(len(highest), n_groups, COLUMNS_PER_GROUP)
        columns = grouped.argmax(axis=2) + COLUMNS_PER_GROUP * np.arange(n_groups)
        best = self.scores(np.repeat(np.arange(len(highest)), n_groups), columns.ravel())
        ahead = best.reshape(len(own), len(highest), n_groups)[:, rows] > own[:, :, None]
        return np.asarray(ahead.sum(axis=2))

    def _count_above(
        self,
        highest: Any,
        rows: IntArray,
        own: FloatArray,
        lowest: FloatArray,
        least: FloatArray,
        scores_at_once: int,
    ) -> IntArray:
        """As `count_greater`, among all entries whose bound is above what may count for the pair.

        That is ``lowest`` (G, p) at each step, and ``least`` (p,) at any.
        """
        counts = np.zeros(own.shape, dtype=np.int64)
        step = max(1, scores_at_once // max(1, len(self.pairs.bias)))
        for first in range(0, len(rows), step):
            which, columns = entries_above(highest, rows[first : first + step], least[first : first + step])
            which = which + first
            for start in range(0, len(which), ENTRIES_AT_ONCE):
                entries = slice(start, start + ENTRIES_AT_ONCE)
                self._add_entries(counts, which[entries], rows, columns[entries], own, lowest)
        return counts

    def _add_entries(
        self,
        counts: IntArray,
        which: IntArray,
        rows: IntArray,
        columns: IntArray,
        own: FloatArray,
        lowest: FloatArray,
    ) -> None:
        """Count those entries of the pairs ``which``, in order, that score above ``own``, at each step."""
        a, b = self.pairs.entries(rows[which], columns)
        radius = np.sqrt(a * a + b * b)
        for steps, slack in self.turns.ranges:
            ends = np.maximum(self._turned(a, b, columns, steps.start), self._turned(a, b, columns, steps.stop - 1))
            kept = np.flatnonzero(ends + radius * slack > lowest[steps].min(axis=0)[which])
            ahead = self._turned(a[kept], b[kept], columns[kept], steps) > own[steps, which[kept]]
            pairs, begins = np.unique(which[kept], return_index=True)
            if len(pairs):
                counts[steps, pairs] += np.add.reduceat(ahead, begins, axis=1, dtype=np.int64)
