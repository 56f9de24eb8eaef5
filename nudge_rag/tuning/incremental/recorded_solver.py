"""The solver of a `TuningState` in its folder: a name, and the options that belong to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast, get_args

from nudge_rag.common.archive import CorruptArchiveError
from nudge_rag.solvers.auto.solver import Reach
from nudge_rag.solvers.registry import SOLVERS, Solver, solver_settings
from nudge_rag.tuning.options import StateOptions, TuneSettings

__all__ = ["describe_solver", "with_recorded_solver"]

# In the manifest. `NAME` is that of a solver object if `IS_OWN`, whose settings only its application knows.
SOLVER, NAME, IS_OWN, OPTIONS = "solver", "name", "is_own", "options"
NUMBERS = ("uncovered_tolerance", "uncovered_share")


def describe_solver(settings: TuneSettings, solver: Solver) -> dict[str, Any]:
    """Return what a manifest says of the solver that these settings name, or that they hold.

    Example:
        >>> from nudge_rag import NudgeN
        >>> described = describe_solver(TuneSettings(solver="nudge-n"), NudgeN())
        >>> described
        {'solver': {'name': 'nudge-n', 'is_own': False, 'options': {}}}
        >>> describe_solver(TuneSettings(solver=NudgeN(gamma=0.1)), NudgeN(gamma=0.1))["solver"]["is_own"]
        True
    """
    options: dict[str, Any] = {name: getattr(settings, name) for name in NUMBERS}
    options = {name: value for name, value in options.items() if value is not None}
    if settings.reach != "labelled":
        options["reach"] = settings.reach
    is_own = not isinstance(settings.solver, str) and not _is_as_named(solver, settings)
    return {SOLVER: {NAME: solver.name, IS_OWN: is_own, OPTIONS: options}}


def with_recorded_solver(folder: object, manifest: Mapping[str, Any], options: StateOptions) -> StateOptions:
    """Return ``options`` with the solver that `describe_solver` recorded, unless they name one.

    Raises:
        CorruptArchiveError: the record is not what it wrote, or a later release did.
        ValueError: the state had a solver object of its own.
    """
    recorded = manifest.get(SOLVER)
    if recorded is None or "solver" in options:  # earlier releases recorded none
        return options
    try:
        name, is_own, known = recorded[NAME], recorded[IS_OWN], recorded[OPTIONS]
        if not (isinstance(name, str) and isinstance(is_own, bool) and _are_options(known)):
            raise TypeError("its solver is described by other types")
        if not is_own and (name not in SOLVERS or (known and name != "auto")):
            raise ValueError(f"its solver is {name!r}, with {len(known)} options; one of {', '.join(SOLVERS)} is known")
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptArchiveError(f"{folder} does not hold a tuning state: {error}") from error
    if is_own:
        raise ValueError(
            f"the state in {folder} was made with a solver object of its own ({name}), of which only the name is kept:"
            " pass it as solver=, or the name of another solver"
        )
    return cast("StateOptions", {"solver": name, **known, **options})


def _is_as_named(solver: Solver, settings: TuneSettings) -> bool:
    """Whether a solver object is what its name alone gives."""
    make = SOLVERS.get(solver.name)
    return make is not None and solver_settings(make(settings.metrics[0], solver.similarity, None)) == solver_settings(
        solver
    )


def _are_options(known: Any) -> bool:
    if not isinstance(known, dict) or not known.keys() <= {*NUMBERS, "reach"}:
        return False
    numbers = [known[name] for name in NUMBERS if name in known]
    # A tolerance may be infinite.
    are_numbers = all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers)
    return are_numbers and known.get("reach", "labelled") in get_args(Reach)
