"""Choose among settings of solvers: by what tomorrow's queries are expected to gain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nudge_rag.common.arrays import Float64Array
from nudge_rag.solvers.result import Candidate, NudgeFit

__all__ = ["TriedSetting", "choose_setting"]

# Standard errors of the paired difference: the gain that a more elaborate solver needs, and a difference that counts.
NOTICEABLE, SIGNIFICANT = 1.0, 1.96
# Shares of the best expected gain that are given up, at most: so that no group of queries is estimated to lose, and so
# that none loses significantly.
FOR_NO_LOSS, FOR_NO_SIGNIFICANT_LOSS = 0.08, 0.2
# Where every setting harms a group, its loss counts as that of so many of tomorrow's queries.
SHARE_OF_HARMED = 0.1
# Expected gains that agree in so many decimals are equal: a twentieth of a point.
EQUAL_DIGITS = 3


@dataclass(frozen=True)
class TriedSetting:
    """A setting of a solver, its value on each validation query, and how to solve with it.

    Attributes:
        solver: name of the solver; settings of one solver stand side by side, simpler solvers first.
        candidate: the record of it.
        values: (m,) the metric of each validation query.
        final: the solver at its chosen, fixed step; None if no node moves.
        fit: the solution that was measured.
        maps_queries: whether queries pass a map first.
    """

    solver: str
    candidate: Candidate
    values: Float64Array
    final: Any
    fit: NudgeFit
    maps_queries: bool = False


def choose_setting(tried: Sequence[TriedSetting], tolerance: float | None) -> TriedSetting | None:
    """Choose the setting that tomorrow's queries are expected to gain most by; None if none is expected to gain.

    1. Settings that lose more than ``tolerance`` in a group of queries without labelled answers are left out. Without
       a tolerance, none is.
    2. Of each solver, take the setting with the largest expected gain; of the solvers, the simplest one, unless a later
       one gains more by more than one standard error.
    3. Without a tolerance, and if that setting harms a group, prefer one that no group is estimated to lose by, if it
       keeps 92 % of the expected gain; or else one that none loses significantly by, if it keeps 80 % or all of it but
       for noise. Of these, take the one with the largest expected gain; of equals, the one that new
       nodes gain most by. If there is none, the loss of the group that loses most counts as a tenth of all queries'.
    """
    gaining = [one for one in tried if _expected(one) > 0 and (tolerance is None or one.candidate.allowed)]
    best = _preferred(gaining)
    if best is None or tolerance is not None:
        return best
    for harmless, share, errors in (
        (_loses_nothing, FOR_NO_LOSS, 0.0),
        (_loses_nothing_significant, FOR_NO_SIGNIFICANT_LOSS, SIGNIFICANT),
    ):
        if harmless(best):
            return best
        spared = [one for one in gaining if harmless(one) and _is_nearly_as_good(one, best, share, errors)]
        if spared:
            return max(spared, key=lambda one: (round(_expected(one), EQUAL_DIGITS), _gain_of_new_nodes(one)))
    return max(gaining, key=lambda one: _expected(one) + SHARE_OF_HARMED * _largest_loss(one))


def _largest_loss(one: TriedSetting) -> float:
    """The change of the group that loses most, 0 if none loses."""
    return min(0.0, one.candidate.uncovered or 0.0, one.candidate.new_nodes or 0.0)


def _is_nearly_as_good(one: TriedSetting, best: TriedSetting, share: float, errors: float) -> bool:
    """Whether ``one`` gives up at most that share of the expected gain of ``best``, or so many standard errors."""
    given_up = _expected(best) - _expected(one)
    return given_up <= max(share * _expected(best), errors * _standard_error(one, best))


def _gain_of_new_nodes(one: TriedSetting) -> float:
    return one.candidate.new_nodes or 0.0


def _preferred(settings: Sequence[TriedSetting]) -> TriedSetting | None:
    """Of each solver's best setting the simplest solver's, unless a later one is better by more than noise."""
    best_of_solver: dict[str, TriedSetting] = {}
    for one in settings:
        if one.solver not in best_of_solver or _expected(one) > _expected(best_of_solver[one.solver]):
            best_of_solver[one.solver] = one
    best: TriedSetting | None = None
    for one in best_of_solver.values():
        if best is None or _expected(one) - _expected(best) > NOTICEABLE * _standard_error(one, best):
            best = one
    return best


def _expected(one: TriedSetting) -> float:
    return one.candidate.expected or 0.0


def _standard_error(one: TriedSetting, other: TriedSetting) -> float:
    differences = one.values - other.values
    return float(differences.std() / np.sqrt(len(differences)))


def _loses_nothing(one: TriedSetting) -> bool:
    """Whether no group of queries without labelled answers is estimated to lose."""
    return all(change is None or change >= 0 for change in (one.candidate.uncovered, one.candidate.new_nodes))


def _loses_nothing_significant(one: TriedSetting) -> bool:
    """Whether the interval of every such group reaches 0."""
    return all(high is None or high >= 0 for high in (one.candidate.high, one.candidate.new_high))
