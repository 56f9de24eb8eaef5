"""Estimate what a nudge does to queries whose answers have no label, by holding out the labels of whole nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nudge_rag.common.arrays import BoolArray, Float64Array, FloatArray, IntArray
from nudge_rag.common.similarity import Similarity
from nudge_rag.evaluation.metrics import Metric
from nudge_rag.solvers.auto.lowered import FixedSolver
from nudge_rag.solvers.labels import LabeledQueries, LabelsLike, PreparedLabels, prepare_labels
from nudge_rag.solvers.linear_map.adapter import MappedBlocks, QueryAdapter, without_scores
from nudge_rag.solvers.scoring.validation import ValidationScorer

__all__ = ["FEW_NODES", "GroupEffects", "HeldOutNodes", "UncoveredEffect", "share_of_uncovered"]

Flags = BoolArray
# A fold's solution lacks the fold's labels: with three folds it loses far more than the final one, with ten hardly.
FOLDS = 10
ROUNDS = 2_000
# Numbers drawn at a time: some megabytes.
DRAWN_AT_ONCE = 500_000
# With fewer held-out nodes than this an interval says little, and the report says so.
FEW_NODES = 20
# Nodes with one label are preferred as long as there are so many of them.
ENOUGH_NODES = 50
# Of more queries in a fold a sample is judged, always the same.
MOST_JUDGED = 4_000


@dataclass(frozen=True)
class UncoveredEffect:
    """Estimated mean change of a metric, its 95 % interval, and how many nodes it rests on."""

    change: float
    low: float
    high: float
    n_nodes: int

    def within(self, tolerance: float | None) -> bool:
        """Whether the loss is at most ``tolerance``; None: whether it is not significant."""
        return self.high >= 0 if tolerance is None else self.change >= -tolerance


@dataclass(frozen=True)
class GroupEffects:
    """Estimated effects on two groups of queries whose answers have no label.

    Attributes:
        uncovered: queries of nodes that are rarely asked for.
        new_nodes: queries of nodes that are new: any node may be one, popular ones included.
        covered: changes of queries that were held out while their nodes kept other labels; empty if none were.
    """

    uncovered: UncoveredEffect
    new_nodes: UncoveredEffect
    covered: Float64Array = field(default_factory=lambda: np.zeros(0), repr=False)

    def within(self, tolerance: float | None) -> bool:
        """Whether both groups lose at most ``tolerance``; None: whether neither loses significantly."""
        return self.uncovered.within(tolerance) and self.new_nodes.within(tolerance)


@dataclass(frozen=True)
class _Fold:
    train: LabeledQueries
    held: PreparedLabels
    ignored: tuple[IntArray, IntArray]
    nodes: IntArray
    rows: IntArray  # of the nodes that its training labels move
    covered: PreparedLabels  # queries that are held out although their nodes have labels


class HeldOutNodes:
    """The labels, cut into folds of nodes: each fold's nodes are treated as if nobody had labelled them.

    Every query belongs to the fold of one of its answers, drawn at random; it is judged there by its answers in the
    fold, while its other answers do not compete. A fold's solution is fitted to the queries of the other folds, without
    their labels on the fold's nodes. All of it serves the estimate only: the final solution learns from every label.

    Queries of the least labelled nodes alone are counted. Hold out one labelled query: its node becomes uncovered
    exactly if it had no other label. So the queries of nodes with one label are distributed like future uncovered
    queries (the argument of Good, The Population Frequencies of Species, Biometrika 1953). If fewer than
    `ENOUGH_NODES` nodes have one label, those with two count as well, and so on. Intervals are bootstrapped over
    nodes, since queries of one node fare alike.

    With ``covered_too`` a part of the other queries is held out of each fold as well: where validation queries are few,
    they tell more surely what covered queries gain.
    """

    def __init__(
        self,
        embeddings: FloatArray,
        labels: LabelsLike,
        metric: Metric,
        similarity: Similarity,
        background: Any = None,
        seed: int = 0,
        folds: int | None = None,
        enough_nodes: int | None = None,
        covered_too: bool = False,
    ) -> None:
        self._embeddings = embeddings
        n_nodes, dimension = embeddings.shape
        prepared = prepare_labels(labels, "labelled", n_nodes=n_nodes, dimension=dimension, dtype=embeddings.dtype)
        self._counts = np.bincount(prepared.node_of_pair, minlength=n_nodes)
        self._metric, self._similarity = metric, similarity
        self._folds = list(_enough(_folds(prepared, n_nodes, seed, folds, covered_too=covered_too), enough_nodes))
        # Of each fold all nodes, and those that only compete: the same ones unless a map moves them.
        self._spaces: list[tuple[FloatArray, Any]] = [(embeddings, background)] * len(self._folds)
        self._score_folds()
        still = [embeddings[fold.rows] for fold in self._folds]
        self._before = _score_all(self._scorers, still)
        self._covered_before = _score_all(self._covered, still)

    @property
    def training_vectors(self) -> list[FloatArray]:
        """The queries that each fold's solution learns from."""
        return [np.asarray(fold.train.vectors) for fold in self._folds]

    @property
    def training_labels(self) -> list[LabeledQueries]:
        """The labels that each fold's solution learns from."""
        return [fold.train for fold in self._folds]

    def first(self, count: int) -> HeldOutNodes:
        """The first ``count`` folds alone: a quicker estimate, by fewer nodes."""
        fewer = copy(self)
        fewer._folds, fewer._scorers = self._folds[:count], self._scorers[:count]
        fewer._spaces, fewer._before = self._spaces[:count], self._before[:count]
        fewer._covered, fewer._covered_before = self._covered[:count], self._covered_before[:count]
        return fewer

    def with_adapters(self, adapters: Sequence[Callable[[FloatArray], FloatArray]]) -> HeldOutNodes:
        """The same folds with their queries mapped, each by its own adapter; effects stay those on the originals.

        Scores that the labels bring along are of unmapped queries and are left out.
        """
        mapped = copy(self)
        mapped._folds = [
            replace(
                fold,
                train=replace(fold.train, vectors=adapt(np.asarray(fold.train.vectors)), competitors=None),
                held=replace(fold.held, vectors=adapt(fold.held.vectors), competitors=None),
                covered=replace(fold.covered, vectors=_adapted(adapt, fold.covered.vectors), competitors=None),
            )
            for fold, adapt in zip(self._folds, adapters, strict=True)
        ]
        mapped._score_folds()
        return mapped

    def with_mapped_nodes(self, adapters: Sequence[QueryAdapter]) -> HeldOutNodes:
        """The same folds with all nodes mapped, each by its own adapter; effects stay those on the originals."""
        mapped = copy(self)
        mapped._folds = [
            replace(
                fold,
                train=without_scores(fold.train),
                held=replace(fold.held, competitors=None),
                covered=replace(fold.covered, competitors=None),
            )
            for fold in self._folds
        ]
        mapped._spaces = [
            (adapter.apply_to_nodes(nodes), None if background is None else MappedBlocks(background, adapter))
            for (nodes, background), adapter in zip(self._spaces, adapters, strict=True)
        ]
        mapped._score_folds()
        return mapped

    def solutions(self, solver: FixedSolver) -> list[FloatArray]:
        """Of each fold, the vectors of the nodes that its training labels move, by a solver with a fixed step."""
        return [
            solver.fit(nodes, fold.train, background=background).vectors
            for fold, (nodes, background) in zip(self._folds, self._spaces, strict=True)
        ]

    def effect(self, solutions: Sequence[FloatArray] | None) -> UncoveredEffect | None:
        """Cross-fitted effect of ``solutions`` on rarely asked nodes; None if the labels cannot be divided."""
        effects = self.effects(solutions)
        return None if effects is None else effects.uncovered

    def effects(self, solutions: Sequence[FloatArray] | None) -> GroupEffects | None:
        """Cross-fitted effects of ``solutions``, one a fold; None if the labels cannot be divided.

        Args:
            solutions: of each fold, the vectors of the nodes that it moves; None if none moves.
        """
        if solutions is None:
            solutions = [nodes[fold.rows] for fold, (nodes, _) in zip(self._folds, self._spaces, strict=True)]
        after = _score_all(self._scorers, solutions)
        changes = [values - before for values, before in zip(after, self._before, strict=True)]
        if not changes:
            return None
        covered_after = _score_all(self._covered, solutions)
        covered = [values - before for values, before in zip(covered_after, self._covered_before, strict=True)]
        together, nodes = np.concatenate(changes), np.concatenate([fold.nodes for fold in self._folds])
        every = UncoveredEffect(*_mean_by_node(together, nodes))
        return GroupEffects(_of_rarest(together, nodes, self._counts), every, np.concatenate(covered))

    def _score_folds(self) -> None:
        places = list(zip(self._folds, self._spaces, strict=True))
        self._scorers = [self._scorer(fold, *space) for fold, space in places]
        self._covered = [self._covered_scorer(fold, *space) for fold, space in places]

    def _scorer(self, fold: _Fold, nodes: FloatArray, background: Any) -> ValidationScorer:
        return ValidationScorer(fold.held, nodes, fold.rows, background, self._metric, self._similarity, fold.ignored)

    def _covered_scorer(self, fold: _Fold, nodes: FloatArray, background: Any) -> ValidationScorer | None:
        if not fold.covered.n_queries:
            return None
        return ValidationScorer(fold.covered, nodes, fold.rows, background, self._metric, self._similarity)


