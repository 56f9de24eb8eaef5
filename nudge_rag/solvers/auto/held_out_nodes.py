"""Estimate what a nudge does to queries whose answers have no label, by holding out the labels of whole nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np

from nudge_rag.common.arrays import BoolArray, Float64Array, FloatArray
from nudge_rag.common.similarity import Similarity
from nudge_rag.evaluation.metrics import Metric
from nudge_rag.solvers.auto.effects import GroupEffects, NodeMeans, UncoveredEffect, are_rarest
from nudge_rag.solvers.auto.folds import Fold, FoldPlan, divide_labels, take_enough
from nudge_rag.solvers.auto.lowered import FixedSolver
from nudge_rag.solvers.contrastive.offset import shift_of_offset
from nudge_rag.solvers.contrastive.solver import NudgeContrastive
from nudge_rag.solvers.labels import LabeledQueries, LabelsLike, PreparedLabels, prepare_labels
from nudge_rag.solvers.linear_map.adapter import MappedBlocks, QueryAdapter, without_scores
from nudge_rag.solvers.scoring.validation import ValidationScorer

__all__ = ["FEW_NODES", "GroupEffects", "HeldOutNodes", "UncoveredEffect", "share_of_uncovered"]

# With fewer held-out nodes than this an interval says little, and the report says so.
FEW_NODES = 20
ALL_FOLDS = FoldPlan()


class HeldOutNodes:
    """The labels, cut into folds of nodes: each fold's nodes are treated as if nobody had labelled them.

    Every query belongs to the fold of one of its answers, drawn at random; it is judged there by its answers in the
    fold, while its other answers do not compete. A fold's solution is fitted to the queries of the other folds, without
    their labels on the fold's nodes. All of it serves the estimate only: the final solution learns from every label.

    Queries of the least labelled nodes alone are counted. Hold out one labelled query: its node becomes uncovered
    exactly if it had no other label. So the queries of nodes with one label are distributed like future uncovered
    queries (the argument of Good, The Population Frequencies of Species, Biometrika 1953). If fewer than
    `effects.ENOUGH_NODES` nodes have one label, those with two count as well, and so on. Intervals are bootstrapped
    over nodes, since queries of one node fare alike.

    With `FoldPlan.covered_too` a part of the other queries is held out of each fold as well: where validation queries
    are few, they tell more surely what covered queries gain.
    """

    def __init__(
        self,
        embeddings: FloatArray,
        labels: LabelsLike,
        metric: Metric,
        similarity: Similarity,
        background: Any = None,
        plan: FoldPlan = ALL_FOLDS,
    ) -> None:
        self._embeddings = embeddings
        n_nodes, dimension = embeddings.shape
        prepared = prepare_labels(labels, "labelled", n_nodes=n_nodes, dimension=dimension, dtype=embeddings.dtype)
        self._counts = np.bincount(prepared.node_of_pair, minlength=n_nodes)
        self._metric, self._similarity = metric, similarity
        divided = divide_labels(prepared, n_nodes, plan.seed, plan.count, covered_too=plan.covered_too)
        self._folds = list(take_enough(divided, plan.enough_nodes))
        # Of each fold all nodes, and those that only compete: the same ones unless a map moves them.
        self._spaces: list[tuple[FloatArray, Any]] = [(embeddings, background)] * len(self._folds)
        self._means: tuple[NodeMeans, BoolArray, NodeMeans] | None = None
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
        fewer._means = None
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

    def map_with(self, adapters: Sequence[QueryAdapter], *, of_nodes: bool) -> HeldOutNodes:
        """The same folds with all queries mapped, or all nodes, each by its own adapter."""
        return self.with_mapped_nodes(adapters) if of_nodes else self.with_adapters(adapters)

    def solutions(self, solver: FixedSolver) -> list[FloatArray]:
        """Of each fold, the vectors of the nodes that its training labels move, by a solver with a fixed step."""
        return [self._solution(number, solver) for number in range(len(self._folds))]

    def solutions_from(self, solver: NudgeContrastive, starts: Sequence[FloatArray]) -> list[FloatArray]:
        """The same, each descending from another solution of its own fold: nothing is learned of its nodes by that."""
        return [
            self._solution(number, solver.starting_from(fold.rows, start))
            for number, (fold, start) in enumerate(zip(self._folds, starts, strict=True))
        ]

    def _solution(self, number: int, solver: FixedSolver) -> FloatArray:
        nodes, background = self._spaces[number]
        return solver.fit(nodes, self._folds[number].train, background=background).vectors

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
        return self._combined(_score_all(self._scorers, solutions), _score_all(self._covered, solutions))

    def effects_lowered(
        self,
        solutions: Sequence[FloatArray],
        directions: Sequence[Float64Array],
        offsets: Sequence[float],
        *,
        keep_lengths: bool,
    ) -> list[GroupEffects | None]:
        """The effects of ``solutions`` with their scores lowered by each of ``offsets`` (`offset.lower_scores`)."""
        after: list[list[Float64Array]] = [[] for _ in offsets]
        covered: list[list[Float64Array]] = [[] for _ in offsets]
        for number, (vectors, direction) in enumerate(zip(solutions, directions, strict=True)):
            shifts = [shift_of_offset(vectors, direction, offset, keep_lengths=keep_lengths) for offset in offsets]
            for found, scorer in ((after, self._scorers[number]), (covered, self._covered[number])):
                none = [np.zeros(0)] * len(offsets)
                values = none if scorer is None else scorer.per_query_shifted(vectors, direction, shifts)
                for each, of_fold in zip(found, values, strict=True):
                    each.append(of_fold)
        return [self._combined(*both) for both in zip(after, covered, strict=True)]

    def _combined(self, after: Sequence[Float64Array], covered_after: Sequence[Float64Array]) -> GroupEffects | None:
        """What the metric of each fold's queries changes, from what it is after."""
        changes = [values - before for values, before in zip(after, self._before, strict=True)]
        if not changes:
            return None
        if self._means is None:
            nodes = np.concatenate([fold.nodes for fold in self._folds])
            rarest = are_rarest(nodes, self._counts)
            self._means = NodeMeans(nodes), rarest, NodeMeans(nodes[rarest])
        covered = [values - before for values, before in zip(covered_after, self._covered_before, strict=True)]
        every, rarest, of_rarest = self._means
        together = np.concatenate(changes)
        return GroupEffects(of_rarest.effect(together[rarest]), every.effect(together), np.concatenate(covered))

    def _score_folds(self) -> None:
        places = list(zip(self._folds, self._spaces, strict=True))
        self._scorers = [self._scorer(fold, *space) for fold, space in places]
        self._covered = [self._covered_scorer(fold, *space) for fold, space in places]

    def _scorer(self, fold: Fold, nodes: FloatArray, background: Any) -> ValidationScorer:
        return ValidationScorer(fold.held, nodes, fold.rows, background, self._metric, self._similarity, fold.ignored)

    def _covered_scorer(self, fold: Fold, nodes: FloatArray, background: Any) -> ValidationScorer | None:
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


def share_of_uncovered(labels: PreparedLabels) -> float:
    """Estimate the share of tomorrow's queries whose answers have no label: Good and Turing's N1 / N.

    N is the number of labels, N1 the number of nodes that have exactly one.

    References:
        Good, The Population Frequencies of Species and the Estimation of Population Parameters, Biometrika 1953.
    """
    counts = np.bincount(labels.node_of_pair)
    return float((counts == 1).sum() / max(1, counts.sum()))
