"""Metrics of a run: ranked nodes per query against qrels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import TypeAlias

import numpy as np

from nudge_rag.common.arrays import Float64Array
from nudge_rag.evaluation.metrics import Metric, parse_metric

__all__ = ["Evaluation", "Run", "evaluate_run", "order_by_score"]

Run: TypeAlias = Mapping[str, Sequence[str] | Mapping[str, float]]
NOT_RETRIEVED = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Evaluation:
    """Values of each metric, per query and on average.

    Attributes:
        query_ids: the judged queries.
        values: metric to (len(query_ids),) float64, in that order.
        rankings: query id to node ids, best first: what was evaluated.
    """

    query_ids: tuple[str, ...]
    values: Mapping[Metric, Float64Array]
    rankings: Mapping[str, Sequence[str]] = field(default_factory=dict, repr=False, compare=False)

    def mean(self, metric: str | Metric) -> float:
        """Mean over all judged queries."""
        return float(self.values[parse_metric(metric)].mean())

    def means(self) -> dict[str, float]:
        """Mean of every metric, by name."""
        return {str(metric): self.mean(metric) for metric in self.values}

    def of(self, metric: str | Metric, query_ids: Sequence[str]) -> Float64Array:
        """Values of some queries, in the order asked."""
        row = {query: at for at, query in enumerate(self.query_ids)}
        return self.values[parse_metric(metric)][[row[query] for query in query_ids]]


def evaluate_run(qrels: Mapping[str, Mapping[str, float]], run: Run, metrics: Sequence[str | Metric]) -> Evaluation:
    """Evaluate ``run`` on every query of ``qrels``; one that the run lacks scores 0 rather than vanishing.

    Args:
        qrels: query id to {node id: grade}; a grade above 0 is relevant.
        run: query id to node ids, best first, or to {node id: score}, larger is better and ties go by node id.
        metrics: such as ``["nDCG@10", "Recall@5"]``.

    Raises:
        ValueError: no judged query, an unknown metric, a node that a ranking lists twice.
    """
    if not qrels:
        raise ValueError("qrels hold no query")
    parsed = [parse_metric(metric) for metric in metrics]
    pairs = [(number, node, grade) for number, grades in enumerate(qrels.values()) for node, grade in grades.items()]
    places = {query: _places(query, run.get(query, ())) for query in qrels}
    ranks = np.array(
        [places[query].get(node, NOT_RETRIEVED) for query, grades in qrels.items() for node in grades], dtype=np.int64
    )
    queries = np.array([number for number, _, _ in pairs], dtype=np.int64)
    grades = np.array([grade for _, _, grade in pairs], dtype=np.float64)
    values = {metric: metric.per_query(ranks, grades, queries, len(qrels)) for metric in parsed}
    return Evaluation(tuple(qrels), values, {query: tuple(found) for query, found in places.items()})


def order_by_score(scores: Mapping[str, float]) -> list[str]:
    """Return the keys of ``scores``, the largest first; ties go by key.

    Raises:
        ValueError: a score that is no number, or NaN, which has no place in an order.

    Example:
        >>> order_by_score({"a": 0.1, "b": 0.7, "c": float("inf")})
        ['c', 'b', 'a']
    """
    wrong = next((node for node, score in scores.items() if not isinstance(score, Real) or score != score), None)
    if wrong is not None:
        raise ValueError(f"the score of node {wrong!r} must be a number, got {scores[wrong]!r}")
    return sorted(scores, key=lambda node: (-scores[node], node))


def _places(query: str, ranking: Sequence[str] | Mapping[str, float]) -> dict[str, int]:
    if isinstance(ranking, Mapping):
        ranking = order_by_score(ranking)
    places = {node: rank for rank, node in enumerate(ranking)}
    if len(places) != len(ranking):
        raise ValueError(f"the ranking of query {query!r} lists a node twice")
    return places
