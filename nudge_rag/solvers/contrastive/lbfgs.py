"""Limited-memory BFGS, on numpy alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nudge_rag.common.arrays import FloatArray

__all__ = ["Minimum", "minimize"]

# A step must keep this share of the decrease that the gradient promises.
SUFFICIENT_DECREASE = 1e-4
# Of a step that does not, at least and at most so much is tried next.
SHORTEST, LONGEST = 0.1, 0.5
TRIES = 20
# Changes of the gradient along a step that are smaller than this, relative to both, say nothing of the curvature.
LEAST_CURVATURE = 1e-10


@dataclass(frozen=True)
class Minimum:
    """Where a descent ended.

    Attributes:
        point: the last point, of the start's shape.
        value: of the function there.
        gradient: of the function there.
        iterations: how many steps were taken.
        evaluations: how often the function was asked.
        converged: whether the last step improved the function by less than the tolerance, or there is no step that
            does, rather than the iterations having run out.
    """

    point: FloatArray
    value: float
    gradient: FloatArray
    iterations: int
    evaluations: int
    converged: bool


def minimize(
    function: Callable[[FloatArray], tuple[float, FloatArray]],
    start: FloatArray,
    *,
    curvature: float | FloatArray,
    iterations: int,
    tolerance: float,
    memory: int = 5,
) -> Minimum:
    """Descend on ``function``, which gives its value and gradient, by L-BFGS with a backtracking line search.

    The two-loop recursion over the last ``memory`` steps (Nocedal and Wright, Numerical Optimization, Algorithms 3.1,
    7.4 and 7.5). Not SciPy's L-BFGS-B: that takes a first step of length 1, which here costs three evaluations, and its
    own BLAS threads take the cores from numpy's; the descent takes more than twice as long with it.

    Args:
        function: of an array of the shape of ``start``.
        start: where to begin; all is computed in its precision.
        curvature: a positive guess of the second derivative, by which the first step is divided; or one for each
            coordinate, in any shape that spreads over the point's: later steps keep their proportions.
        iterations: at most so many steps.
        tolerance: end after a step that improves the function by less than this, relative to its value.
        memory: how many steps are remembered.

    Example:
        >>> found = minimize(lambda x: (float((x - 3) @ (x - 3)), 2 * (x - 3)), np.zeros(2), curvature=1.0,
        ...                  iterations=20, tolerance=1e-12)
        >>> found.point.tolist(), found.converged
        ([3.0, 3.0], True)
    """
    point, (value, gradient) = start, function(start)
    steps: deque[tuple[FloatArray, FloatArray, float]] = deque(maxlen=memory)
    evaluations = 1
    for iteration in range(iterations):
        direction = _times_inverse(gradient, steps, curvature)
        np.negative(direction, out=direction)
        slope = float(np.vdot(gradient, direction))
        share, tries, (new_value, new_gradient) = _search(function, point, value, direction, slope)
        evaluations += tries
        if share == 0:
            return Minimum(point, value, gradient, iteration, evaluations, converged=True)
        direction *= share
        step, change = direction, new_gradient - gradient
        along = float(np.vdot(step, change))
        if along > LEAST_CURVATURE * float(np.linalg.norm(step)) * float(np.linalg.norm(change)):
            steps.append((step, change, along))
        improved = (value - new_value) / max(abs(value), abs(new_value), 1.0)
        point, value, gradient = point + step, new_value, new_gradient
        if improved < tolerance:
            return Minimum(point, value, gradient, iteration + 1, evaluations, converged=True)
    return Minimum(point, value, gradient, iterations, evaluations, converged=False)


def _times_inverse(
    gradient: FloatArray, steps: deque[tuple[FloatArray, FloatArray, float]], curvature: float | FloatArray
) -> FloatArray:
    """The gradient times the inverse of the Hessian that the remembered steps speak of."""
    rest, shares = gradient.copy(), []
    for step, change, along in reversed(steps):
        share = float(np.vdot(step, rest)) / along
        shares.append(share)
        rest -= share * change
    rest /= curvature
    if steps:
        _, change, along = steps[-1]
        rest *= along / float(np.vdot(change, change / curvature))
    for (step, change, along), share in zip(steps, reversed(shares), strict=True):
        rest += step * (share - float(np.vdot(change, rest)) / along)
    return rest


def _search(
    function: Callable[[FloatArray], tuple[float, FloatArray]],
    point: FloatArray,
    value: float,
    direction: FloatArray,
    slope: float,
) -> tuple[float, int, tuple[float, FloatArray]]:
    """What share of ``direction`` to go, 0 if none is an improvement; tries, and the function there."""
    share = 1.0
    for tries in range(1, TRIES + 1):
        found, gradient = function(point + share * direction)
        if found <= value + SUFFICIENT_DECREASE * share * slope and slope < 0:
            return share, tries, (found, gradient)
        # Where the parabola through the two values and the slope has its lowest point.
        bend = found - value - share * slope
        lowest = -slope * share * share / (2 * bend) if np.isfinite(bend) and bend > 0 else 0.0
        share = min(max(lowest, SHORTEST * share), LONGEST * share)
    return 0.0, TRIES, (value, direction)
