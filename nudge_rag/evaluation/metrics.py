"""Retrieval metrics as values: ``nDCG@10`` is its own name, dictionary key and command-line word."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nudge_rag.common.arrays import BoolArray, Float64Array, IntArray

__all__ = ["MRR", "CappedRecall", "Metric", "MetricFamily", "Recall", "Success", "nDCG", "parse_metric"]

FAMILIES = ("nDCG", "Recall", "CappedRecall", "MRR", "Success")


@dataclass(frozen=True)
class Metric:
    """A metric at a cut-off. A node is relevant when its grade is above 0.

    With rel_k the relevant nodes in the top k, rel all relevant nodes, r the rank (from 1):

    - ``nDCG@k``: sum over the top k of grade / log2(r + 1), divided by the same for the best possible ranking
    - ``Recall@k``: rel_k / rel
    - ``CappedRecall@k``: rel_k / min(k, rel), the recall of the NUDGE paper (arXiv 2409.02343) and of nudge-ft
    - ``MRR@k``: 1 / r of the first relevant node in the top k, else 0
    - ``Success@k``: 1 if a relevant node is in the top k, else 0

    All but CappedRecall agree with ir-measures (nDCG, R, RR, Success).

    Raises:
        ValueError: a family that does not exist, or k that is not a positive integer.

    Example:
        >>> str(nDCG @ 10), parse_metric("nDCG@10") == nDCG @ 10
        ('nDCG@10', True)
    """

    family: str
    k: int

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"metric family must be one of {', '.join(FAMILIES)}, got {self.family!r}")
        if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 1:
            raise ValueError(f"the cut-off of {self.family} must be a positive integer, got {self.k!r}")

    def __str__(self) -> str:
        return f"{self.family}@{self.k}"

    def __repr__(self) -> str:
        return str(self)

    def per_query(self, ranks: IntArray, grades: Float64Array, query_of_pair: IntArray, n_queries: int) -> Float64Array:
        """The metric of every query, from the ranks of its judged nodes.

        Args:
            ranks: (p,) or (p, g) 0-based rank of each judged (query, node) pair, in g rankings; any rank of k or more
                is outside the top k.
            grades: (p,) grade of each pair.
            query_of_pair: (p,) query of each pair, in 0..n_queries-1. All judged pairs of a query must be there.
            n_queries: number of queries.

        Returns:
            (n_queries,) or (n_queries, g) float64; 0 for a query without relevant nodes.

        Example:
            >>> ranks, grades, queries = np.array([0, 2, 5]), np.array([1.0, 1.0, 2.0]), np.array([0, 0, 1])
            >>> parse_metric("Recall@2").per_query(ranks, grades, queries, 2)
            array([0.5, 0. ])
        """
        relevant = np.asarray(grades) > 0
        columns = (np.asarray(ranks) if np.ndim(ranks) == 2 else np.asarray(ranks)[:, None])[relevant]
        queries, gains = np.asarray(query_of_pair)[relevant], np.asarray(grades, dtype=np.float64)[relevant]
        hits = columns < self.k
        ideal = self.ideal(queries, gains, n_queries)[:, None]
        values = np.zeros((n_queries, columns.shape[1]))
        for column in range(columns.shape[1]):
            values[:, column] = self._gained(columns[:, column], hits[:, column], gains, queries, n_queries)
        values = np.divide(values, ideal, out=np.zeros_like(values), where=ideal > 0)
        # Answers that tie for a place all count as at that place, which no ranking can give them.
        values = np.minimum(values, 1.0)
        return values[:, 0] if np.ndim(ranks) == 1 else values

    def discounts(self) -> Float64Array:
        """What an answer at each of the first k places contributes, (k,), before grades and the ideal."""
        places = np.arange(self.k)
        if self.family == "nDCG":
            return np.asarray(1 / np.log2(places + 2.0))
        return np.asarray(1 / (places + 1.0)) if self.family == "MRR" else np.ones(self.k)

    def _gained(
        self,
        ranks: IntArray,
        hits: BoolArray,
        gains: Float64Array,
        queries: IntArray,
        n_queries: int,
    ) -> Float64Array:
        queries, ranks = queries[hits], ranks[hits]
        best: Float64Array = np.zeros(n_queries)
        if self.family == "nDCG":
            return _sums(queries, gains[hits] / np.log2(ranks + 2.0), n_queries)
        if self.family in ("Recall", "CappedRecall"):
            return np.bincount(queries, minlength=n_queries).astype(np.float64)
        np.maximum.at(best, queries, 1.0 if self.family == "Success" else 1.0 / (ranks + 1.0))
        return best

    def ideal(self, queries: IntArray, gains: Float64Array, n_queries: int) -> Float64Array:
        """What each query's values are divided by, (n_queries,), from its relevant pairs."""
        relevant = np.bincount(queries, minlength=n_queries).astype(np.float64)
        if self.family == "Recall":
            return relevant
        if self.family == "CappedRecall":
            return np.minimum(relevant, self.k)
        if self.family != "nDCG":
            return (relevant > 0).astype(np.float64)
        order = np.lexsort((-gains, queries))
        queries, gains = queries[order], gains[order]
        place = np.arange(len(queries)) - np.searchsorted(queries, queries)
        top = place < self.k
        return _sums(queries[top], gains[top] / np.log2(place[top] + 2.0), n_queries)


def _sums(queries: IntArray, weights: Float64Array, n_queries: int) -> Float64Array:
    return np.bincount(queries, weights=weights, minlength=n_queries).astype(np.float64, copy=False)


@dataclass(frozen=True)
class MetricFamily:
    """A metric without its cut-off: ``nDCG @ 10`` makes the metric."""

    name: str

    def __matmul__(self, k: int) -> Metric:
        return Metric(self.name, k)

    def __str__(self) -> str:
        return self.name


nDCG, Recall, CappedRecall, MRR, Success = (MetricFamily(name) for name in FAMILIES)


def parse_metric(metric: str | Metric) -> Metric:
    """The metric that a name such as ``"nDCG@10"`` stands for; a metric is returned as it is.

    Raises:
        TypeError: neither a string nor a metric.
        ValueError: not of the form family@k, an unknown family, or k below 1.

    Example:
        >>> parse_metric("Recall@5").k
        5
    """
    if isinstance(metric, Metric):
        return metric
    if not isinstance(metric, str):
        raise TypeError(f"a metric must be a string such as 'nDCG@10' or a Metric, got {type(metric).__name__}")
    family, at, cutoff = metric.partition("@")
    if not at or not cutoff.isascii() or not cutoff.isdigit():
        raise ValueError(f"a metric is written family@k with a family of {', '.join(FAMILIES)}, got {metric!r}")
    return Metric(family, int(cutoff))