def _score_all(scorers: Sequence[ValidationScorer | None], solutions: Sequence[FloatArray]) -> list[Float64Array]:
    """The metric of each fold's queries; empty for a fold that has none."""
    return [
        np.zeros(0) if scorer is None else scorer.per_query(vectors)
        for scorer, vectors in zip(scorers, solutions, strict=True)
    ]


def _adapted(adapt: Callable[[FloatArray], FloatArray], vectors: FloatArray) -> FloatArray:
    return adapt(vectors) if len(vectors) else vectors


def _enough(folds: Iterable[_Fold], nodes: int | None) -> Iterator[_Fold]:
    """The first folds, until so many nodes are held out; None: all."""
    held = 0
    for fold in folds:
        yield fold
        held += len(np.unique(fold.nodes))
        if nodes is not None and held >= nodes:
            return


def share_of_uncovered(labels: PreparedLabels) -> float:
    """Estimate the share of tomorrow's queries whose answers have no label: Good and Turing's N1 / N.

    N is the number of labels, N1 the number of nodes that have exactly one.

    References:
        Good, The Population Frequencies of Species and the Estimation of Population Parameters, Biometrika 1953.
    """
    counts = np.bincount(labels.node_of_pair)
    return float((counts == 1).sum() / max(1, counts.sum()))


