"""The one function that evaluates: ready runs, or retrievers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, overload

from nudge_rag.evaluation.metrics import Metric
from nudge_rag.evaluation.retriever_comparison import RetrieverComparison
from nudge_rag.evaluation.retrievers import DEFAULT_MEASURES, evaluate_retrievers
from nudge_rag.evaluation.runs import Evaluation, Run, evaluate_run
from nudge_rag.feedback.pairs import LabeledPairs

__all__ = ["Evaluation", "Run", "evaluate"]


@overload
def evaluate(qrels: Mapping[str, Mapping[str, float]], run: Run, metrics: Sequence[str | Metric]) -> Evaluation: ...


@overload
def evaluate(
    qrels: Mapping[str, Any], run: LabeledPairs, metrics: Sequence[str | Metric] = ..., **options: Any
) -> RetrieverComparison: ...


def evaluate(
    qrels: Mapping[str, Any],
    run: Run | LabeledPairs,
    metrics: Sequence[str | Metric] | None = None,
    **options: Any,
) -> Evaluation | RetrieverComparison:
    """Evaluate a run on every query of ``qrels``, or retrievers on labelled pairs.

    ``evaluate(qrels, run, metrics)`` measures ready rankings; a query that the run lacks scores 0.
    ``evaluate(retrievers, pairs, metrics, baseline=...)`` is `nudge_rag.evaluation.evaluate_retrievers`: it asks each
    retriever every query, and compares them.

    Args:
        qrels: query id to {node id: grade}, a grade above 0 is relevant; or name to retriever.
        run: query id to node ids, best first, or to {node id: score}, larger is better and ties go by node id; or the
            `LabeledPairs` that the retrievers are evaluated on.
        metrics: such as ``["nDCG@10", "Recall@5"]``.
        **options: of `evaluate_retrievers`.

    Raises:
        TypeError: options for a ready run.
        ValueError: no judged query, an unknown metric, a node that a ranking lists twice.

    Example:
        >>> evaluate({"q": {"a": 1, "b": 1}}, {"q": ["b", "c", "a"]}, ["Recall@1", "MRR@3"]).means()
        {'Recall@1': 0.5, 'MRR@3': 1.0}
        >>> pairs = LabeledPairs.from_pairs([("leave", "exit")])
        >>> evaluate({"untuned": lambda text: ["bill", "exit"]}, pairs, ["MRR@3"]).mean("untuned", "MRR@3")
        0.5
    """
    if isinstance(run, LabeledPairs):
        return evaluate_retrievers(qrels, run, DEFAULT_MEASURES if metrics is None else metrics, **options)
    if options or metrics is None:
        raise TypeError("evaluate(qrels, run, metrics) takes these three; evaluate(retrievers, pairs) takes options")
    return evaluate_run(qrels, run, metrics)
