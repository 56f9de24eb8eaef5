"""What the report of a nudge asks of the nudge, and of a learning curve beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from nudge_rag.common.arrays import FloatArray
from nudge_rag.evaluation.comparison import Comparison
from nudge_rag.evaluation.report.comparison import ReportedSystems
from nudge_rag.feedback.pairs import Split
from nudge_rag.solvers.result import Candidate, ValidationCurve
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.tuning.gate import LiveComparison
from nudge_rag.tuning.held_out import HeldOutQueries
from nudge_rag.tuning.judge import Judgement

__all__ = ["ReportContents", "ReportedCoverage", "ReportedNudge"]


class ReportedNudge(Protocol):
    """What a report shows of a `Nudge`."""

    @property
    def store(self) -> EmbeddingStore:
        """The store."""
        ...

    @property
    def ids(self) -> Sequence[str]:
        """Ids of the moved nodes."""
        ...

    @property
    def vectors(self) -> FloatArray:
        """Their moved vectors."""
        ...

    @property
    def originals(self) -> FloatArray:
        """Their original vectors."""
        ...

    @property
    def judgement(self) -> Judgement | None:
        """What the application's own pipeline answers."""
        ...

    @property
    def gamma(self) -> float:
        """The step size."""
        ...

    @property
    def curve(self) -> ValidationCurve:
        """Validation along the step size."""
        ...

    @property
    def improves(self) -> bool:
        """Whether held-out queries improve."""
        ...

    @property
    def summary(self) -> str:
        """One line."""
        ...

    @property
    def solver(self) -> str:
        """Name of the solver."""
        ...

    @property
    def comparison(self) -> Comparison | None:
        """Before and after."""
        ...

    @property
    def against_live(self) -> LiveComparison | None:
        """The new vectors against those that are live."""
        ...

    @property
    def split(self) -> Split | None:
        """The pairs."""
        ...

    @property
    def model(self) -> str | None:
        """Name of the embedding model."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """Parameters of the solver."""
        ...

    @property
    def tried(self) -> Sequence[Candidate]:
        """Settings that were tried."""
        ...

    @property
    def other_reaches(self) -> Sequence[Candidate]:
        """Rough estimates of reaches that were not tried."""
        ...


class ReportedPoint(Protocol):
    """A point of a learning curve."""

    @property
    def n_queries(self) -> int:
        """Number of labelled queries."""
        ...

    @property
    def before(self) -> float:
        """The metric untuned."""
        ...

    @property
    def after(self) -> float:
        """The metric tuned on them."""
        ...


class ReportedCoverage(Protocol):
    """What a report shows of a `LabelCoverage`."""

    @property
    def metric(self) -> str:
        """Name of the metric."""
        ...

    @property
    def curve(self) -> Sequence[ReportedPoint]:
        """The learning curve."""
        ...


@dataclass(frozen=True)
class ReportContents:
    """What a report shows beside the nudge.

    Attributes:
        evaluation: of retrievers, on held-out pairs.
        texts: node id to its text.
        losses: sentences on what is live: how it compares, and what a push would forget.
        coverage: of the labels, with a learning curve.
        held_out: rankings of the held-out queries; shown if there is no evaluation, which says the same of its own.
    """

    evaluation: ReportedSystems | None = None
    texts: Mapping[str, str] | None = None
    losses: Sequence[str] = ()
    coverage: ReportedCoverage | None = None
    held_out: HeldOutQueries | None = None
