"""The options of `nudge_rag.tune` as a type, for the functions of the integrations that pass them on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias, TypedDict

from nudge_rag.evaluation.metrics import Metric
from nudge_rag.journal.text_hashes import TextsOf
from nudge_rag.solvers.registry import Solver
from nudge_rag.tuning.competitors import CandidateMethod

__all__ = ["SolverName", "TuneOptions"]

SolverName: TypeAlias = Literal["auto", "nudge-n", "nudge-m", "nudge-contrastive"]


class TuneOptions(TypedDict, total=False):
    """Keyword arguments of `nudge_rag.tune`; a type checker refuses any other, and a solver's name that is misspelt."""

    solver: SolverName | Solver
    metrics: Sequence[str | Metric]
    split: tuple[float, float, float]
    seed: int
    versions: str | Path
    candidates: CandidateMethod
    model: str | None
    texts: TextsOf | None
    uncovered_tolerance: float | None
