"""Exact line search for NUDGE-N: the metric as a function of the angle is a step function; find its best step.

Every score along the path is a cos(t) + b sin(t) + c with t = min(angle, cap), so that the angles at which one node
overtakes another are roots of one sinusoid per piece. Between two such angles no rank changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from nudge_rag.arrays import IntArray
from nudge_rag.metrics import Metric
from nudge_rag.similarity import Similarity
from nudge_rag.solvers.competitors import SCORES_PER_BLOCK, FixedScores, query_vectors
from nudge_rag.solvers.directions import Arcs
from nudge_rag.solvers.labels import PreparedLabels
from nudge_rag.solvers.ranks import SAME_SCORE, covered_columns, pair_blocks

__all__ = ["Steps", "metric_along_arcs"]

Float64Array = np.ndarray[Any, np.dtype[np.float64]]

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


@dataclass(frozen=True)
class _Scores:
    """a cos(t) + b sin(t) + c with t = min(angle, cap), for many nodes at once."""

    a: Float64Array
    b: Float64Array
    c: Float64Array
    cap: Float64Array

    def at(self, angle: Float64Array) -> Float64Array:
        turned = np.minimum(angle, self.cap)
        return np.asarray(self.a * np.cos(turned) + self.b * np.sin(turned) + self.c)

    def of(self, which: Any) -> _Scores:
        return _Scores(self.a[which], self.b[which], self.c[which], self.cap[which])

    def lowest(self) -> Float64Array:
        """A lower bound over all angles: a positive sinusoid is concave, so its ends are lowest."""
        ends = np.minimum(self.a, self.a * np.cos(self.cap) + self.b * np.sin(self.cap))
        return np.asarray(np.where(ends >= 0, ends, -np.hypot(self.a, self.b)) + self.c)


def metric_along_arcs(
    val: PreparedLabels, arcs: Arcs, fixed: FixedScores, metric: Metric, similarity: Similarity
) -> Steps:
    """Mean of ``metric`` over the validation queries as a step function of the angle, from 0 to the longest arc.

    Args:
        val: validation labels.
        arcs: paths of the covered nodes.
        fixed: scores of all others, at least ``metric.k`` deep.
        metric: what is averaged.
        similarity: how the store ranks.
    """
    end = float(arcs.angles.max(initial=0.0))
    pairs, angles, changes = _events(val, arcs, fixed, similarity, end)
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
    return _summed(at, deltas / val.n_queries, float(level.mean()), end)


def _pair_changes(
    val: PreparedLabels, metric: Metric, pairs: IntArray, ranks: IntArray, changes: IntArray
) -> Float64Array:
    """Change of a metric that is a sum over answers, at each event."""
    weights = _weights(val, metric)
    discounts = np.append(metric.discounts(), 0.0)
    before, after = (np.minimum(part, metric.k) for part in (ranks - changes, ranks))
    return np.asarray(weights[pairs] * (discounts[after] - discounts[before]))


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


def _events(
    val: PreparedLabels, arcs: Arcs, fixed: FixedScores, similarity: Similarity, end: float
) -> tuple[IntArray, Float64Array, IntArray]:
    """(pair, angle, +1 or -1): some node comes to outrank the pair's answer, or ceases to."""
    parts: list[tuple[IntArray, Float64Array, IntArray]] = [
        (np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros(0, dtype=np.int64))
    ]
    for pairs, own, others in _contenders(val, arcs, fixed, similarity):
        starts, stops = _outranking(own, others, end, np.finfo(val.vectors.dtype).eps)
        which, column = np.nonzero(stops > starts)
        parts.append((pairs[which], starts[which, column], np.ones(len(which), dtype=np.int64)))
        ending = stops[which, column] < end
        parts.append((pairs[which][ending], stops[which, column][ending], np.full(ending.sum(), -1, dtype=np.int64)))
    pairs, angles, changes = (np.concatenate(column) for column in zip(*parts, strict=True))
    return pairs, angles, changes


