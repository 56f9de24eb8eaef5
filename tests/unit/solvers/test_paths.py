"""The paths of NudgeContrastive: when one ends, and which temperatures are tried."""

from __future__ import annotations

import numpy as np
import pytest

from nudge_rag.solvers.contrastive.descent import ContrastiveDescent, Point
from nudge_rag.solvers.contrastive.paths import search_paths
from nudge_rag.solvers.problem import make_problem
from nudge_rag.solvers.result import Descent

STRENGTHS = (30.0, 10.0, 3.0, 1.0, 0.3, 0.1)


class Judge:
    """Says the values that it was given, one after the other, and the last one from then on."""

    def __init__(self, values):
        self.values = list(values)

    def value(self, vectors):
        return self.values.pop(0) if len(self.values) > 1 else self.values[0]


def descent():
    nodes = np.eye(4) + 0.1
    problem = make_problem(nodes, (nodes[[0, 1, 1]], [[1], [0], [2]]), None, needs_validation=False)
    return ContrastiveDescent(problem, None, "cosine", 0.0, 2, 10.0, True)


@pytest.mark.parametrize(
    ("values", "n_points"),
    [
        # A little worse than the best one: that may be noise, and the path goes on to its end.
        ([0.5, 0.6, 0.596, 0.61, 0.62, 0.63, 0.64], 7),
        # Twice in a row: it ends.
        ([0.5, 0.6, 0.596, 0.596, 0.7], 4),
        # By more than a twentieth of what was gained, 0.1 / 20 = 0.005: it ends at once; by less it does not.
        ([0.5, 0.6, 0.5949, 0.7], 3),
        ([0.5, 0.6, 0.5951, 0.7, 0.71, 0.72, 0.73], 7),
        # Nothing was gained yet: what is a twentieth of that?
        ([0.5, 0.4, 0.6, 0.61, 0.62, 0.63, 0.64], 7),
        ([0.5, 0.4, 0.4, 0.6], 3),
    ],
)
def test_a_path_ends_once_it_is_worse(values, n_points):
    path = descent().path(0.1, STRENGTHS, 5, Judge(values))
    assert [point.value for point in path] == values[:n_points]
    best = max(range(n_points), key=lambda number: path[number].value)
    # Of all points but the best one there are no vectors: they would be many.
    assert [number for number, point in enumerate(path) if len(point.vectors)] == [best]


class Paths:
    """Stands for a descent: the best value at each temperature is given, at the strength that is tried last."""

    def __init__(self, values):
        self.values, self.asked = values, []

    def path(self, tau, strengths, iterations, judge, start=None, patience=2):
        self.asked.append((tau, tuple(strengths), start))
        solution = np.array([tau])
        record = Descent(tau, strengths[-1], 1, 1, 0.0, 0.0, True)
        return [Point(np.zeros(1), 0.0, None), Point(solution, self.values[tau], record, solution)]


@pytest.mark.parametrize(
    ("values", "tried"),
    [
        # Values rise towards low temperatures: none above the first is tried.
        ({0.05: 0.6, 0.03: 0.7, 0.08: 0.9, 0.02: 0.8}, [0.05, 0.03, 0.02]),
        # And towards high ones: none below one that is worse.
        ({0.05: 0.6, 0.03: 0.5, 0.08: 0.7, 0.02: 0.9}, [0.05, 0.03, 0.08]),
        # The first is the best one: its neighbours on either side.
        ({0.05: 0.6, 0.03: 0.5, 0.08: 0.5, 0.02: 0.9}, [0.05, 0.03, 0.08]),
        # Equal: that tells nothing.
        ({0.05: 0.6, 0.03: 0.6, 0.08: 0.6, 0.02: 0.6}, [0.05, 0.03, 0.08, 0.02]),
    ],
)
def test_temperatures_are_tried_where_values_rise(values, tried):
    paths = Paths(values)
    found = search_paths(paths, None, (0.05, 0.03, 0.08, 0.02), (30.0, 10.0), 5)
    assert [tau for tau, _, _ in paths.asked] == tried
    assert [path[-1].value for path in found] == [values[tau] for tau in tried]
    # Near the best strength of the first, 10, from its solution.
    for _, strengths, start in paths.asked[1:]:
        assert strengths == pytest.approx((100 / 3, 10.0))
        assert start.tolist() == [0.05]
