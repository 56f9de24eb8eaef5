"""Choose among settings of solvers: by what tomorrow's queries are expected to gain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nudge_rag.common.arrays import Float64Array
from nudge_rag.solvers.nudge_n import NudgeN
from nudge_rag.solvers.result import Candidate, NudgeFit

__all__ = ["TriedSetting", "choose_setting", "harms_nobody", "largest_loss"]

# Standard errors of the paired difference: what noise cannot tell apart.
NOTICEABLE = 1.0
# Of the expected gain, what is enough if it spares a group of queries a significant loss; and what is if it is no less
# than NUDGE-N, the paper's own choice, is expected to gain.
ENOUGH, ENOUGH_ABOVE_NUDGE_N = 0.85, 0.7
# Expected gains that agree in so many decimals are equal: a twentieth of a point.
EQUAL_DIGITS = 3


@dataclass(frozen=True)
class TriedSetting:
    """A setting of a solver, what covered queries gain by it, and how to solve with it.

    Attributes:
        solver: name of the solver; settings of one solver stand side by side, simpler solvers first.
        candidate: the record of it.
        values: (m,) the gain of each query that judges what covered queries gain.
        share: of tomorrow's queries that are covered: what their mean weighs in the expected gain.
        final: the solver at its chosen, fixed step; None if no node moves.
        fit: the solution that was measured, without its vectors.
        has_map: whether queries or all nodes pass a map first.
    """

    solver: str
    candidate: Candidate
    values: Float64Array
    share: float
    final: Any
    fit: NudgeFit
    has_map: bool = False


def choose_setting(tried: Sequence[TriedSetting], tolerance: float | None) -> TriedSetting | None:
    """Choose the setting that tomorrow's queries are expected to gain most by; None if none is expected to gain.

    1. Settings that are not expected to gain are left out, and those that lose more than ``tolerance`` in a group of
       queries without labelled answers.
    2. Take the largest expected gain. Of the settings that are less by at most one standard error, keep those that harm
       least: by which the group that loses most loses least. Of these take the simplest solver's most careful step,
       and its setting that is expected to gain most; of equals, the one that new nodes gain most by.
    3. Without a tolerance, and if a group loses significantly by that, choose in the same way among the settings by
       which none does and that are expected to gain 0.85 times as much; or else 0.7 times as much, and no less than
       NUDGE-N. If there are none, the choice stands.
    """
    gaining = [one for one in tried if _expected(one) > 0 and (tolerance is None or one.candidate.allowed)]
    best = _preferred(gaining)
    if best is None or tolerance is not None or harms_nobody(best.candidate):
        return best
    harmless = [one for one in gaining if harms_nobody(one.candidate)]
    by_nudge_n = max((_expected(one) for one in tried if one.candidate.solver == NudgeN.name), default=math.inf)
    for enough in (ENOUGH * _expected(best), max(ENOUGH_ABOVE_NUDGE_N * _expected(best), by_nudge_n)):
        spared = _preferred([one for one in harmless if _expected(one) >= enough])
        if spared is not None:
            return spared
    return best


def harms_nobody(candidate: Candidate) -> bool:
    """Whether no group of queries loses significantly: every interval reaches 0."""
    tops = candidate.high, candidate.new_high, candidate.covered_high
    return all(high is None or high >= 0 for high in tops)


def largest_loss(candidate: Candidate) -> float:
    """The change of the group that loses most, 0 if none loses, to as many decimals as are told apart."""
    return round(min(0.0, candidate.uncovered or 0.0, candidate.new_nodes or 0.0), EQUAL_DIGITS)


def _gain_of_new_nodes(one: TriedSetting) -> float:
    return one.candidate.new_nodes or 0.0


def _preferred(settings: Sequence[TriedSetting]) -> TriedSetting | None:
    """Of those that noise cannot tell from the best one, what harms least; of these the simplest solver's best."""
    if not settings:
        return None
    best = max(settings, key=_rank)
    equal = [one for one in settings if _expected(best) - _expected(one) <= NOTICEABLE * _standard_error(one, best)]
    least = max(largest_loss(one.candidate) for one in equal)
    mildest = [one for one in equal if largest_loss(one.candidate) == least]
    first = mildest[0]
    return max((one for one in mildest if _step_of(one) == _step_of(first)), key=_rank)


def _step_of(one: TriedSetting) -> tuple[str, float]:
    return one.solver, one.candidate.gamma


def _rank(one: TriedSetting) -> tuple[float, float]:
    return round(_expected(one), EQUAL_DIGITS), _gain_of_new_nodes(one)


def _expected(one: TriedSetting) -> float:
    return one.candidate.expected or 0.0


def _standard_error(one: TriedSetting, other: TriedSetting) -> float:
    """Of the difference of two expected gains, as far as covered queries tell it."""
    differences = one.values - other.values
    return one.share * float(differences.std() / np.sqrt(len(differences)))
