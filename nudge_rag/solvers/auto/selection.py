"""Choose among settings of solvers: by what tomorrow's queries are expected to gain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nudge_rag.common.arrays import Float64Array
from nudge_rag.solvers.result import Candidate, NudgeFit

__all__ = ["TriedSetting", "choose_setting"]

# Standard errors of the paired difference: the gain that a more elaborate solver needs, and that no harm may cost.
NOTICEABLE = 1.0
# The loss of the group that loses most counts as that of at least so many of tomorrow's queries: labels of today know
# nothing of the documents that are to come.
SHARE_OF_HARMED = 0.1
# Expected gains that agree in so many decimals are equal: a twentieth of a point.
EQUAL_DIGITS = 3


@dataclass(frozen=True)
class TriedSetting:
    """A setting of a solver, what covered queries gain by it, and how to solve with it.

    Attributes:
        solver: name of the solver; settings of one solver stand side by side, simpler solvers first.
        candidate: the record of it.
        values: (m,) the gain of each query that judges what covered queries gain.
        final: the solver at its chosen, fixed step; None if no node moves.
        fit: the solution that was measured.
        has_map: whether queries or all nodes pass a map first.
    """

    solver: str
    candidate: Candidate
    values: Float64Array
    final: Any
    fit: NudgeFit
    has_map: bool = False


def choose_setting(tried: Sequence[TriedSetting], tolerance: float | None) -> TriedSetting | None:
    """Choose the setting that tomorrow's queries are expected to gain most by; None if none is expected to gain.

    1. Settings that are not expected to gain are left out, and those that lose more than ``tolerance`` in a group of
       queries without labelled answers. Without a tolerance, the loss of the group that loses most is taken from the
       expected gain instead, as that of a tenth of all queries.
    2. Of each solver, take the setting that is worth most by that; of equals, the one that new nodes gain most by.
    3. Of the solvers, take the simplest one, unless a later one is worth more by more than one standard error, or is
       worth more and harms less.
    4. Without a tolerance, and if a group loses significantly by that, take the setting that is worth most of those by
       which none does, if it is worth as much but for one standard error.
    """
    gaining = [one for one in tried if _expected(one) > 0 and (tolerance is None or one.candidate.allowed)]
    if tolerance is not None:
        return _preferred(gaining, _expected)
    best = _preferred(gaining, _worth)
    if best is None or _harms_nobody(best):
        return best
    spared = _preferred([one for one in gaining if _harms_nobody(one)], _worth)
    if spared is None or _worth(best) - _worth(spared) > NOTICEABLE * _standard_error(spared, best):
        return best
    return spared


def _harms_nobody(one: TriedSetting) -> bool:
    """Whether no group of queries without labelled answers loses significantly: every interval reaches 0."""
    return all(high is None or high >= 0 for high in (one.candidate.high, one.candidate.new_high))


def _worth(one: TriedSetting) -> float:
    """The expected gain, less what a tenth of all queries lose if they are of the group that loses most."""
    return _expected(one) + SHARE_OF_HARMED * _largest_loss(one)


def _largest_loss(one: TriedSetting) -> float:
    """The change of the group that loses most, 0 if none loses."""
    return min(0.0, one.candidate.uncovered or 0.0, one.candidate.new_nodes or 0.0)


def _gain_of_new_nodes(one: TriedSetting) -> float:
    return one.candidate.new_nodes or 0.0


def _preferred(settings: Sequence[TriedSetting], worth: Callable[[TriedSetting], float]) -> TriedSetting | None:
    """Of each solver's best setting the simplest solver's, unless a later one is better by more than noise or harm."""
    best_of_solver: dict[str, TriedSetting] = {}
    for one in settings:
        rank = (round(worth(one), EQUAL_DIGITS), _gain_of_new_nodes(one))
        known = best_of_solver.get(one.solver)
        if known is None or rank > (round(worth(known), EQUAL_DIGITS), _gain_of_new_nodes(known)):
            best_of_solver[one.solver] = one
    best: TriedSetting | None = None
    for one in best_of_solver.values():
        if best is None or _is_better(one, best, worth(one) - worth(best)):
            best = one
    return best


def _is_better(one: TriedSetting, best: TriedSetting, by: float) -> bool:
    """Whether a later solver's setting, worth more ``by`` so much, is to be preferred."""
    harms_less = _largest_loss(one) > _largest_loss(best)
    return by > NOTICEABLE * _standard_error(one, best) or (by > 0 and harms_less)


def _expected(one: TriedSetting) -> float:
    return one.candidate.expected or 0.0


def _standard_error(one: TriedSetting, other: TriedSetting) -> float:
    differences = one.values - other.values
    return float(differences.std() / np.sqrt(len(differences)))
