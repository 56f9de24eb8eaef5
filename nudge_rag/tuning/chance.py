"""Whether answers depend on the question at all: embeddings and queries of two models give answers that do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nudge_rag.evaluation.metrics import Metric
from nudge_rag.evaluation.runs import evaluate_run

__all__ = ["find_chance"]

# A baseline of at most this many times what answers to other queries score is near chance, if that is little.
NEAR = 2.0
LITTLE = 0.1
# If it is more (as in a small store), so is one that is no more than so many standard errors above it.
ERRORS = 2.0
# Fewer queries, or answers to others that score this well (as in a tiny store), tell nothing.
FEWEST_QUERIES = 10
LARGEST_CHANCE = 0.5
SHUFFLES = 5


def find_chance(
    qrels: Mapping[str, Mapping[str, float]], run: Mapping[str, Sequence[str]], metrics: Sequence[Metric]
) -> tuple[float, float] | None:
    """Compare each query's ranking with those of other queries.

    If the rankings do not depend on the queries, a query is answered as well by another one's ranking. Unlike a random
    order of all nodes, this knows that some nodes are found by every query, and that some answer many.

    Args:
        qrels: query id to {node id: grade}.
        run: query id to ranked node ids.
        metrics: the first one is reported; all must agree.

    Returns:
        The first metric of the rankings, and of those of other queries; None if the rankings are clearly better, or
        there is too little to tell.

    Example:
        >>> from nudge_rag.evaluation.metrics import parse_metric
        >>> qrels = {str(number): {f"n{number}": 1.0} for number in range(20)}
        >>> blind = {query: ["n100", "n3"] for query in qrels}
        >>> find_chance(qrels, blind, [parse_metric("Recall@2")])
        (0.05, 0.05)
        >>> find_chance(qrels, {query: [f"n{query}"] for query in qrels}, [parse_metric("Recall@2")]) is None
        True
    """
    names = list(qrels)
    if len(names) < FEWEST_QUERIES:
        return None
    own, rng = evaluate_run(qrels, run, metrics), np.random.default_rng(0)
    shuffles = []
    for _ in range(SHUFFLES):
        others = rng.permutation(len(names))
        shuffled = {query: run[names[other]] for query, other in zip(names, others, strict=True)}
        shuffles.append(evaluate_run(qrels, shuffled, metrics))
    for metric in metrics:
        scores = np.array([each.values[metric] for each in shuffles])
        chance, error = float(scores.mean()), float(scores.std()) / len(names) ** 0.5
        near = NEAR * chance if chance <= LITTLE else chance + ERRORS * error
        if chance > LARGEST_CHANCE or own.mean(metric) > near:
            return None
    return own.mean(metrics[0]), float(np.mean([each.mean(metrics[0]) for each in shuffles]))