def _contenders(
    val: PreparedLabels, arcs: Arcs, fixed: FixedScores, similarity: Similarity
) -> Iterator[tuple[IntArray, _Scores, _Scores]]:
    """Pairs with the nodes that may outrank them somewhere: bounds rule out nearly all others without a root."""
    queries = query_vectors(val, similarity)
    scale = np.ones_like(arcs.norms) if similarity == "cosine" else arcs.norms
    bias = -(arcs.norms**2) / 2 if similarity == "l2" else np.zeros_like(arcs.norms)
    starts, tangents = (np.asarray(rows.T * scale, dtype=queries.dtype) for rows in (arcs.starts, arcs.tangents))
    columns = covered_columns(val.node_of_pair, arcs.rows)
    for part, block in pair_blocks(val, len(arcs.rows)):
        a, b = queries[part] @ starts, queries[part] @ tangents
        highest = np.sqrt(a * a + b * b) + bias
        step = max(1, SCORES_PER_BLOCK // max(1, len(arcs.rows)))
        for first in range(block.start, block.stop, step):
            pairs = np.arange(first, min(first + step, block.stop))
            rows, own_columns = val.query_of_pair[pairs] - part.start, columns[pairs]
            own = _own_scores(a, b, bias, arcs.angles, rows, own_columns, fixed.answer[pairs])
            rivals = highest[rows] > own.lowest()[:, None] - 1e-6
            rivals[np.flatnonzero(own_columns >= 0), own_columns[own_columns >= 0]] = False
            which, column = np.nonzero(rivals)
            at = rows[which], column
            moving = _Scores(*(x.astype(np.float64) for x in (a[at], b[at], bias[column], arcs.angles[column])))
            yield pairs[which], own.of(which), moving
            still = fixed.best[part][rows].astype(np.float64)
            which, place = np.nonzero(still > -np.inf)
            level, zero = still[which, place], np.zeros(len(which))
            yield pairs[which], own.of(which), _Scores(level, zero, zero, zero)


def _own_scores(
    a: Any, b: Any, bias: Float64Array, angles: Float64Array, rows: IntArray, columns: IntArray, answer: Any
) -> _Scores:
    covered = columns >= 0
    return _Scores(
        np.where(covered, a[rows, columns], answer).astype(np.float64),
        np.where(covered, b[rows, columns], 0.0).astype(np.float64),
        np.where(covered, bias[columns], 0.0),
        np.where(covered, angles[columns], 0.0),
    )


def _outranking(own: _Scores, other: _Scores, end: float, eps: Any) -> tuple[Float64Array, Float64Array]:
    """Intervals (n, 5) of angles on which ``other`` outranks ``own``; the empty ones start where they stop."""
    low, high = np.minimum(own.cap, other.cap), np.maximum(own.cap, other.cap)
    both = (other.a - own.a, other.b - own.b, other.c - own.c)
    frozen_own = own.a * np.cos(own.cap) + own.b * np.sin(own.cap) + own.c
    frozen_other = other.a * np.cos(other.cap) + other.b * np.sin(other.cap) + other.c
    own_stops_first = own.cap < other.cap
    one = (
        np.where(own_stops_first, other.a, -own.a),
        np.where(own_stops_first, other.b, -own.b),
        np.where(own_stops_first, other.c - frozen_own, frozen_other - own.c),
    )
    roots = np.concatenate([_roots(*both, np.zeros_like(low), low), _roots(*one, low, high)], axis=1)
    edges = np.sort(np.clip(roots, 0.0, end), axis=1)
    starts = np.concatenate([np.zeros((len(edges), 1)), edges], axis=1)
    stops = np.concatenate([edges, np.full((len(edges), 1), end)], axis=1)
    middle = ((starts + stops) / 2).T
    margin = SAME_SCORE * float(eps)
    scores = own.at(middle)
    ahead = (other.at(middle) > scores + margin * (1 + np.abs(scores))).T
    return starts, np.where(ahead, stops, starts)


def _roots(a: Float64Array, b: Float64Array, c: Float64Array, low: Float64Array, high: Float64Array) -> Float64Array:
    """Angles in (low, high) at which a cos + b sin + c is 0, (n, 2); 0 where there are fewer."""
    size = np.hypot(a, b)
    some = (size > 0) & (np.abs(c) <= size)
    turn = np.arccos(np.clip(-c / np.where(some, size, 1.0), -1.0, 1.0))
    phase = np.arctan2(b, a)
    angles = np.stack([phase + turn, phase - turn], axis=1) % (2 * np.pi)
    inside = some[:, None] & (angles > low[:, None]) & (angles < high[:, None])
    return np.where(inside, angles, 0.0)
