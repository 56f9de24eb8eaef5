"""Student's t distribution, for intervals that rest on few observations."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

__all__ = ["NORMAL", "students_t"]

LEVEL = 0.95
# The quantile of the normal distribution that t comes to, and from how many degrees of freedom on it is near enough
# for an expansion in powers of their inverse.
NORMAL = 1.959963984540054
MANY = 200


@lru_cache(maxsize=1024)
def students_t(degrees: int) -> float:
    """Standard errors on either side of a mean that its 95 % interval takes in: Student's t quantile at 0.975.

    Up to 200 degrees of freedom by bisection of the finite sums for P(|T| <= t), beyond by the expansion about the
    normal quantile.

    Args:
        degrees: of freedom: one less than there are observations.

    Raises:
        ValueError: there are none: one observation says nothing of the spread.

    References:
        Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4 (sums), 26.7.5 (expansion).

    Example:
        >>> [round(students_t(degrees), 3) for degrees in (1, 2, 10, 100, 100_000)]
        [12.706, 4.303, 2.228, 1.984, 1.96]
    """
    if degrees < 1:
        raise ValueError(f"Student's t needs at least one degree of freedom, got {degrees}")
    if degrees > MANY:
        z = NORMAL
        first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
        return z + first / degrees + second / degrees**2
    low, high = NORMAL, 13.0
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return middle
        low, high = (middle, high) if _probability_within(middle, degrees) < LEVEL else (low, middle)


def _probability_within(t: float, degrees: int) -> float:
    """P(|T| <= t) by powers of the cosine of the angle whose tangent is t / sqrt(degrees)."""
    angle = math.atan(t / math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    is_odd = degrees % 2 == 1
    # Each term is the one before it, times (k - 1) / k for every second k, and times cosine squared.
    steps = np.arange(3 if is_odd else 2, degrees - 1, 2)
    terms = np.cumprod(np.concatenate([[1.0], (steps - 1) / steps * cosine**2]))
    if not is_odd:
        return float(sine * terms.sum())
    series = 0.0 if degrees == 1 else sine * cosine * float(terms.sum())
    return 2 / math.pi * (angle + series)
