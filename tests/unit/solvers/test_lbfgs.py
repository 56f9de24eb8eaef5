"""The optimiser: minima that are known, those that SciPy finds, and what it does where there is no way down."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nudge_rag.solvers.contrastive.lbfgs import minimize


class Counted:
    """A function with what it was asked for and what it gave."""

    def __init__(self, function):
        self.function, self.values = function, []

    def __call__(self, point):
        value, gradient = self.function(point)
        self.values.append(value)
        return value, gradient


def quadratic(matrix, centre):
    def function(point):
        off = point - centre
        return 0.5 * float(off @ matrix @ off), matrix @ off

    return function


def rosenbrock(point):
    x, y = point
    gradient = np.array([-400 * x * (y - x * x) - 2 * (1 - x), 200 * (y - x * x)])
    return float(100 * (y - x * x) ** 2 + (1 - x) ** 2), gradient


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.floats(0, 3), st.floats(-3, 3))
def test_quadratics(seed, n, condition, guess):
    """Of any condition up to 1000, and any guess of the curvature."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(n, n)))[0]
    matrix = turn @ np.diag(10 ** rng.uniform(0, condition, size=n)) @ turn.T
    centre = rng.normal(size=n)
    function = Counted(quadratic(matrix, centre))
    found = minimize(function, np.zeros(n), curvature=10**guess, iterations=500, tolerance=0.0, memory=10)
    np.testing.assert_allclose(found.point, centre, atol=1e-4)
    assert found.value == quadratic(matrix, centre)(found.point)[0] == min(function.values)
    assert found.evaluations == len(function.values) > found.iterations


def test_a_guess_of_the_curvature_for_each_row():
    """Of rows whose curvatures lie a factor of 10,000 apart: right guesses lead there at once, one for all does not."""
    curvature = np.array([[1.0], [100.0], [10_000.0]])
    centre = np.array([[1.0, 2.0], [-3.0, 0.5], [0.1, 4.0]])

    def function(point):
        off = point - centre
        return 0.5 * float((curvature * off**2).sum()), curvature * off

    options = {"iterations": 50, "tolerance": 1e-12}
    found = minimize(function, np.zeros((3, 2)), curvature=curvature, **options)
    np.testing.assert_allclose(found.point, centre, rtol=1e-9)
    assert found.iterations <= 2
    assert minimize(function, np.zeros((3, 2)), curvature=100.0, **options).iterations > 5
    # The guesses' proportions outlive a wrong scale.
    scaled = minimize(function, np.zeros((3, 2)), curvature=7 * curvature, **options)
    np.testing.assert_allclose(scaled.point, centre, rtol=1e-9)
    assert scaled.iterations <= 3


def test_a_valley_that_is_not_convex():
    found = minimize(rosenbrock, np.array([-1.2, 1.0]), curvature=1.0, iterations=200, tolerance=0.0)
    np.testing.assert_allclose(found.point, [1, 1], atol=1e-6)
    assert found.converged


def test_any_shape_and_the_start_is_left_alone():
    start = np.ones((3, 2))
    found = minimize(lambda x: (float((x**4).sum()), 4 * x**3), start, curvature=4.0, iterations=100, tolerance=1e-12)
    assert found.point.shape == found.gradient.shape == (3, 2)
    assert np.abs(found.point).max() < 0.05
    assert start.tolist() == np.ones((3, 2)).tolist()


def test_it_ends_where_there_is_no_way_down():
    flat = Counted(lambda x: (0.0, np.zeros_like(x)))
    found = minimize(flat, np.ones(2), curvature=1.0, iterations=10, tolerance=0.1)
    assert (found.iterations, found.converged, found.point.tolist()) == (0, True, [1.0, 1.0])
    wrong = minimize(lambda x: (float(x @ x), -2 * x), np.ones(2), curvature=1.0, iterations=10, tolerance=0.0)
    assert (wrong.iterations, wrong.point.tolist()) == (0, [1.0, 1.0]), "a gradient that points the wrong way"


def test_it_steps_back_from_where_the_function_is_not_finite():
    def function(x):
        with np.errstate(invalid="ignore", divide="ignore"):
            return float(np.where(x > 0, x - np.log(x), np.inf).sum()), 1 - 1 / x

    found = minimize(function, np.array([0.1, 5.0]), curvature=0.01, iterations=100, tolerance=0.0)
    np.testing.assert_allclose(found.point, 1, atol=1e-6)


def test_iterations_and_tolerance():
    function = quadratic(np.diag([1.0, 30.0, 900.0]), np.array([1.0, 1.0, 1.0]))
    few = minimize(function, np.zeros(3), curvature=900.0, iterations=3, tolerance=0.0)
    assert (few.iterations, few.converged) == (3, False)
    loose, tight = (
        minimize(function, np.zeros(3), curvature=900.0, iterations=100, tolerance=tolerance)
        for tolerance in (0.5, 1e-9)
    )
    assert loose.converged
    assert tight.converged
    assert loose.iterations < tight.iterations
    assert loose.value > tight.value


def test_single_precision_stays_single():
    matrix, centre = np.diag([1.0, 30.0]).astype(np.float32), np.array([2.0, -1.0], dtype=np.float32)
    start = np.zeros(2, dtype=np.float32)
    found = minimize(quadratic(matrix, centre), start, curvature=30.0, iterations=50, tolerance=0.0)
    assert found.point.dtype == found.gradient.dtype == np.float32
    np.testing.assert_allclose(found.point, centre, atol=1e-4)
    assert start.tolist() == [0.0, 0.0]


def test_the_minima_that_scipy_finds():
    """A softmax regression with a penalty, from the same start."""
    optimize = pytest.importorskip("scipy.optimize", reason="compared with SciPy's L-BFGS-B")
    rng = np.random.default_rng(0)
    queries, answers = rng.normal(size=(200, 5)), rng.integers(0, 4, size=200)

    def function(flat):
        weights = flat.reshape(4, 5)
        logits = queries @ weights.T
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        loss = -np.log(shares[np.arange(200), answers]).sum() + (weights**2).sum()
        shares[np.arange(200), answers] -= 1
        return float(loss), (shares.T @ queries + 2 * weights).ravel()

    theirs = optimize.minimize(function, np.zeros(20), jac=True, method="L-BFGS-B", options={"ftol": 1e-15})
    ours = minimize(function, np.zeros(20), curvature=50.0, iterations=100, tolerance=1e-15)
    assert ours.value == pytest.approx(theirs.fun, rel=1e-10)
    np.testing.assert_allclose(ours.point, theirs.x, atol=1e-5)
