"""The solvers by name, and what every one of them offers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from nudge_rag.common.similarity import Similarity
from nudge_rag.evaluation.metrics import Metric
from nudge_rag.solvers.auto.solver import AutoSolver, Reach
from nudge_rag.solvers.contrastive.solver import NudgeContrastive
from nudge_rag.solvers.labels import LabelsLike
from nudge_rag.solvers.needs import SolverNeeds
from nudge_rag.solvers.nudge_m import NudgeM
from nudge_rag.solvers.nudge_n import NudgeN
from nudge_rag.solvers.result import NudgeFit

__all__ = ["SOLVERS", "Solver", "resolve_solver", "solver_settings"]

# NUDGE's own solvers choose their step by top-1 accuracy, as the paper does.
SOLVERS: dict[str, Callable[[str | Metric, Similarity, float | None], Solver]] = {
    "auto": lambda metric, similarity, tolerance: AutoSolver(metric=metric, similarity=similarity, tolerance=tolerance),
    "nudge-n": lambda metric, similarity, tolerance: NudgeN(similarity=similarity),
    "nudge-m": lambda metric, similarity, tolerance: NudgeM(similarity=similarity),
    "nudge-contrastive": lambda metric, similarity, tolerance: NudgeContrastive(metric=metric, similarity=similarity),
}


class Solver(Protocol):
    """What `tune` asks of a solver object.

    ``val.competitors`` holds the scores of the best nodes outside ``embeddings``, ``needs.depth`` deep; they compete in
    validation. So does ``train.competitors``, ``needs.train_depth`` deep.
    """

    name: str
    similarity: Similarity

    @property
    def needs(self) -> SolverNeeds:
        """What of the labels the solver looks at."""
        ...

    def fit(self, embeddings: ArrayLike, train: LabelsLike, val: LabelsLike | None = None) -> NudgeFit:
        """Move the embeddings of the covered rows."""
        ...


def resolve_solver(
    solver: str | Solver,
    store_name: str,
    similarity: Similarity,
    metric: str | Metric = "nDCG@10",
    tolerance: float | None = None,
    reach: Reach = "labelled",
    uncovered_share: float | None = None,
) -> Solver:
    """Return the solver of that name, or the object itself, if it suits how the store ranks.

    Args:
        solver: a name of `SOLVERS`, or an object with ``fit`` and ``needs``.
        store_name: of the store, for error messages.
        similarity: how the store ranks.
        metric: what ``"auto"`` and ``"nudge-contrastive"`` choose by.
        tolerance: of ``"auto"``.
        reach: of ``"auto"``.
        uncovered_share: of ``"auto"``.

    Raises:
        TypeError: ``solver`` is no solver: it has no ``fit``, or does not declare its ``needs``.
        ValueError: no solver has that name, the solver scores by another similarity than the store's, or an option of
            ``"auto"`` is given to another one, which would not heed it.
    """
    if solver != "auto":
        _refuse_options_of_auto(solver, tolerance, reach, uncovered_share)
    if solver == "auto":
        return AutoSolver(
            metric=metric, similarity=similarity, tolerance=tolerance, reach=reach, uncovered_share=uncovered_share
        )
    if isinstance(solver, str):
        if solver not in SOLVERS:
            raise ValueError(f"solver must be one of {', '.join(SOLVERS)} or an object with fit, got {solver!r}")
        return SOLVERS[solver](metric, similarity, tolerance)
    if not callable(getattr(solver, "fit", None)):
        raise TypeError(f"solver must be a name or an object with fit, got {type(solver).__name__}")
    if not isinstance(getattr(solver, "needs", None), SolverNeeds):
        raise TypeError(
            f"{type(solver).__name__} does not say what it needs: give it an attribute needs = SolverNeeds(depth=...)"
        )
    if isinstance(solver, NudgeM):
        NudgeM(similarity=similarity)  # raises with what to do instead
    if solver.similarity != similarity:
        raise ValueError(
            f"the solver scores by {solver.similarity} but {store_name} ranks by {similarity}:"
            f" make it with similarity={similarity!r}"
        )
    return solver


def _refuse_options_of_auto(
    solver: object, tolerance: float | None, reach: Reach, uncovered_share: float | None
) -> None:
    asked = None if reach == "labelled" else reach
    given = {"uncovered_tolerance": tolerance, "uncovered_share": uncovered_share, "reach": asked}
    for option, value in given.items():
        if value is not None:
            name = solver if isinstance(solver, str) else type(solver).__name__
            raise ValueError(f"{option}={value!r} needs solver='auto', got {name!r} (an AutoSolver has its own)")


def solver_settings(solver: Solver) -> dict[str, Any]:
    """A solver's name and its public attributes, in the types of JSON: numbers, strings, and lists of them.

    Example:
        >>> settings = solver_settings(NudgeN(metric="nDCG@10", gammas=[0.1, 0.2]))
        >>> settings["solver"], settings["metric"], settings["gammas"]
        ('nudge-n', 'nDCG@10', [0.0, 0.1, 0.2])
    """
    public = {
        name: value
        for name, value in vars(solver).items()
        if not name.startswith("_") and name != "needs" and not callable(value)
    }
    return {"solver": solver.name} | {name: _as_json(value) for name, value in public.items()}


def _as_json(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_as_json(one) for one in value]
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)  # JSON has no infinity
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