def _folds(
    labels: PreparedLabels, n_nodes: int, seed: int, count: int | None = None, *, covered_too: bool = False
) -> Iterator[_Fold]:
    rng, count = np.random.default_rng(seed), count or FOLDS
    known = np.unique(labels.node_of_pair)
    fold_of_node = np.full(n_nodes, -1)
    fold_of_node[rng.permutation(known)] = np.arange(len(known)) % count
    order = np.lexsort((rng.random(len(labels.query_of_pair)), labels.query_of_pair))
    first = order[np.searchsorted(labels.query_of_pair, np.arange(labels.n_queries))]
    node_of_query = labels.node_of_pair[first]
    fold_of_query = fold_of_node[node_of_query]
    # Queries that are held out although their nodes are not: another fold than their node's.
    fold_of_covered = rng.integers(count, size=labels.n_queries) if covered_too else np.full(labels.n_queries, -1)
    for number in range(min(count, len(known))):
        here = fold_of_query[labels.query_of_pair] == number
        inside = fold_of_node[labels.node_of_pair] == number
        aside = ~here & (fold_of_covered == number)[labels.query_of_pair]
        train, held = ~here & ~inside & ~aside, here & inside
        if not train.any() or not held.any():
            continue
        queries = np.flatnonzero(fold_of_query == number)
        if len(queries) > MOST_JUDGED:
            queries = np.sort(rng.permutation(queries)[:MOST_JUDGED])
            here &= np.isin(labels.query_of_pair, queries)
            held = here & inside
        position = _positions(queries, labels.n_queries)
        others = here & ~inside
        rows = np.unique(labels.node_of_pair[train])
        yield _Fold(
            _as_labels(labels, train, fold_of_node != number),
            _part(labels, queries, position, held),
            (position[labels.query_of_pair[others]], labels.node_of_pair[others]),
            node_of_query[queries],
            rows,
            _known(labels, aside & ~inside, rows),
        )


