"""Which setting of a solver to take: bold enough to gain, careful enough not to harm uncovered queries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nudge_rag.common.arrays import Float64Array
from nudge_rag.solvers.result import Candidate, NudgeFit

__all__ = ["TriedSetting", "preferred_setting", "search_setting"]

# Standard errors: what a more elaborate solver must gain, and what a more careful setting may at most lose. A single
# query's loss is one of them.
NOTICEABLE, SIGNIFICANT = 1.0, 1.96


@dataclass(frozen=True)
class TriedSetting:
    """A setting of a solver, what it is worth on each validation query, and how to solve with it."""

    solver: str
    candidate: Candidate
    values: Float64Array
    final: Any  # the solver at its chosen, fixed step
    fit: NudgeFit


def search_setting(
    at: Callable[[float], TriedSetting], settings: Sequence[float], tolerance: float | None, halvings: int
) -> tuple[list[TriedSetting], TriedSetting | None]:
    """Try ``settings``, from the boldest on: all that were tried, and the one to take, if any.

    That is the boldest one allowed. Without a tolerance of the user's, one that is not estimated to lose anything is
    preferred to it, or at least one that loses less, as long as validation cannot tell the two apart.
    """
    tried: dict[float, TriedSetting] = {}

    def measured(setting: float) -> TriedSetting:
        if setting not in tried:
            tried[setting] = at(setting)
        return tried[setting]

    found = _boldest(measured, settings, lambda one: one.candidate.allowed, halvings)
    if found is None:
        return [*tried.values()], None
    if tolerance is None and _loses(measured(found)):
        found = _more_careful(measured, found, settings, halvings)
    return [*tried.values()], measured(found)


def _more_careful(
    measured: Callable[[float], TriedSetting], boldest: float, settings: Sequence[float], halvings: int
) -> float:
    """The boldest setting from there on that loses nothing; else the last one that is worth as much."""
    alike = [boldest]

    def from_there_on() -> Iterator[float]:
        yield boldest
        for setting in settings:
            if abs(setting - settings[0]) <= abs(boldest - settings[0]):
                continue
            if _exceeds(measured(boldest).values - measured(setting).values, SIGNIFICANT):
                return
            alike.append(setting)
            yield setting

    harmless = _boldest(measured, from_there_on(), lambda one: not _loses(one), halvings)
    return alike[-1] if harmless is None else harmless


def _boldest(
    measured: Callable[[float], TriedSetting],
    settings: Iterable[float],
    good: Callable[[TriedSetting], bool],
    halvings: int,
) -> float | None:
    """The first good setting; then the way between it and the last one that is not is halved a few times."""
    refused: list[float] = []
    for setting in settings:
        if good(measured(setting)):
            break
        refused.append(setting)
    else:
        return None
    for _ in range(halvings if refused else 0):
        middle = (refused[-1] + setting) / 2
        if good(measured(middle)):
            setting = middle
        else:
            refused.append(middle)
    return setting


def _loses(one: TriedSetting) -> bool:
    """Whether the estimate for uncovered queries, where there is one, is a loss."""
    return one.candidate.uncovered is not None and one.candidate.uncovered < 0


def _exceeds(differences: Float64Array, errors: float) -> bool:
    """Whether their mean is above so many of its standard errors."""
    return bool(differences.mean() > errors * differences.std() / np.sqrt(len(differences)))


def preferred_setting(standing: Sequence[TriedSetting]) -> TriedSetting | None:
    """Of one setting a solver the simplest one's, unless a later one is better by more than noise; None for nothing."""
    best: TriedSetting | None = None
    for one in standing:
        if best is None or _exceeds(one.values - best.values, NOTICEABLE):
            best = one
    return best if best is not None and best.candidate.gamma > 0 else None
