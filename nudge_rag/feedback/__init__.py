"""What users tell us: labelled pairs of queries and nodes, the files that hold them, and a recorder of feedback."""

from nudge_rag.feedback.log import Feedback, FeedbackLog, Retrieval, ShownNode
from nudge_rag.feedback.pairs import LabeledPairs, Split, UnknownNodes
from nudge_rag.feedback.reading import ReadReport, SkippedRow
from nudge_rag.feedback.recorder import Recorder, RecorderCheck
from nudge_rag.feedback.ubi import from_ubi, to_ubi

__all__ = [
    "Feedback",
    "FeedbackLog",
    "LabeledPairs",
    "ReadReport",
    "Recorder",
    "RecorderCheck",
    "Retrieval",
    "ShownNode",
    "SkippedRow",
    "Split",
    "UnknownNodes",
    "from_ubi",
    "to_ubi",
]
