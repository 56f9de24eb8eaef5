"""How good a ranking is: metrics, their means over queries, and comparisons of retrievers."""

from nudge_rag.evaluation.evaluate import Evaluation, evaluate
from nudge_rag.evaluation.groups import slice_by_node
from nudge_rag.evaluation.metrics import Metric, parse_metric
from nudge_rag.evaluation.retriever_comparison import RetrieverComparison
from nudge_rag.evaluation.retrievers import aevaluate_retrievers, evaluate_retrievers
from nudge_rag.evaluation.significance import adjust_p_values, bootstrap_interval, randomization_p_value
from nudge_rag.evaluation.system_row import SystemRow

__all__ = [
    "Evaluation",
    "Metric",
    "RetrieverComparison",
    "SystemRow",
    "adjust_p_values",
    "aevaluate_retrievers",
    "bootstrap_interval",
    "evaluate",
    "evaluate_retrievers",
    "parse_metric",
    "randomization_p_value",
    "slice_by_node",
]
