"""`QuerySample`: the held-out queries that a store is asked, and what their answers say of all of them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from nudge_rag.common.arrays import Float64Array, IntArray
from nudge_rag.evaluation.metrics import Metric
from nudge_rag.evaluation.runs import Evaluation

__all__ = ["QuerySample"]

# The mean of a metric over so many queries has a standard error of 1.6 points at most: a value between 0 and 1 has a
# standard deviation of at most 1/2, and the root of 1,000 is 32. Of each group at least so many.
MOST_ASKED, FEWEST_OF_GROUP = 1_000, 200


@dataclass(frozen=True, eq=False)
class QuerySample:
    """Some of the queries, drawn at random from each of their groups; all of them if they are few.

    Attributes:
        groups: for each group, the rows of its queries.
        asked: for each group, the rows of those that were drawn, in the same order.
    """

    groups: tuple[IntArray, ...]
    asked: tuple[IntArray, ...]

    @classmethod
    def draw(cls, group_of: Sequence[Hashable], most: int = MOST_ASKED) -> QuerySample:
        """Draw some of the queries, the same ones at each call.

        Args:
            group_of: the group of each query: of each one some are drawn, in proportion if it is not small.
            most: how many queries are all asked. Of more, about so many are drawn.

        Example:
            >>> sample = QuerySample.draw(["covered"] * 9_000 + ["uncovered"] * 300)
            >>> [len(rows) for rows in sample.asked], sample.is_partial
            ([968, 200], True)
        """
        rows_of: dict[Hashable, list[int]] = {}
        for row, group in enumerate(group_of):
            rows_of.setdefault(group, []).append(row)
        groups = tuple(np.array(rows, dtype=np.int64) for rows in rows_of.values())
        if len(group_of) <= most:
            return cls(groups, groups)
        rng = np.random.default_rng(0)
        asked = []
        for rows in groups:
            wanted = max(FEWEST_OF_GROUP, round(most * len(rows) / len(group_of)))
            asked.append(np.sort(rng.choice(rows, size=min(wanted, len(rows)), replace=False)))
        return cls(groups, tuple(asked))

    @property
    def rows(self) -> IntArray:
        """The rows of the queries that were drawn, in order."""
        return np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *self.asked]))

    @property
    def is_partial(self) -> bool:
        """Whether a query was left out."""
        return any(len(some) < len(rows) for some, rows in zip(self.asked, self.groups, strict=True))

    def spread(self, exact: Evaluation, asked: Evaluation) -> Evaluation:
        """Estimate what the store would answer to all queries from what it answers to those that were drawn.

        Of a group of N queries, n of them drawn, a query has the value

            e + mean(a - e) + [drawn] N/n (a - e - mean(a - e)),

        with e by exact scores, a as the store answers, and means over the drawn ones. So the mean over the group is the
        difference estimate (Cochran, Sampling Techniques, 1977, section 7.1), and has its variance; single values mean
        nothing.

        Args:
            exact: of all queries, by exact scores.
            asked: of the queries that were drawn, as the store answers.

        Example:
            >>> from nudge_rag.evaluation.runs import evaluate_run
            >>> qrels = {f"q{number}": {"a": 1} for number in range(4)}
            >>> exact = evaluate_run(qrels, {query: ["a"] for query in qrels}, ["MRR@3"])
            >>> sample = QuerySample((np.arange(4),), (np.array([0, 2]),))
            >>> store = evaluate_run({"q0": {"a": 1}, "q2": {"a": 1}}, {"q0": ["a"], "q2": ["b", "a"]}, ["MRR@3"])
            >>> sample.spread(exact, store).mean("MRR@3")
            0.75
        """
        if not self.is_partial:
            return asked
        values = {}
        for metric, of_all in exact.values.items():
            estimated = of_all.copy()
            for rows, some, differences in self._differences(exact, asked, metric):
                estimated[rows] += differences.mean()
                estimated[some] += len(rows) / len(some) * (differences - differences.mean())
            values[metric] = estimated
        return Evaluation(exact.query_ids, values, {**exact.rankings, **asked.rankings})

    def standard_error(self, exact: Evaluation, asked: Evaluation, metric: Metric) -> float:
        """Return that of the mean of `spread` as an estimate of what asking all queries would give."""
        n_queries, variance = len(exact.query_ids), 0.0
        for rows, some, differences in self._differences(exact, asked, metric):
            left_out = 1 - len(some) / len(rows)
            if left_out:
                variance += (len(rows) / n_queries) ** 2 * left_out * float(differences.var(ddof=1)) / len(some)
        return math.sqrt(variance)

    def _differences(
        self, exact: Evaluation, asked: Evaluation, metric: Metric
    ) -> list[tuple[IntArray, IntArray, Float64Array]]:
        """For each group the rows of all its queries, of those drawn, and how much lower or higher the latter are."""
        found = []
        for rows, some in zip(self.groups, self.asked, strict=True):
            differences = asked.of(metric, [exact.query_ids[row] for row in some.tolist()]) - exact.values[metric][some]
            found.append((rows, some, differences))
        return found
