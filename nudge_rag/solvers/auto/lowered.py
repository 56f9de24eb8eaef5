"""Any solver with a fixed step, and the scores of the nodes that it moves lowered afterwards."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from nudge_rag.common.arrays import FloatArray
from nudge_rag.solvers.contrastive.offset import common_direction, lower_scores
from nudge_rag.solvers.labels import LabeledQueries, LabelsLike
from nudge_rag.solvers.result import NudgeFit

__all__ = ["FixedSolver", "LoweredSolver", "query_vectors_of"]


class FixedSolver(Protocol):
    """A solver that needs no validation queries."""

    def fit(self, embeddings: ArrayLike, train: LabelsLike, val: None = None, *, background: Any = None) -> NudgeFit:
        """Moved embeddings of the covered rows."""
        ...


@dataclass(frozen=True)
class LoweredSolver:
    """Solve, then lower the scores of moved nodes by about a cosine of ``offset`` (`lower_scores`).

    Attributes:
        solver: one with a fixed step.
        offset: at least 0.
        keep_lengths: whether moved nodes keep the lengths that they have.
    """

    solver: FixedSolver
    offset: float
    keep_lengths: bool

    def fit(self, embeddings: ArrayLike, train: LabelsLike, val: None = None, *, background: Any = None) -> NudgeFit:
        """Arguments, errors and warnings as `NudgeN.fit`."""
        fit = self.solver.fit(embeddings, train, background=background)
        direction = common_direction(query_vectors_of(train))
        return replace(fit, vectors=lower_scores(fit.vectors, direction, self.offset, keep_lengths=self.keep_lengths))


def query_vectors_of(labels: LabelsLike) -> FloatArray:
    """The queries (m, d) of any labels."""
    return np.asarray(labels.vectors if isinstance(labels, LabeledQueries) else labels[0])
