"""Score any vectors of the covered nodes by a metric, with all other nodes left where they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nudge_rag.common.arrays import Float64Array, FloatArray, IntArray
from nudge_rag.common.similarity import Similarity, scorer_of
from nudge_rag.evaluation.metrics import Metric
from nudge_rag.solvers.labels import PreparedLabels
from nudge_rag.solvers.scoring.blocks import covered_columns, most_telling_scores, pair_blocks, tie_margin
from nudge_rag.solvers.scoring.fixed_scores import fixed_scores, query_vectors
from nudge_rag.solvers.scoring.shifts import Shift, ShiftedScores

__all__ = ["ValidationScorer"]


class ValidationScorer:
    """Ranks the answers of ``labels`` among all nodes, those in ``rows`` wherever they are moved.

    Args:
        labels: judged queries.
        embeddings: (n, d) all node embeddings as they are.
        rows: (c,) increasing rows of those that may move.
        background: more nodes that only compete.
        metric: what is measured.
        similarity: how the store ranks.
        ignored: (queries, rows) arrays: nodes that do not compete for a query, where they are among ``rows``.
    """

    def __init__(
        self,
        labels: PreparedLabels,
        embeddings: Any,
        rows: IntArray,
        background: Any,
        metric: Metric,
        similarity: Similarity,
        ignored: tuple[IntArray, IntArray] | None = None,
    ) -> None:
        self._labels, self._metric, self._similarity = labels, metric, similarity
        self._queries = query_vectors(labels, similarity)
        self._fixed = fixed_scores(labels, embeddings, rows, background, depth=metric.k, similarity=similarity)
        self._columns = covered_columns(labels.node_of_pair, rows)
        queries, nodes = ignored if ignored is not None else (np.zeros(0, np.int64), np.zeros(0, np.int64))
        columns = covered_columns(nodes, rows)
        self._ignored = queries[columns >= 0], columns[columns >= 0]

    def value(self, vectors: FloatArray) -> float:
        """Mean of the metric when the covered nodes have these ``vectors`` (c, d)."""
        return float(self.per_query(vectors).mean())

    def per_query(self, vectors: FloatArray) -> Float64Array:
        """The metric of each query, (m,)."""
        labels, queries = self._labels, self._queries
        ranks = np.empty(len(self._columns), dtype=np.int64)
        score = scorer_of(vectors, self._similarity)
        for part, pairs in pair_blocks(labels, len(vectors)):
            scores = score(queries[part])
            if self._similarity == "l2":
                scores = (scores + (queries[part] ** 2).sum(axis=1, keepdims=True)) / 2
            ranks[pairs] = self._ranks(scores, part, pairs)
        return self._metric.per_query(ranks, labels.grades, labels.query_of_pair, labels.n_queries)

    def per_query_shifted(
        self, vectors: FloatArray, direction: Float64Array, shifts: Sequence[Shift]
    ) -> list[Float64Array]:
        """The metric of each query, (m,), at each of ``shifts`` of ``vectors`` along ``direction``."""
        labels = self._labels
        ranks = np.empty((len(self._columns), len(shifts)), dtype=np.int64)
        scores = ShiftedScores(vectors, direction, shifts, self._similarity)
        for part, pairs in pair_blocks(labels, len(vectors)):
            products = scores.products(self._queries[part])
            for number in range(len(shifts)):
                ranks[pairs, number] = self._ranks(scores.of(products, number), part, pairs)
        return list(self._metric.per_query(ranks, labels.grades, labels.query_of_pair, labels.n_queries).T)

    def _ranks(self, scores: FloatArray, part: slice, pairs: slice) -> IntArray:
        """0-based ranks of the answers of a block of queries, from their scores with the nodes that may move.

        Those of ignored nodes are overwritten.
        """
        rows, columns = self._labels.query_of_pair[pairs] - part.start, self._columns[pairs]
        own = np.where(columns >= 0, scores[rows, columns], self._fixed.answer[pairs])
        here = (self._ignored[0] >= part.start) & (self._ignored[0] < part.stop)
        scores[self._ignored[0][here] - part.start, self._ignored[1][here]] = -np.inf
        own = own + (tie_margin(self._queries.dtype) * (1 + np.abs(own))).astype(own.dtype)
        scores = most_telling_scores(scores, self._metric.k, len(rows))
        # Mostly each query has one answer: then no row is copied.
        compared = scores if np.array_equal(rows, np.arange(len(scores))) else scores[rows]
        ahead = np.count_nonzero(compared > own[:, None], axis=1)
        return np.asarray(ahead + np.count_nonzero(self._fixed.best[part][rows] > own[:, None], axis=1))
