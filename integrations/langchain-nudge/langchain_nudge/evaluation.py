"""Evaluators of nudge-rag for LangSmith's ``evaluate``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nudge_rag.evaluation.answers import NodeIdOf, rank_answer
from nudge_rag.evaluation.measures import measure_rankings, resolve_measures

__all__ = ["langsmith_evaluator"]

Evaluator = Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]


def langsmith_evaluator(
    metric: str, *, documents: str = "output", expected: str = "node_ids", node_id: NodeIdOf | None = None
) -> Evaluator:
    """Return an evaluator for ``langsmith.evaluate(target, data=..., evaluators=[...])``.

    Args:
        metric: such as ``"nDCG@10"``; with ir-measures also its own, such as ``"AP@10"``.
        documents: key of the target's output that holds the documents or their ids, best first; ``"output"`` is where
            LangSmith puts what is no mapping, such as the list that a retriever returns.
        expected: key of the example's output that holds a node id, several, or a mapping of them to grades.
        node_id: takes a document and returns the node id that the examples use.

    Raises:
        ValueError: an unknown metric; when it is called, an example without ``expected``, or a target without
            ``documents``.

    Example:
        >>> judge = langsmith_evaluator("MRR@10")
        >>> judge({"output": ["a", "b"]}, {"node_ids": ["b"]})
        {'key': 'MRR@10', 'score': 0.5}
    """
    measures = resolve_measures([metric])

    def evaluate(outputs: Mapping[str, Any], reference_outputs: Mapping[str, Any]) -> dict[str, Any]:
        if documents not in outputs:
            raise ValueError(f"the target's output has no {documents!r}, it has {', '.join(outputs) or 'nothing'}")
        wanted = reference_outputs.get(expected)
        if not wanted:
            raise ValueError(f"the example's output has no {expected!r}: node ids, or a mapping of them to grades")
        named = [wanted] if isinstance(wanted, str) else wanted
        grades = dict(named) if isinstance(named, Mapping) else dict.fromkeys(named, 1.0)
        ranking, _ = rank_answer(outputs[documents], node_id)
        values, _ = measure_rankings({"query": grades}, {"query": ranking}, measures)
        return {"key": str(measures[0]), "score": float(values[str(measures[0])][0])}

    return evaluate
