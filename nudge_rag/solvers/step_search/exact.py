"""Exact line search: a metric along the path of the nodes is a step function of the angle; all of its steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nudge_rag.common.arrays import Float64Array, IntArray
from nudge_rag.evaluation.metrics import Metric
from nudge_rag.solvers.labels import PreparedLabels
from nudge_rag.solvers.scoring.fixed_scores import FixedScores
from nudge_rag.solvers.step_search.crossings import overtakings
from nudge_rag.solvers.step_search.paths import Paths

__all__ = ["Steps", "metric_along_paths"]

# Steps narrower than this, in radians, are rounding: no vector in float32 lies inside them.
NARROW = 1e-7


@dataclass(frozen=True)
class Steps:
    """A step function of the angle.

    Attributes:
        starts: (s,) where each step starts, in radians; increasing, the first is 0.
        values: (s,) its value.
        end: where the last step ends.
    """

    starts: Float64Array
    values: Float64Array
    end: float

    def middles(self) -> Float64Array:
        """A point inside each step; 0 for the first, which starts there."""
        ends = np.append(self.starts[1:], self.end)
        return np.where(np.arange(len(ends)) == 0, 0.0, (self.starts + ends) / 2)

    def value_at(self, angle: float) -> float:
        """The value of the step that ``angle`` lies in."""
        return float(self.values[np.searchsorted(self.starts, angle, side="right") - 1])


def metric_along_paths(val: PreparedLabels, paths: Paths, fixed: FixedScores, metric: Metric) -> Steps:
    """Mean of ``metric`` over the validation queries as a step function of the angle, from 0 to ``paths.end``.

    Args:
        val: validation labels.
        paths: of the covered nodes.
        fixed: scores of all others, at least ``metric.k`` deep.
        metric: what is averaged.
    """
    end = paths.end
    pairs, angles, changes = overtakings(val, paths, fixed)
    order = np.lexsort((angles, pairs))
    pairs, angles, changes = pairs[order], angles[order], changes[order]
    total = np.cumsum(changes)
    first = np.searchsorted(pairs, pairs)
    ranks = total - np.where(first > 0, total[first - 1], 0)
    if metric.family in ("MRR", "Success"):
        at, deltas = _best_answer_changes(val, metric, pairs, angles, ranks)
    else:
        at, deltas = angles, _pair_changes(val, metric, pairs, ranks, changes)
    level = metric.per_query(np.zeros_like(val.query_of_pair), val.grades, val.query_of_pair, val.n_queries)
    if metric.family not in ("MRR", "Success"):
        level = _start_level(val, metric)
    if metric.family in ("CappedRecall", "nDCG"):
        deltas = _capped(level, val, pairs, angles, deltas)
        level = np.minimum(level, 1.0)
    return _summed(at, deltas / val.n_queries, float(level.mean()), end)


def _pair_changes(
    val: PreparedLabels, metric: Metric, pairs: IntArray, ranks: IntArray, changes: IntArray
) -> Float64Array:
    """Change of a metric that is a sum over answers, at each event."""
    weights = _weights(val, metric)
    discounts = np.append(metric.discounts(), 0.0)
    before, after = (np.minimum(part, metric.k) for part in (ranks - changes, ranks))
    return np.asarray(weights[pairs] * (discounts[after] - discounts[before]))


def _capped(
    level: Float64Array, val: PreparedLabels, pairs: IntArray, angles: Float64Array, deltas: Float64Array
) -> Float64Array:
    """Let no query's value exceed 1: answers that tie for a place all count as at that place."""
    queries, several = val.query_of_pair[pairs], np.bincount(val.query_of_pair) > 1
    chosen = np.flatnonzero(several[queries])
    if not len(chosen):
        return deltas
    capped = deltas.copy()
    capped[chosen] = _capped_sums(level, queries[chosen], angles[chosen], deltas[chosen])
    return capped


def _capped_sums(level: Float64Array, queries: IntArray, angles: Float64Array, deltas: Float64Array) -> Float64Array:
    order = np.lexsort((angles, queries))
    queries, total = queries[order], np.cumsum(deltas[order])
    first = np.searchsorted(queries, queries)
    values = np.minimum(level[queries] + total - np.where(first > 0, total[first - 1], 0.0), 1.0)
    before = np.where(first == np.arange(len(order)), np.minimum(level[queries], 1.0), np.roll(values, 1))
    capped = np.empty_like(deltas)
    capped[order] = values - before
    return capped


def _weights(val: PreparedLabels, metric: Metric) -> Float64Array:
    gains = val.grades if metric.family == "nDCG" else np.ones_like(val.grades)
    ideal = metric.ideal(val.query_of_pair, val.grades, val.n_queries)
    return np.asarray(gains / ideal[val.query_of_pair])


def _start_level(val: PreparedLabels, metric: Metric) -> Float64Array:
    """The sum with every answer at rank 0, from which the events at angle 0 lead to the real ranks."""
    weights = _weights(val, metric) * metric.discounts()[0]
    level: Float64Array = np.bincount(val.query_of_pair, weights=weights, minlength=val.n_queries).astype(np.float64)
    return level


def _best_answer_changes(
    val: PreparedLabels, metric: Metric, pairs: IntArray, angles: Float64Array, ranks: IntArray
) -> tuple[Float64Array, Float64Array]:
    """Changes of a metric of the best-ranked answer alone, query by query."""
    queries = val.query_of_pair[pairs]
    order = np.lexsort((angles, queries))
    bounds = np.searchsorted(queries[order], np.arange(val.n_queries + 1))
    gain = np.append(metric.discounts(), 0.0)
    at: list[Float64Array] = []
    deltas: list[Float64Array] = []
    for query in range(val.n_queries):
        events = order[bounds[query] : bounds[query + 1]]
        if not len(events):
            continue
        own = np.flatnonzero(val.query_of_pair == query)
        current = np.zeros((len(events), len(own)), dtype=np.int64)
        column = np.searchsorted(own, pairs[events])
        for place in range(len(own)):
            mine = column == place
            latest = np.maximum.accumulate(np.where(mine, np.arange(len(events)), -1))
            current[:, place] = np.where(latest >= 0, ranks[events][latest], 0)
        values = gain[np.minimum(current.min(axis=1), metric.k)]
        at.append(angles[events])
        deltas.append(np.diff(values, prepend=gain[0]))
    if not at:
        return np.zeros(0), np.zeros(0)
    return np.concatenate(at), np.concatenate(deltas)


def _summed(angles: Float64Array, deltas: Float64Array, level: float, end: float) -> Steps:
    order = np.argsort(angles, kind="stable")
    angles, values = angles[order], level + np.cumsum(deltas[order])
    # Of the events at one angle, and of steps too narrow to be real, the last one counts.
    keep = np.append(np.diff(angles) > NARROW, True) if len(angles) else np.zeros(0, dtype=bool)
    starts, values = angles[keep], values[keep]
    if not len(starts) or starts[0] > NARROW:
        starts, values = np.append(0.0, starts), np.append(level, values)
    starts[0] = 0.0
    return Steps(starts, values, max(end, float(starts[-1])))
