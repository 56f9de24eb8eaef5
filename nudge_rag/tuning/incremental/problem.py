"""The labels of a `TuningState` as a solver and an evaluation take them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.solvers.labels import LabeledQueries, QuerySums
from nudge_rag.tuning.incremental.held_out import HeldOutQuery
from nudge_rag.tuning.incremental.labels import RunningLabels, TrainingQuery
from nudge_rag.tuning.trial import HeldOut

__all__ = ["answers", "stack_vectors", "to_held_out", "to_training_queries", "to_training_sums"]


def to_training_sums(labels: RunningLabels, row_of: Mapping[str, int]) -> QuerySums:
    """Return the sums and numbers of the training queries of each labelled node."""
    trained = sorted(labels.counts)
    return QuerySums(
        np.array([row_of[node_id] for node_id in trained], dtype=np.int64),
        np.stack([labels.sums[node_id] for node_id in trained]),
        np.array([labels.counts[node_id] for node_id in trained], dtype=np.int64),
    )


def to_training_queries(
    train: Mapping[str, TrainingQuery], lists: Mapping[str, HeldOutQuery], depth: int, row_of: Mapping[str, int]
) -> LabeledQueries:
    """Return the training queries, each with the scores of its best ``depth`` unlabelled nodes, if there are any."""
    table = np.full((len(train), max(depth, 1)), -np.inf)
    for row, text in enumerate(train if depth else ()):
        scores = lists[text].scores[:depth]
        table[row, : len(scores)] = scores
    return LabeledQueries(
        np.stack([query.vector for query in train.values()]),
        [[row_of[node_id] for node_id in query.grades] for query in train.values()],
        [list(query.grades.values()) for query in train.values()],
        table if depth else None,
    )


def to_held_out(queries: Mapping[str, HeldOutQuery]) -> HeldOut:
    """Return held-out queries with their best unlabelled nodes."""
    vectors = stack_vectors(list(queries.values())) if queries else np.zeros((0, 0))
    return HeldOut(
        {text: query.grades for text, query in queries.items()},
        vectors,
        [query.ids for query in queries.values()],
        [np.array(query.scores, dtype=np.float64) for query in queries.values()],
    )


def stack_vectors(queries: Sequence[HeldOutQuery]) -> FloatArray:
    """Return the embeddings of queries, (queries, d)."""
    return np.stack([query.vector for query in queries])


def answers(queries: Iterable[TrainingQuery | HeldOutQuery]) -> set[str]:
    """Return the ids of all nodes that answer one of the queries."""
    return {node_id for query in queries for node_id, grade in query.grades.items() if grade > 0}
