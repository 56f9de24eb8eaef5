"""Metrics of nudge-rag for LlamaIndex's ``RetrieverEvaluator``."""

from __future__ import annotations

from typing import Any, ClassVar

from llama_index.core.evaluation.retrieval.metrics_base import BaseRetrievalMetric, RetrievalMetricResult

from nudge_rag.evaluation.measures import measure_rankings, resolve_measures

__all__ = ["retrieval_metric"]


class _NudgeMetric(BaseRetrievalMetric):
    """A metric at a cut-off; nothing retrieved is 0, repeated nodes count once, and no value exceeds 1."""

    metric_name: ClassVar[str] = "nudge"

    def compute(
        self,
        query: str | None = None,
        expected_ids: list[str] | None = None,
        retrieved_ids: list[str] | None = None,
        expected_texts: list[str] | None = None,
        retrieved_texts: list[str] | None = None,
        **kwargs: Any,
    ) -> RetrievalMetricResult:
        """Compute the metric of one query.

        Raises:
            ValueError: no ids are expected.
        """
        if not expected_ids:
            raise ValueError("expected_ids must hold at least one node id")
        ranking = list(dict.fromkeys(retrieved_ids or []))
        values, _ = measure_rankings(
            {"query": dict.fromkeys(expected_ids, 1.0)}, {"query": ranking}, resolve_measures([self.metric_name])
        )
        return RetrievalMetricResult(score=float(values[self.metric_name][0]))


def retrieval_metric(name: str) -> BaseRetrievalMetric:
    """Return a metric of `nudge_rag.evaluate_retrievers` for ``RetrieverEvaluator(metrics=[...])``.

    Args:
        name: such as ``"nDCG@10"``; with ir-measures also its own, such as ``"AP@10"``.

    Raises:
        ValueError: an unknown metric.

    Example:
        >>> metric = retrieval_metric("Recall@2")
        >>> metric.metric_name, metric.compute(expected_ids=["a", "b"], retrieved_ids=["a", "a", "b"]).score
        ('Recall@2', 1.0)
    """
    (measure,) = resolve_measures([name])
    kind = type("NudgeMetric", (_NudgeMetric,), {"metric_name": str(measure), "__annotations__": {}})
    metric: BaseRetrievalMetric = kind()
    return metric
