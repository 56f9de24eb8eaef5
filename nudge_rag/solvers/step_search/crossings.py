"""Where along their paths one node overtakes another, for both solvers.

Every score along a path is a cos(t) + b sin(t) + c with t = min(angle, cap), so that the angles at which one node
overtakes another are roots of one sinusoid per piece. Between two such angles no rank changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from nudge_rag.common.arrays import Float64Array, IntArray
from nudge_rag.solvers.labels import PreparedLabels
from nudge_rag.solvers.scoring.blocks import covered_columns, pair_blocks, tie_margin
from nudge_rag.solvers.scoring.fixed_scores import FixedScores, query_vectors
from nudge_rag.solvers.step_search.paths import Paths
from nudge_rag.solvers.step_search.products import ScorePairs, entries_above

__all__ = ["overtakings"]


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


def overtakings(val: PreparedLabels, paths: Paths, fixed: FixedScores) -> tuple[IntArray, Float64Array, IntArray]:
    """Every (pair, angle, +1 or -1) at which some node comes to outrank the pair's answer, or ceases to."""
    end = paths.end
    parts: list[tuple[IntArray, Float64Array, IntArray]] = [
        (np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros(0, dtype=np.int64))
    ]
    for pairs, own, others in _contenders(val, paths, fixed):
        starts, stops = _outranking(own, others, end, tie_margin(val.vectors.dtype))
        which, column = np.nonzero(stops > starts)
        parts.append((pairs[which], starts[which, column], np.ones(len(which), dtype=np.int64)))
        ending = stops[which, column] < end
        parts.append((pairs[which][ending], stops[which, column][ending], np.full(ending.sum(), -1, dtype=np.int64)))
    pairs, angles, changes = (np.concatenate(column) for column in zip(*parts, strict=True))
    return pairs, angles, changes


def _contenders(val: PreparedLabels, paths: Paths, fixed: FixedScores) -> Iterator[tuple[IntArray, _Scores, _Scores]]:
    """Pairs with the nodes that may outrank them somewhere: bounds rule out nearly all others without a root."""
    queries = query_vectors(val, paths.similarity)
    products = paths.products(queries.dtype)
    columns = covered_columns(val.node_of_pair, paths.rows)
    for part, block in pair_blocks(val, len(paths.rows), products.scores_at_once):
        scores = products.of(queries[part])
        highest = scores.highest()
        step = max(1, products.scores_at_once // max(1, len(paths.rows)))
        for first in range(block.start, block.stop, step):
            pairs = np.arange(first, min(first + step, block.stop))
            rows, own_columns = val.query_of_pair[pairs] - part.start, columns[pairs]
            own = _own_scores(scores, paths, rows, own_columns, fixed.answer[pairs])
            which, column = entries_above(highest, rows, own.lowest() - 1e-6)
            others = own_columns[which] != column
            which, column = which[others], column[others]
            parts = *scores.entries(rows[which], column), paths.bias[column], paths.caps[column]
            yield pairs[which], own.of(which), _Scores(*(part.astype(np.float64) for part in parts))
            still = fixed.best[part][rows].astype(np.float64)
            which, place = np.nonzero(still > -np.inf)
            level, zero = still[which, place], np.zeros(len(which))
            yield pairs[which], own.of(which), _Scores(level, zero, zero, zero + paths.still_cap)


def _own_scores(scores: ScorePairs, paths: Paths, rows: IntArray, columns: IntArray, answer: Any) -> _Scores:
    covered = columns >= 0
    if not len(paths.rows):
        zero = np.zeros(len(rows))
        return _Scores(answer.astype(np.float64), zero, zero, zero + paths.still_cap)
    a, b = scores.entries(rows, np.maximum(columns, 0))
    return _Scores(
        np.where(covered, a, answer).astype(np.float64),
        np.where(covered, b, 0.0).astype(np.float64),
        np.where(covered, paths.bias[columns], 0.0),
        np.where(covered, paths.caps[columns], paths.still_cap),
    )


def _outranking(own: _Scores, other: _Scores, end: float, margin: float) -> tuple[Float64Array, Float64Array]:
    """Intervals (n, 7) of angles on which ``other`` outranks ``own``; the empty ones start where they stop."""
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
    # The caps are edges too: two nodes that reach one target tie from there on, without a root before.
    caps = np.stack([low, high], axis=1)
    roots = np.concatenate([_roots(*both, np.zeros_like(low), low), _roots(*one, low, high), caps], axis=1)
    edges = np.sort(np.clip(roots, 0.0, end), axis=1)
    starts = np.concatenate([np.zeros((len(edges), 1)), edges], axis=1)
    stops = np.concatenate([edges, np.full((len(edges), 1), end)], axis=1)
    middle = ((starts + stops) / 2).T
    scores = own.at(middle)
    ahead = (other.at(middle) > scores + margin * (1 + np.abs(scores))).T
    return starts, np.where(ahead, stops, starts)


def _roots(a: Float64Array, b: Float64Array, c: Float64Array, low: Float64Array, high: Float64Array) -> Float64Array:
    """Angles in (low, high) at which a cos + b sin + c is 0, (n, 2); 0 if there are fewer."""
    size = np.hypot(a, b)
    some = (size > 0) & (np.abs(c) <= size)
    turn = np.arccos(np.clip(-c / np.where(some, size, 1.0), -1.0, 1.0))
    phase = np.arctan2(b, a)
    angles = np.stack([phase + turn, phase - turn], axis=1) % (2 * np.pi)
    inside = some[:, None] & (angles > low[:, None]) & (angles < high[:, None])
    return np.where(inside, angles, 0.0)
