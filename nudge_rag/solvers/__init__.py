"""Solvers: pure functions of arrays, one file per method."""

from nudge_rag.solvers.auto.solver import AutoSolver
from nudge_rag.solvers.contrastive.solver import NudgeContrastive
from nudge_rag.solvers.labels import LabeledQueries
from nudge_rag.solvers.linear_map.adapter import QueryAdapter
from nudge_rag.solvers.linear_map.solver import LinearMap
from nudge_rag.solvers.needs import SolverNeeds
from nudge_rag.solvers.nudge_m import NudgeM
from nudge_rag.solvers.nudge_n import NudgeN
from nudge_rag.solvers.result import Candidate, NudgeFit, ValidationCurve

__all__ = [
    "AutoSolver",
    "Candidate",
    "LabeledQueries",
    "LinearMap",
    "NudgeContrastive",
    "NudgeFit",
    "NudgeM",
    "NudgeN",
    "QueryAdapter",
    "SolverNeeds",
    "ValidationCurve",
]