def _positions(queries: IntArray, n_queries: int) -> IntArray:
    """Of every query its place among ``queries``, -1 if it is not there."""
    position = np.full(n_queries, -1)
    position[queries] = np.arange(len(queries))
    return position


def _known(labels: PreparedLabels, pairs: Flags, rows: IntArray) -> PreparedLabels:
    """The queries of ``pairs`` that have an answer among the labelled ``rows``, with all answers of theirs."""
    queries = np.unique(labels.query_of_pair[pairs & np.isin(labels.node_of_pair, rows)])
    return _part(labels, queries, _positions(queries, labels.n_queries), pairs & np.isin(labels.query_of_pair, queries))


def _as_labels(labels: PreparedLabels, pairs: Flags, known: Flags) -> LabeledQueries:
    """The queries of ``pairs``, with these answers and with their rejections of ``known`` nodes."""
    queries = np.unique(labels.query_of_pair[pairs])
    rejected = labels.rejected
    kept = np.isin(rejected.query_of_pair, queries) & known[rejected.node_of_pair]
    of_pair = np.concatenate([labels.query_of_pair[pairs], rejected.query_of_pair[kept]])
    nodes = np.concatenate([labels.node_of_pair[pairs], rejected.node_of_pair[kept]])
    grades = np.concatenate([labels.grades[pairs], -rejected.weights[kept]])
    order = np.argsort(of_pair, kind="stable")
    begins = np.searchsorted(of_pair[order], queries)
    return LabeledQueries(
        labels.vectors[queries],
        [part.tolist() for part in np.split(nodes[order], begins[1:])],
        [part.tolist() for part in np.split(grades[order], begins[1:])],
        None if labels.competitors is None else labels.competitors[queries],
    )


def _part(labels: PreparedLabels, queries: IntArray, position: IntArray, pairs: Flags) -> PreparedLabels:
    return PreparedLabels(
        labels.vectors[queries],
        position[labels.query_of_pair[pairs]],
        labels.node_of_pair[pairs],
        labels.grades[pairs],
        0,
        None if labels.competitors is None else labels.competitors[queries],
    )


def _of_rarest(changes: Float64Array, nodes: IntArray, counts: IntArray) -> UncoveredEffect:
    """The mean of ``changes`` over queries whose node has the fewest labels; ``counts`` are those of all nodes."""
    judged = np.sort(counts[np.unique(nodes)])
    few = counts[nodes] <= judged[min(ENOUGH_NODES, len(judged)) - 1]
    return UncoveredEffect(*_mean_by_node(changes[few], nodes[few]))


def _mean_by_node(changes: Float64Array, nodes: IntArray) -> tuple[float, float, float, int]:
    """The mean of ``changes`` (of queries), its interval over ``nodes`` (theirs), and how many nodes there are."""
    distinct, which = np.unique(nodes, return_inverse=True)
    sums: Float64Array = np.bincount(which, weights=changes).astype(np.float64)
    totals: Float64Array = np.bincount(which).astype(np.float64)
    return float(sums.sum() / totals.sum()), *_node_interval(sums, totals), len(distinct)


def _node_interval(sums: Float64Array, totals: Float64Array) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    at_once = max(1, DRAWN_AT_ONCE // len(sums))
    means = []
    for first in range(0, ROUNDS, at_once):
        rows = rng.integers(0, len(sums), size=(min(at_once, ROUNDS - first), len(sums)))
        means.append(sums[rows].sum(axis=1) / totals[rows].sum(axis=1))
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return float(low), float(high)
