"""One row of a comparison of retrievers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from nudge_rag.feedback.pairs import LabeledPairs

__all__ = ["ComparedSystems", "JudgedSystems", "SystemRow"]


@dataclass(frozen=True)
class SystemRow:
    """One metric of one system on one group of queries, beside the baseline.

    Attributes:
        group: name of the group.
        metric: name of the metric.
        system: name of the retriever.
        n_queries: how many queries the group has.
        mean: of the metric; None if the group is empty.
        difference: from the baseline's mean; None for the baseline itself.
        low: lower end of the 95 % interval of the difference, by a paired bootstrap over queries.
        high: upper end of that interval.
        p_value: of a paired randomization test of the difference.
        adjusted_p_value: the same, adjusted by Holm over the systems and metrics of the group.
        wins: queries on which the system is better than the baseline.
        ties: queries on which both are equal.
        losses: queries on which the system is worse.
    """

    group: str
    metric: str
    system: str
    n_queries: int
    mean: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    adjusted_p_value: float | None = None
    wins: int | None = None
    ties: int | None = None
    losses: int | None = None


class JudgedSystems(Protocol):
    """Several systems on the same queries."""

    @property
    def systems(self) -> tuple[str, ...]:
        """Names of the systems."""
        ...

    @property
    def baseline(self) -> str:
        """The one that others are compared with."""
        ...

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics; the first one decides."""
        ...

    @property
    def pairs(self) -> LabeledPairs:
        """The queries that were judged."""
        ...

    @property
    def depth(self) -> int:
        """How many nodes of a ranking count."""
        ...


class ComparedSystems(JudgedSystems, Protocol):
    """What a table shows of a `RetrieverComparison`."""

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups of queries."""
        ...

    @property
    def rows(self) -> tuple[SystemRow, ...]:
        """All rows."""
        ...

    @property
    def sources(self) -> Mapping[str, str]:
        """Metric to what computed it."""
        ...

    @property
    def overlap(self) -> Mapping[str, float]:
        """System to its overlap with the baseline."""
        ...

    @property
    def failures(self) -> Mapping[str, Mapping[str, str]]:
        """System to query id to the error."""
        ...

    @property
    def duplicates(self) -> Mapping[str, Mapping[str, int]]:
        """System to query id to the number of repeats."""
        ...

    @property
    def excluded(self) -> Sequence[str]:
        """Ids of the queries that were left out."""
        ...

    def row(self, system: str, metric: object, group: str = "all") -> SystemRow:
        """One row."""
        ...

    def mean(self, system: str, metric: object, group: str = "all") -> float:
        """One mean."""
        ...
