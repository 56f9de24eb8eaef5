"""The options of `nudge_rag.tune` and `nudge_rag.TuningState`, as types and with their defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypedDict

from nudge_rag.common.unknown_options import refuse_unknown_options
from nudge_rag.evaluation.metrics import Metric, parse_metric
from nudge_rag.journal.text_hashes import TextsOf
from nudge_rag.solvers.auto.solver import Reach
from nudge_rag.solvers.registry import Solver
from nudge_rag.tuning.competitors import CompetitorMethod
from nudge_rag.tuning.judge import Judge, check_judge

__all__ = ["DEFAULT_METRICS", "DEFAULT_SPLIT", "SolverName", "StateOptions", "TuneOptions", "TuneSettings"]

SolverName: TypeAlias = Literal["auto", "nudge-n", "nudge-m", "nudge-contrastive"]

DEFAULT_METRICS = ("nDCG@10", "Recall@1", "Recall@10")
DEFAULT_SPLIT = (0.7, 0.1, 0.2)


class StateOptions(TypedDict, total=False):
    """Keyword arguments of `nudge_rag.TuningState`, and of `nudge_rag.tune` among others."""

    solver: SolverName | Solver
    metrics: Sequence[str | Metric]
    split: tuple[float, float, float]
    seed: int
    versions: str | Path | None
    competitors: CompetitorMethod
    uncovered_tolerance: float | None
    uncovered_share: float | None
    reach: Reach
    texts: TextsOf | None
    documents: TextsOf | None


class TuneOptions(StateOptions, total=False):
    """Keyword arguments of `nudge_rag.tune`; a type checker refuses any other, and a solver's name that is misspelt."""

    model: str | None
    judge: Judge | None


@dataclass(frozen=True)
class TuneSettings:
    """The options of one call, checked, with the defaults of those that were not given.

    Attributes:
        solver: a name or a solver object.
        metrics: parsed; the first one decides.
        split: fractions for training, validation and test.
        seed: of the split.
        versions: folder of the saved originals; None for the history that the store itself holds.
        competitors: how the best unlabelled nodes are found.
        model: name of the embedding model.
        texts: node ids to their texts.
        documents: node ids to the ids of their documents.
        judge: the application's own pipeline, which decides.
        uncovered_tolerance: of ``"auto"``.
        uncovered_share: of ``"auto"``.
        reach: whom labels may help.
    """

    solver: str | Solver = "auto"
    metrics: tuple[Metric, ...] = tuple(parse_metric(name) for name in DEFAULT_METRICS)
    split: tuple[float, float, float] = DEFAULT_SPLIT
    seed: int = 0
    versions: Path | None = None
    competitors: CompetitorMethod = "auto"
    model: str | None = None
    texts: TextsOf | None = None
    documents: TextsOf | None = None
    judge: Judge | None = None
    uncovered_tolerance: float | None = None
    uncovered_share: float | None = None
    reach: Reach = "labelled"

    @classmethod
    def from_options(cls, function: str, options: Mapping[str, Any]) -> TuneSettings:
        """Check the keyword arguments of ``function``.

        Raises:
            TypeError: an option that does not exist; a judge that is no function.
            ValueError: no metric, or one that does not exist.

        Example:
            >>> TuneSettings.from_options("tune", {"seed": 3}).seed
            3
            >>> TuneSettings.from_options("tune", {"sed": 3})
            Traceback (most recent call last):
            ...
            TypeError: tune() has no option 'sed'; did you mean 'seed'?
        """
        refuse_unknown_options(function, options, [option.name for option in fields(cls)])
        settings = cls(**options)
        if not settings.metrics:
            raise ValueError("metrics must name at least one metric, such as 'nDCG@10'")
        if settings.judge is not None:
            check_judge(settings.judge)
        metrics = tuple(parse_metric(metric) for metric in settings.metrics)
        folder = None if settings.versions is None else Path(settings.versions)
        return cls(**{**options, "metrics": metrics, "versions": folder})
