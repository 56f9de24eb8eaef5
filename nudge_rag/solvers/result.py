"""What a solver returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nudge_rag.arrays import FloatArray, IntArray
from nudge_rag.solvers.devices import replaced_rows

__all__ = ["SAME_VALUE", "NudgeFit", "ValidationCurve", "first_best"]

# Two points of a curve that differ by less are the same mean, summed in another order.
SAME_VALUE = 1e-12


@dataclass(frozen=True)
class ValidationCurve:
    """Validation score along the step size.

    Attributes:
        gammas: (G,) float64, increasing, the first is 0 (nothing moved).
        values: (G,) float64, the mean of ``metric`` over the validation queries at each gamma.
        metric: the metric's name.
    """

    gammas: np.ndarray[Any, np.dtype[np.float64]]
    values: np.ndarray[Any, np.dtype[np.float64]]
    metric: str


@dataclass(frozen=True)
class NudgeFit:
    """Moved node embeddings, and how they were chosen.

    Attributes:
        solver: the solver's name.
        rows: (c,) int64, the covered rows (those with a training query), increasing.
        vectors: (c, d) their new embeddings, in the dtype, array library and device of the input.
        gamma: the step size chosen; 0 when nothing was to be gained.
        curve: the validation curve; without points when gamma was fixed and no validation queries were given.
        improved: whether validation is better at ``gamma`` than at 0 (False where it was not measured).
        at_edge: whether ``gamma`` is the largest step that was tried.
        opposed: (o,) int64, covered rows left in place because they point away from their own training queries.
        train_without_answers: training queries left out because they have no answers.
        val_without_answers: validation queries left out because they have no answers.
    """

    solver: str
    rows: IntArray
    vectors: FloatArray
    gamma: float
    curve: ValidationCurve
    improved: bool
    at_edge: bool
    opposed: IntArray
    train_without_answers: int
    val_without_answers: int
    originals: FloatArray = field(repr=False)

    def embeddings(self) -> FloatArray:
        """All node embeddings, (n, d): a copy of the input with the covered rows replaced.

        Bit for bit the input where ``gamma`` is 0.
        """
        full: FloatArray = replaced_rows(self.originals, self.rows, self.vectors)
        return full


def first_best(values: Sequence[float] | np.ndarray[Any, np.dtype[np.float64]]) -> int:
    """Index of the first value that no other exceeds by more than rounding."""
    best = 0
    for index, value in enumerate(values):
        if value > values[best] + SAME_VALUE:
            best = index
    return best
