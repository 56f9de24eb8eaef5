"""Better retrieval from the feedback you already have.

nudge-rag moves the node embeddings in a vector store towards the queries that they answer (NUDGE, arXiv 2409.02343).
The core needs numpy alone; databases and frameworks are imported only when they are used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nudge_rag.common.progress import track
    from nudge_rag.errors import (
        CorruptArchiveError,
        JournalAccessError,
        JournalError,
        LockedError,
        LostHistoryError,
        MissingPackageError,
        NudgeError,
        PushError,
        StoreError,
        UnknownIdError,
    )
    from nudge_rag.evaluation.comparison import Comparison
    from nudge_rag.evaluation.evaluate import Evaluation, evaluate
    from nudge_rag.evaluation.metrics import MRR, CappedRecall, Metric, Recall, Success, nDCG, parse_metric
    from nudge_rag.evaluation.retriever_comparison import RetrieverComparison
    from nudge_rag.evaluation.retrievers import aevaluate_retrievers, evaluate_retrievers
    from nudge_rag.feedback.clicks import click_grades
    from nudge_rag.feedback.log import FeedbackLog
    from nudge_rag.feedback.pairs import LabeledPairs, Split
    from nudge_rag.feedback.recorder import Recorder
    from nudge_rag.journal.journal import versions
    from nudge_rag.journal.prune import prune
    from nudge_rag.journal.push import PushReceipt
    from nudge_rag.journal.reapply import reapply
    from nudge_rag.journal.repair import RepairReport, repair
    from nudge_rag.journal.rollback import RollbackReceipt, rollback
    from nudge_rag.journal.status import Status, live_version, status
    from nudge_rag.journal.switch import SwitchReceipt, drop_beside, drop_copies, switch
    from nudge_rag.journal.take_over import take_over
    from nudge_rag.journal.versions import Version
    from nudge_rag.solvers import (
        AutoSolver,
        Candidate,
        LabeledQueries,
        NudgeContrastive,
        NudgeFit,
        NudgeM,
        NudgeN,
        QueryAdapter,
        SolverNeeds,
        ValidationCurve,
    )
    from nudge_rag.stores.retriever import store_retriever
    from nudge_rag.stores.urls import open_store
    from nudge_rag.tuning.competitors import StoreReads
    from nudge_rag.tuning.incremental.state import TuningState
    from nudge_rag.tuning.label_coverage import coverage
    from nudge_rag.tuning.nudge import Nudge
    from nudge_rag.tuning.tune import tune


__version__ = "0.1.0"

__all__ = [
    "MRR",
    "AutoSolver",
    "Candidate",
    "CappedRecall",
    "Comparison",
    "CorruptArchiveError",
    "Evaluation",
    "FeedbackLog",
    "JournalAccessError",
    "JournalError",
    "LabeledPairs",
    "LabeledQueries",
    "LockedError",
    "LostHistoryError",
    "Metric",
    "MissingPackageError",
    "Nudge",
    "NudgeContrastive",
    "NudgeError",
    "NudgeFit",
    "NudgeM",
    "NudgeN",
    "PushError",
    "PushReceipt",
    "QueryAdapter",
    "Recall",
    "Recorder",
    "RepairReport",
    "RetrieverComparison",
    "RollbackReceipt",
    "SolverNeeds",
    "Split",
    "Status",
    "StoreError",
    "StoreReads",
    "Success",
    "SwitchReceipt",
    "TuningState",
    "UnknownIdError",
    "ValidationCurve",
    "Version",
    "__version__",
    "aevaluate_retrievers",
    "click_grades",
    "coverage",
    "drop_beside",
    "drop_copies",
    "evaluate",
    "evaluate_retrievers",
    "live_version",
    "nDCG",
    "open_store",
    "parse_metric",
    "prune",
    "reapply",
    "repair",
    "rollback",
    "status",
    "store_retriever",
    "switch",
    "take_over",
    "track",
    "tune",
    "versions",
]

# Where each name is defined: a module is imported when one of its names is asked for, so that the command line answers
# at once. The same names stand above for type checkers, which a test compares.
_NAMES_OF = {
    "common.progress": ("track",),
    "errors": (
        "CorruptArchiveError",
        "JournalAccessError",
        "JournalError",
        "LockedError",
        "LostHistoryError",
        "MissingPackageError",
        "NudgeError",
        "PushError",
        "StoreError",
        "UnknownIdError",
    ),
    "evaluation.comparison": ("Comparison",),
    "evaluation.evaluate": (
        "Evaluation",
        "evaluate",
    ),
    "evaluation.metrics": (
        "MRR",
        "CappedRecall",
        "Metric",
        "Recall",
        "Success",
        "nDCG",
        "parse_metric",
    ),
    "evaluation.retriever_comparison": ("RetrieverComparison",),
    "evaluation.retrievers": (
        "aevaluate_retrievers",
        "evaluate_retrievers",
    ),
    "feedback.clicks": ("click_grades",),
    "tuning.label_coverage": ("coverage",),
    "feedback.log": ("FeedbackLog",),
    "feedback.pairs": (
        "LabeledPairs",
        "Split",
    ),
    "feedback.recorder": ("Recorder",),
    "journal.journal": ("versions",),
    "journal.prune": ("prune",),
    "journal.push": ("PushReceipt",),
    "journal.reapply": ("reapply",),
    "journal.repair": (
        "RepairReport",
        "repair",
    ),
    "journal.rollback": (
        "RollbackReceipt",
        "rollback",
    ),
    "journal.status": (
        "Status",
        "live_version",
        "status",
    ),
    "journal.switch": (
        "SwitchReceipt",
        "drop_beside",
        "drop_copies",
        "switch",
    ),
    "journal.take_over": ("take_over",),
    "journal.versions": ("Version",),
    "solvers": (
        "AutoSolver",
        "Candidate",
        "LabeledQueries",
        "NudgeContrastive",
        "NudgeFit",
        "NudgeM",
        "NudgeN",
        "QueryAdapter",
        "SolverNeeds",
        "ValidationCurve",
    ),
    "stores.retriever": ("store_retriever",),
    "stores.urls": ("open_store",),
    "tuning.competitors": ("StoreReads",),
    "tuning.incremental.state": ("TuningState",),
    "tuning.nudge": ("Nudge",),
    "tuning.tune": ("tune",),
}
_MODULE_OF = {name: f"nudge_rag.{module}" for module, names in _NAMES_OF.items() for name in names}
_PACKAGES = ("common", "compat", "demo", "errors", "evaluation", "feedback", "journal", "solvers", "stores", "tuning")


if not TYPE_CHECKING:  # else a checker would accept any name

    def __getattr__(name: str) -> Any:
        if name in _MODULE_OF:
            value = getattr(import_module(_MODULE_OF[name]), name)
        elif name in _PACKAGES:
            value = import_module(f"nudge_rag.{name}")
        else:
            raise AttributeError(f"module 'nudge_rag' has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PACKAGES})
