"""Search temperatures and strengths for the points that validation gains by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nudge_rag.common.arrays import Float64Array
from nudge_rag.solvers.contrastive.descent import ContrastiveDescent, Point
from nudge_rag.solvers.result import SAME_VALUE, first_best
from nudge_rag.solvers.scoring.validation import ValidationScorer

__all__ = ["gammas_of", "search_paths", "worth_averaging"]

# The best strength hardly depends on the temperature: after the first path, only these multiples of it are tried.
NEARBY = (10 / 3, 1.0)


def search_paths(
    descent: ContrastiveDescent,
    judge: ValidationScorer,
    taus: Sequence[float],
    strengths: Sequence[float],
    iterations: int,
) -> list[list[Point]]:
    """One path for each temperature: the whole of it for the first, near its best strength for the others.

    Values rise and fall once along the temperatures: one beyond a temperature that is worse than the first is left
    out, and so is one on the other side of the first than a better temperature.
    """
    paths = [descent.path(taus[0], strengths, iterations, judge)]
    best = paths[0][first_best([point.value for point in paths[0]])]
    if best.descent is not None:
        strengths = tuple(share * best.descent.strength for share in NEARBY)
    better: list[float] = []
    worse: list[float] = []
    for tau in taus[1:]:
        if any(tau < bound < taus[0] or taus[0] < bound < tau for bound in worse):
            continue
        if any(tau < taus[0] < bound or bound < taus[0] < tau for bound in better):
            continue
        paths.append(descent.path(tau, strengths, iterations, judge, best.solution, patience=1))
        top = max(point.value for point in paths[-1])
        if top < best.value - SAME_VALUE:
            worse.append(tau)
        elif top > best.value + SAME_VALUE:
            better.append(tau)
    return paths


def worth_averaging(descent: ContrastiveDescent, judge: ValidationScorer, tops: Sequence[Point]) -> list[Point]:
    """The best of ``tops``, which come from the best down, and every further one that validation gains by."""
    parts, value = [tops[0]], tops[0].value
    for point in tops[1:]:
        if tops[0].descent is None or point.descent is None:
            break
        together = judge.value(descent.averaged([part.vectors for part in [*parts, point]]))
        if together > value + SAME_VALUE:
            parts, value = [*parts, point], together
    return parts


def gammas_of(path: Sequence[Point]) -> Float64Array:
    """1 / strength of each point, 0 for the untouched nodes."""
    return np.array([0.0 if point.descent is None else 1 / point.descent.strength for point in path])
