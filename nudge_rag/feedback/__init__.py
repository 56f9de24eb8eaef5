"""What users tell us: labelled pairs, what they are read from, and a recorder of what users do."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nudge_rag.feedback.pairs import LabeledPairs, Split, UnknownNodes
from nudge_rag.feedback.reading import ReadReport, SkippedRow

if TYPE_CHECKING:
    from nudge_rag.feedback.clicks import ClickGrades, click_grades
    from nudge_rag.feedback.interleaving import InterleavingResult, TeamDraft, compare_teams, takes_part
    from nudge_rag.feedback.log import Feedback, FeedbackLog, Retrieval, ShownNode
    from nudge_rag.feedback.position_bias import ExaminationCurve, fit_examination
    from nudge_rag.feedback.questions import GeneratedQuestions, generate_questions
    from nudge_rag.feedback.readers.judged import from_mteb, from_nudge_dataset, from_trec, from_trec_run
    from nudge_rag.feedback.readers.langfuse import from_langfuse
    from nudge_rag.feedback.readers.langsmith import from_examples, from_langsmith
    from nudge_rag.feedback.readers.spans import from_spans, from_trulens
    from nudge_rag.feedback.readers.texts import from_hugging_face, from_llama_index, from_ragas
    from nudge_rag.feedback.recorder import Recorder, RecorderCheck
    from nudge_rag.feedback.resolve import Resolution, TextResolver
    from nudge_rag.feedback.ubi import from_ubi, to_ubi
    from nudge_rag.tuning.document_labels import ChunkLabels, label_chunks
    from nudge_rag.tuning.label_coverage import LabelCoverage, coverage

__all__ = [
    "ChunkLabels",
    "ClickGrades",
    "ExaminationCurve",
    "Feedback",
    "FeedbackLog",
    "GeneratedQuestions",
    "InterleavingResult",
    "LabelCoverage",
    "LabeledPairs",
    "ReadReport",
    "Recorder",
    "RecorderCheck",
    "Resolution",
    "Retrieval",
    "ShownNode",
    "SkippedRow",
    "Split",
    "TeamDraft",
    "TextResolver",
    "UnknownNodes",
    "click_grades",
    "compare_teams",
    "coverage",
    "fit_examination",
    "from_examples",
    "from_hugging_face",
    "from_langfuse",
    "from_langsmith",
    "from_llama_index",
    "from_mteb",
    "from_nudge_dataset",
    "from_ragas",
    "from_spans",
    "from_trec",
    "from_trec_run",
    "from_trulens",
    "from_ubi",
    "generate_questions",
    "label_chunks",
    "takes_part",
    "to_ubi",
]

# Imported when they are asked for: `import nudge_rag` needs none of them.
_MODULES = {
    "clicks": ("ClickGrades", "click_grades"),
    "questions": ("GeneratedQuestions", "generate_questions"),
    "position_bias": ("ExaminationCurve", "fit_examination"),
    "interleaving": ("InterleavingResult", "TeamDraft", "compare_teams", "takes_part"),
    "log": ("Feedback", "FeedbackLog", "Retrieval", "ShownNode"),
    "readers.judged": ("from_mteb", "from_nudge_dataset", "from_trec", "from_trec_run"),
    "readers.langfuse": ("from_langfuse",),
    "readers.langsmith": ("from_examples", "from_langsmith"),
    "readers.spans": ("from_spans", "from_trulens"),
    "readers.texts": ("from_hugging_face", "from_llama_index", "from_ragas"),
    "recorder": ("Recorder", "RecorderCheck"),
    "resolve": ("Resolution", "TextResolver"),
    "ubi": ("from_ubi", "to_ubi"),
}
_MODULE_OF = {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names}
# What tunes on part of the labels, or searches for the chunk that answers, stands where tuning does.
_MODULE_OF |= dict.fromkeys(("LabelCoverage", "coverage"), "nudge_rag.tuning.label_coverage")
_MODULE_OF |= dict.fromkeys(("ChunkLabels", "label_chunks"), "nudge_rag.tuning.document_labels")


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
