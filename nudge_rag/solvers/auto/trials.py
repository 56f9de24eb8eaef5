"""Every setting that ``"auto"`` chooses from, measured on validation queries and on held-out nodes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from nudge_rag.common.arrays import BoolArray, Float64Array, FloatArray
from nudge_rag.common.similarity import Similarity
from nudge_rag.evaluation.metrics import Metric
from nudge_rag.evaluation.significance import bootstrap_interval
from nudge_rag.solvers.auto.held_out_nodes import FEW_NODES, GroupEffects, HeldOutNodes, share_of_uncovered
from nudge_rag.solvers.auto.selection import TriedSetting
from nudge_rag.solvers.contrastive.offset import common_direction, lower_scores
from nudge_rag.solvers.contrastive.solver import NudgeContrastive
from nudge_rag.solvers.labels import LabeledQueries, LabelsLike, join_labels, prepare_labels, sample_labels
from nudge_rag.solvers.linear_map.adapter import MappedBlocks, QueryAdapter, map_labels, without_scores
from nudge_rag.solvers.linear_map.solver import LinearMap
from nudge_rag.solvers.nudge_m import NudgeM
from nudge_rag.solvers.nudge_n import NudgeN
from nudge_rag.solvers.result import Candidate, NudgeFit
from nudge_rag.solvers.scoring.validation import ValidationScorer

__all__ = ["SolverTrials", "map_space"]

logger = logging.getLogger(__name__)

# Cosines: the larger, the less the uncovered queries lose, and the less the covered ones gain.
OFFSETS = (0.0, 0.01, 0.02, 0.03, 0.045, 0.06, 0.08, 0.12)
# Shares of the best step size of NUDGE-N and NUDGE-M.
SHARES = (1.0, 0.5, 0.25, 0.125)
# On mapped queries validation hardly tells a bold solution from a careful one: how often a penalty that is so many
# times stronger is tried too.
MORE_CAREFUL, TIMES_STRONGER = 2, 10.0
# Labels times labelled nodes beyond which maps are chosen on fewer folds, and effects estimated on fewer: on as many
# as hold so many nodes.
MANY = 1_000_000
FEW_FOLDS, MAP_FOLDS, ENOUGH_NODES = 5, 2, 200
# With fewer validation queries than this, queries that folds hold out tell of covered queries as well.
ENOUGH_QUERIES = 500
# Of more validation queries a sample chooses the setting; the final solution learns from all.
MOST_JUDGED = 5_000


class Chooser(Protocol):
    """What the trials ask of the solver that chooses."""

    metric: Metric
    similarity: Similarity
    tolerance: float | None
    uncovered_share: float | None


@dataclass(frozen=True)
class _Geometry:
    """The labels and the nodes where queries are searched from and found, and the scorers for that."""

    train: LabelsLike
    val: LabelsLike
    held: HeldOutNodes
    scorer: ValidationScorer
    nodes: FloatArray
    background: Any
    prefix: str = ""


class SolverTrials:
    """Settings of every solver, each with its value on the validation queries and its effects on held-out nodes.

    Args:
        chooser: metric, similarity, tolerance and share of uncovered queries.
        nodes: (n, d) node embeddings.
        train: labels to learn from.
        val: labels to measure on.
        background: more nodes that only compete.
    """

    def __init__(
        self, chooser: Chooser, nodes: FloatArray, train: LabelsLike, val: LabelsLike, background: Any
    ) -> None:
        self._chooser, self._nodes, self._background = chooser, nodes, background
        self._both = join_labels(train, val)
        val = sample_labels(val, MOST_JUDGED)
        size = {"n_nodes": nodes.shape[0], "dimension": nodes.shape[1], "dtype": nodes.dtype}
        labelled = prepare_labels(self._both, "labelled", **size)
        estimated = share_of_uncovered(labelled)
        self._uncovered = estimated if chooser.uncovered_share is None else chooser.uncovered_share
        self._many = labelled.n_queries * len(np.unique(labelled.node_of_pair)) > MANY
        # Every solver moves the same rows: the nodes that have a training label.
        learned = prepare_labels(train, "training", **size)
        self._rows = np.unique(learned.node_of_pair)
        judged = prepare_labels(val, "validation", **size)
        if not judged.n_queries:
            raise ValueError("the validation set has no query with an answer: no solver can be chosen")
        self._covered = _covered_queries(judged.query_of_pair, np.isin(judged.node_of_pair, self._rows))
        held = HeldOutNodes(
            nodes,
            self._both,
            chooser.metric,
            chooser.similarity,
            background,
            folds=FEW_FOLDS if self._many else None,
            enough_nodes=ENOUGH_NODES if self._many else None,
            covered_too=judged.n_queries < ENOUGH_QUERIES and not self._many,
        )
        self._plain = _Geometry(train, val, held, self._scorer(val, nodes, background), nodes, background)
        self._before = self._plain.scorer.per_query(nodes[self._rows])
        self._map = LinearMap(metric=chooser.metric, similarity=chooser.similarity)
        self._point: tuple[float, float] | None = None

    def without_map(self) -> Iterator[TriedSetting]:
        """Settings of solvers that leave queries as they are, from the simplest solver to the most elaborate."""
        metric, similarity = self._chooser.metric, self._chooser.similarity
        yield from self._steps("nudge-n", NudgeN, NudgeN(metric=metric, similarity=similarity))
        if similarity == "dot":
            yield from self._steps("nudge-m", NudgeM, NudgeM(metric=metric))
        yield from self._contrastive(self._plain, keep_lengths=True)
        if similarity == "dot":
            yield from self._contrastive(self._plain, keep_lengths=False)

    def with_map(self, *, of_nodes: bool = False) -> Iterator[TriedSetting]:
        """The map alone, and nudges on top of it; nothing if no map helps the queries of held-out nodes.

        Args:
            of_nodes: all nodes pass the map, and queries stay as they are.
        """
        plain = self._plain
        folds = plain.held.first(MAP_FOLDS) if self._many else plain.held
        chosen = self._map.choose(self._nodes, folds)
        if chosen is None:
            return
        self._point = chosen.tau, chosen.ridge
        adapter, _ = self._map.fit_at(self._nodes, plain.train, *self._point)
        of_folds = self._map.fit_folds(self._nodes, plain.held, *self._point)
        mapped = self._with_nodes(adapter, of_folds) if of_nodes else self._with_queries(adapter, of_folds)
        still = mapped.nodes[self._rows]
        untouched = NudgeN(gamma=0.0, similarity=self._chooser.similarity).fit(
            mapped.nodes, mapped.train, background=mapped.background
        )
        name = f"{mapped.prefix}, tau {chosen.tau:g}, ridge {chosen.ridge:g}"
        yield self._measured(mapped, name, replace(untouched, solver=mapped.prefix, vectors=still), 0.0, None, None)
        yield from self._contrastive(mapped, keep_lengths=True)

    def final_adapter(self) -> QueryAdapter:
        """The map at the chosen setting, learned from training and validation labels together.

        Raises:
            ValueError: no map was chosen.
        """
        if self._point is None:
            raise ValueError("no map was chosen: run with_map first")
        return self._map.fit_at(self._nodes, self._both, *self._point)[0]

    def _with_queries(self, adapter: QueryAdapter, of_folds: Sequence[QueryAdapter]) -> _Geometry:
        train, val = map_labels(self._plain.train, adapter), map_labels(self._plain.val, adapter)
        held = self._plain.held.with_adapters(of_folds)
        scorer = self._scorer(val, self._nodes, self._background)
        return _Geometry(train, val, held, scorer, self._nodes, self._background, "map")

    def _with_nodes(self, adapter: QueryAdapter, of_folds: Sequence[QueryAdapter]) -> _Geometry:
        nodes, background = map_space(self._nodes, self._background, adapter)
        train, val = without_scores(self._plain.train), without_scores(self._plain.val)
        held = self._plain.held.with_mapped_nodes(of_folds)
        return _Geometry(train, val, held, self._scorer(val, nodes, background), nodes, background, "node map")

    def _scorer(self, val: LabelsLike, nodes: FloatArray, background: Any) -> ValidationScorer:
        judged = prepare_labels(val, "validation", n_nodes=nodes.shape[0], dimension=nodes.shape[1], dtype=nodes.dtype)
        chooser = self._chooser
        return ValidationScorer(judged, nodes, self._rows, background, chooser.metric, chooser.similarity)

    def _steps(self, name: str, kind: Callable[..., Any], solver: Any) -> Iterator[TriedSetting]:
        plain = self._plain
        first = solver.fit(self._nodes, plain.train, plain.val, background=self._background)
        for share in SHARES if first.gamma else SHARES[:1]:
            final = kind(gamma=share * first.gamma, similarity=self._chooser.similarity)
            fit = first
            if share != 1:
                fit = final.fit(self._nodes, plain.train, background=self._background)
            solutions = plain.held.solutions(final) if first.gamma else None
            shown = replace(first, vectors=fit.vectors)
            yield self._measured(plain, name, shown, share * first.gamma, final, solutions)

    def _contrastive(self, geometry: _Geometry, *, keep_lengths: bool) -> Iterator[TriedSetting]:
        """The solution that validation chooses; on mapped queries, ever more careful ones too while new nodes lose."""
        solver = NudgeContrastive(
            metric=self._chooser.metric,
            similarity=self._chooser.similarity,
            refit=False,
            keep_lengths=keep_lengths,
        )
        fit = solver.fit(geometry.nodes, geometry.train, geometry.val, background=geometry.background)
        if not fit.averaged:
            yield self._measured(geometry, _name_of(keep_lengths), fit, 0.0, None, None)
            return
        points = fit.averaged
        for more in range(1 + (MORE_CAREFUL if geometry.prefix else 0)):
            if more:
                points = tuple((tau, TIMES_STRONGER * strength) for tau, strength in points)
                careful = solver.at_points(points).fit(geometry.nodes, geometry.train, background=geometry.background)
                fit = replace(fit, vectors=careful.vectors, gamma=careful.gamma)
            settings = list(self._offsets(geometry, solver, replace(fit, averaged=points), keep_lengths=keep_lengths))
            yield from settings
            if all(high is None or high >= 0 for high in (settings[0].candidate.high, settings[0].candidate.new_high)):
                break

    def _offsets(
        self, geometry: _Geometry, solver: NudgeContrastive, fit: NudgeFit, *, keep_lengths: bool
    ) -> Iterator[TriedSetting]:
        """Solved once; what an offset does to the solutions costs next to nothing.

        The final solution starts from that for all labels. Those of folds start from the untouched nodes: they must not
        know what the labels that are held out had done.
        """
        fixed = solver.at_points(fit.averaged)
        whole = fixed.solve(geometry.nodes, join_labels(geometry.train, geometry.val), geometry.background)
        # Of many labels, folds are solved at the best point alone: an average of several costs others no more.
        in_folds = solver.at_points(fit.averaged[:1]) if self._many else fixed
        solutions = geometry.held.solutions(in_folds)
        direction = common_direction(_vectors_of(geometry.train))
        directions = [common_direction(vectors) for vectors in geometry.held.training_vectors]
        for offset in OFFSETS:
            moved = [
                lower_scores(vectors, each, offset, keep_lengths=keep_lengths)
                for vectors, each in zip(solutions, directions, strict=True)
            ]
            shown = replace(fit, vectors=lower_scores(fit.vectors, direction, offset, keep_lengths=keep_lengths))
            final = solver.at_points(fit.averaged, offset).starting_from(whole)
            name = f"{_name_of(keep_lengths)}, offset {offset:g}"
            yield self._measured(geometry, name, shown, fit.gamma, final, moved)

    def _measured(
        self,
        geometry: _Geometry,
        name: str,
        fit: NudgeFit,
        gamma: float,
        final: Any,
        solutions: Sequence[FloatArray] | None,
    ) -> TriedSetting:
        """``solutions`` are those of the folds; None if no node moves there."""
        values = geometry.scorer.per_query(fit.vectors)
        mapped = bool(geometry.prefix)
        effects = geometry.held.effects(solutions)
        if mapped and not name.startswith(geometry.prefix):
            name = f"{geometry.prefix} + {name}"
        aside = np.zeros(0) if effects is None else effects.covered
        gains = np.concatenate([(values - self._before)[self._covered], aside])
        candidate = self._candidate(name, gamma, float(values.mean()), gains, effects)
        logger.info("%s", candidate)
        solver = f"{geometry.prefix} + {fit.solver}" if mapped and fit.solver != geometry.prefix else fit.solver
        return TriedSetting(solver, candidate, gains, final, replace(fit, solver=solver), mapped)

    def _candidate(
        self, name: str, gamma: float, validation: float, gains: Float64Array, effects: GroupEffects | None
    ) -> Candidate:
        covered = float(gains.mean())
        low, high = bootstrap_interval(np.zeros_like(gains), gains) if gains.any() else (covered, covered)
        candidate = Candidate(
            name,
            gamma,
            validation,
            covered=covered,
            covered_low=low,
            covered_high=high,
            expected=covered,
            allowed=True,
            note=_note(effects),
        )
        if effects is None:
            return candidate
        uncovered, new = effects.uncovered, effects.new_nodes
        return replace(
            candidate,
            uncovered=uncovered.change,
            low=uncovered.low,
            high=uncovered.high,
            held_out_nodes=uncovered.n_nodes,
            new_nodes=new.change,
            new_low=new.low,
            new_high=new.high,
            expected=(1 - self._uncovered) * covered + self._uncovered * uncovered.change,
            allowed=effects.within(self._chooser.tolerance),
        )


def map_space(nodes: FloatArray, background: Any, adapter: QueryAdapter) -> tuple[FloatArray, Any]:
    """All nodes mapped, and those that only compete, a block at a time."""
    return adapter.apply_to_nodes(nodes), None if background is None else MappedBlocks(background, adapter)


def _covered_queries(query_of_pair: Any, known: BoolArray) -> BoolArray:
    """Whether each query has an answer with a training label; all queries if none has."""
    covered = np.bincount(query_of_pair, weights=known) > 0
    return covered if covered.any() else np.ones_like(covered)


def _name_of(keep_lengths: bool) -> str:
    return "nudge-contrastive" if keep_lengths else "nudge-contrastive, lengths free"


def _vectors_of(labels: LabelsLike) -> FloatArray:
    return np.asarray(labels.vectors if isinstance(labels, LabeledQueries) else labels[0])


def _note(effects: GroupEffects | None) -> str:
    if effects is None:
        return "too few labelled nodes to estimate the effect on uncovered queries"
    if effects.uncovered.n_nodes < FEW_NODES:
        return f"only {effects.uncovered.n_nodes} labelled nodes: too few to tell the effect on uncovered queries"
    return ""
