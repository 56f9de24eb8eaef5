"""Is a difference between two systems on the same queries more than chance?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from nudge_rag.common.arrays import Float64Array, IntArray

__all__ = ["adjust_p_values", "bootstrap_interval", "randomization_p_value"]

EXACT_UP_TO = 12
VALUES_PER_CHUNK = 4_000_000
# From so many queries on, with this many of a value on average, it is drawn how often each value comes, which is the
# same in distribution and takes time by values instead of queries.
MANY_QUERIES, QUERIES_PER_VALUE = 1_000, 10


def randomization_p_value(before: ArrayLike, after: ArrayLike, *, rounds: int = 10_000, seed: int = 0) -> float:
    """Two-sided paired randomization test of the mean difference (Smucker, Allan, Carterette, CIKM 2007).

    Under the null hypothesis each query's difference is as likely with the other sign:
    p = share of sign flips s with |mean(s * (after - before))| >= |mean(after - before)|.
    All 2^n flips are counted up to 12 queries; beyond, p = (1 + hits) / (1 + rounds) over random ones.

    Args:
        before: (n,) values of the queries.
        after: (n,) values of the same queries.
        rounds: random flips.
        seed: of the flips.

    Raises:
        ValueError: shapes that differ, no queries, values that are not finite.

    Example:
        >>> randomization_p_value([0, 0, 0], [1, 1, 1])
        0.25
    """
    differences = _differences(before, after)
    differences = differences[differences != 0]  # a flipped zero is a zero: it changes no mean
    observed = abs(differences.sum()) * (1 - 1e-12)
    if not len(differences):
        return 1.0
    if len(differences) <= EXACT_UP_TO:
        signs = 1 - 2 * (np.arange(2 ** len(differences))[:, None] >> np.arange(len(differences)) & 1)
        return float((abs(signs @ differences) >= observed).mean())
    rng = np.random.default_rng(seed)
    hits = 0
    repeated = _repeated(np.abs(differences))
    if repeated is not None:
        values, counts = repeated
        for size in _chunks(rounds, len(values)):
            positive = rng.binomial(counts, 0.5, size=(size, len(values)))
            hits += int((abs((2 * positive - counts) @ values) >= observed).sum())
        return (1 + hits) / (1 + rounds)
    for size in _chunks(rounds, len(differences)):
        signs = rng.integers(0, 2, size=(size, len(differences)), dtype=np.int8) * 2 - 1
        hits += int((abs(signs @ differences) >= observed).sum())
    return (1 + hits) / (1 + rounds)


def bootstrap_interval(
    before: ArrayLike, after: ArrayLike, *, level: float = 0.95, rounds: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of ``after - before``, queries drawn with replacement.

    Args:
        before: (n,) values of the queries.
        after: (n,) values of the same queries.
        level: coverage, between 0 and 1.
        rounds: resamples.
        seed: of the resamples.

    Raises:
        ValueError: as `randomization_p_value`; a level outside (0, 1).

    Example:
        >>> bootstrap_interval([0.0, 0.5], [0.5, 1.0])
        (0.5, 0.5)
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level!r}")
    differences = _differences(before, after)
    rng = np.random.default_rng(seed)
    repeated = _repeated(differences)
    if repeated is not None:
        values, counts = repeated
        drawn = rng.multinomial(len(differences), counts / len(differences), size=rounds)
        return _interval(drawn @ values / len(differences), level)
    means = [
        differences[rng.integers(0, len(differences), size=(size, len(differences)))].mean(axis=1)
        for size in _chunks(rounds, len(differences))
    ]
    return _interval(np.concatenate(means), level)


def adjust_p_values(p_values: ArrayLike) -> Float64Array:
    """Return Holm's step-down adjustment of p-values that were looked at together (Holm, Scand. J. Stat. 1979).

    With the n values in increasing order p_1 <= ... <= p_n, the i-th becomes max over j <= i of
    min(1, (n - j + 1) * p_j), so that the chance of one false finding among all of them stays below the level.

    Args:
        p_values: (n,) values in [0, 1].

    Raises:
        ValueError: another shape, or values outside [0, 1].

    Example:
        >>> adjust_p_values([0.01, 0.04, 0.03])
        array([0.03, 0.06, 0.06])
    """
    values = np.asarray(p_values, dtype=np.float64)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"p_values must be a vector of numbers between 0 and 1, got {p_values!r}")
    order = np.argsort(values, kind="stable")
    steps = np.minimum(values[order] * np.arange(len(values), 0, -1), 1.0)
    adjusted = np.empty_like(values)
    adjusted[order] = np.maximum.accumulate(steps)
    return adjusted


def _repeated(differences: Float64Array) -> tuple[Float64Array, IntArray] | None:
    """The distinct values and how often each comes; None if queries are few or their values many."""
    if len(differences) < MANY_QUERIES:
        return None
    values, counts = np.unique(differences, return_counts=True)
    return (values, counts) if QUERIES_PER_VALUE * len(values) <= len(differences) else None


def _interval(means: Float64Array, level: float) -> tuple[float, float]:
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _differences(before: ArrayLike, after: ArrayLike) -> Float64Array:
    first, second = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1 or not first.size:
        raise ValueError(f"before and after must be values of the same queries, got {first.shape} and {second.shape}")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("before and after must be finite")
    return second - first


def _chunks(rounds: int, n: int) -> list[int]:
    size = max(1, min(rounds, VALUES_PER_CHUNK // n))
    return [min(size, rounds - start) for start in range(0, rounds, size)]
