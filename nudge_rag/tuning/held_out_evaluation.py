"""Rank held-out queries: by exact scores, and as the store's own search answers them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nudge_rag.common.arrays import Float64Array, FloatArray, IntArray
from nudge_rag.common.ranking import rank_nodes
from nudge_rag.common.similarity import Similarity
from nudge_rag.evaluation.evaluate import Evaluation, evaluate
from nudge_rag.evaluation.metrics import Metric
from nudge_rag.feedback.pairs import LabeledPairs
from nudge_rag.solvers import LabeledQueries
from nudge_rag.tuning.query_sample import QuerySample
from nudge_rag.tuning.store_answers import Ranking, StoreAnswers

__all__ = ["HeldOut", "HeldOutEvaluator"]

# How many nodes beyond the deepest cutoff are ranked, to take the place of those that a coarse index misses.
SPARE = 20


@dataclass(frozen=True)
class HeldOut:
    """Queries with their answers and with the best nodes that have no label.

    Attributes:
        qrels: query id to {node id: grade}.
        queries: (m, d) embeddings, in the order of ``qrels``.
        competitor_ids: per query the best unlabelled nodes, best first, as a store ranks them.
        competitor_scores: their scores.
    """

    qrels: Mapping[str, Mapping[str, float]]
    queries: FloatArray
    competitor_ids: Sequence[Sequence[str]]
    competitor_scores: Sequence[Float64Array]

    def labels(self, rows: Mapping[str, int], depth: int) -> LabeledQueries:
        """Return them as a solver takes them; ``rows`` are those of the labelled nodes."""
        table = np.full((len(self.qrels), depth), -np.inf)
        for row, scores in enumerate(self.competitor_scores):
            table[row, : min(depth, len(scores))] = scores[:depth]
        return LabeledQueries(
            self.queries,
            [[rows[node] for node in grades] for grades in self.qrels.values()],
            [list(grades.values()) for grades in self.qrels.values()],
            table,
        )


class HeldOutEvaluator:
    """Evaluates the held-out queries with one set of vectors after another.

    Args:
        ids: (n,) the nodes that may move.
        similarity: how the store ranks.
        metrics: what is measured.
        answers: asks the store; None if its search is exact.
        sample: the queries that it is asked.
    """

    def __init__(
        self,
        ids: Sequence[str],
        similarity: Similarity,
        metrics: Sequence[Metric],
        answers: StoreAnswers | None,
        sample: QuerySample,
    ) -> None:
        self._ids, self._similarity, self._metrics = ids, similarity, metrics
        self._answers, self._sample = answers, sample
        self._depth = max(metric.k for metric in metrics)
        self._error: float | None = None

    def evaluate(self, held_out: HeldOut, vectors: FloatArray) -> tuple[Evaluation, Evaluation]:
        """Rank the nodes, with ``vectors`` (n, d), among the best of all others: by exact scores, and as the store.

        Both are one object if the store finds all that it should.
        """
        every = np.arange(len(held_out.qrels))
        rankings = self._rank(held_out, vectors, every, self._depth)
        run = {query: ranking.ids for query, ranking in zip(held_out.qrels, rankings, strict=True)}
        exact = evaluate(held_out.qrels, run, self._metrics)
        if self._answers is None:
            return exact, exact
        rows = self._sample.rows
        best = self._rank(held_out, vectors, rows, self._depth + SPARE)
        found = self._answers.rank(held_out.queries[rows], vectors, best, self._depth)
        if found is None:
            return exact, exact
        asked = [exact.query_ids[row] for row in rows.tolist()]
        qrels = {query: held_out.qrels[query] for query in asked}
        answered = evaluate(qrels, dict(zip(asked, found, strict=True)), self._metrics)
        if self._sample.is_partial:
            error = self._sample.standard_error(exact, answered, self._metrics[0])
            self._error = max(error, self._error or 0.0)
        return exact, self._sample.spread(exact, answered)

    def _rank(self, held_out: HeldOut, vectors: FloatArray, rows: IntArray, depth: int) -> list[Ranking]:
        """The best nodes of some of the queries, by exact scores; of equal scores the nodes that may move first."""
        best_rows, scores = rank_nodes(held_out.queries[rows], vectors, depth, self._similarity)
        width = max((len(held_out.competitor_ids[row]) for row in rows.tolist()), default=0)
        competitor_ids = np.full((len(rows), width), None, dtype=object)
        competitor_scores = np.full((len(rows), width), -np.inf)
        for place, row in enumerate(rows.tolist()):
            count = len(held_out.competitor_ids[row])
            competitor_ids[place, :count] = held_out.competitor_ids[row]
            competitor_scores[place, :count] = held_out.competitor_scores[row]
        ids = np.concatenate([np.array(self._ids, dtype=object)[best_rows], competitor_ids], axis=1)
        merged = np.concatenate([scores, competitor_scores], axis=1)
        order = np.argsort(-merged, axis=1, kind="stable")[:, :depth]
        ids, merged = np.take_along_axis(ids, order, axis=1), np.take_along_axis(merged, order, axis=1)
        counts = (merged > -np.inf).sum(axis=1).tolist()
        return [
            Ranking(line[:count].tolist(), best[:count]) for line, best, count in zip(ids, merged, counts, strict=True)
        ]

    def rankings_of(
        self, pairs: LabeledPairs, states: Mapping[str, Evaluation]
    ) -> tuple[LabeledPairs, dict[str, Evaluation]]:
        """Return what single queries can be shown: those that the store was asked, if it answers otherwise.

        Args:
            pairs: the held-out pairs.
            states: name to what `evaluate` returned.
        """
        if self._error is None:
            return pairs, dict(states)
        names = list(pairs.qrels)
        asked = [names[row] for row in self._sample.rows.tolist()]
        shown = LabeledPairs(
            {query: pairs.queries[query] for query in asked}, {query: pairs.qrels[query] for query in asked}
        )
        return shown, {
            name: evaluate(shown.qrels, {query: found.rankings[query] for query in asked}, self._metrics)
            for name, found in states.items()
        }

    @property
    def note(self) -> str:
        """What the numbers are estimated from, for a summary; empty if nothing is."""
        notes = []
        if self._answers is not None and self._answers.has_estimated:
            notes.append("what the index finds among moved nodes is estimated from their neighbours")
        if self._error is not None:
            n_asked, n_queries = len(self._sample.rows), sum(map(len, self._sample.groups))
            notes.append(
                f"what the index finds was asked for {n_asked} of {n_queries} held-out queries, standard error"
                f" {self._error:.3f}"
            )
        return f" ({'; '.join(notes)})" if notes else ""
