"""Every setting that ``"auto"`` chooses from, measured on validation queries and on held-out nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.solvers.auto.folds import FoldPlan
from nudge_rag.solvers.auto.geometry import Chooser, Geometry
from nudge_rag.solvers.auto.held_out_nodes import HeldOutNodes, share_of_uncovered
from nudge_rag.solvers.auto.lowered import FixedSolver, LoweredSolver
from nudge_rag.solvers.auto.measures import Measures
from nudge_rag.solvers.auto.other_reaches import KnownNudges, OtherReaches
from nudge_rag.solvers.auto.selection import TriedSetting, harms_nobody
from nudge_rag.solvers.contrastive.solver import NudgeContrastive
from nudge_rag.solvers.labels import LabelsLike, join_labels, prepare_labels, sample_labels
from nudge_rag.solvers.linear_map.adapter import QueryAdapter, without_scores
from nudge_rag.solvers.linear_map.solver import LinearMap
from nudge_rag.solvers.nudge_m import NudgeM
from nudge_rag.solvers.nudge_n import NudgeN
from nudge_rag.solvers.result import Candidate, NudgeFit

__all__ = ["SolverTrials"]

# Cosines: the larger, the less the uncovered queries lose, and the less the covered ones gain.
OFFSETS = (0.0, 0.01, 0.02, 0.03, 0.045, 0.06, 0.08, 0.12)
# How often the gap below the smallest offset that harms nobody is halved.
HALVINGS = 2
# Shares of the best step size of NUDGE-N and NUDGE-M.
SHARES = (1.0, 0.5)
# With few validation queries these points are tried too, and judged on folds of all labels.
FEW_TAUS, FEW_STRENGTHS = (0.05, 0.03), (30.0, 3.0)
# Labels times labelled nodes beyond which maps are chosen on fewer folds, and effects estimated on fewer: on as many
# as hold so many nodes.
MANY = 1_000_000
FEW_FOLDS, MAP_FOLDS, ENOUGH_NODES = 5, 2, 200
# Folds of more nodes than this are divided further: what is known of its nodes is sought for every training query.
MOST_IN_FOLD = 2_000
# Reaches that are not asked for are estimated on so many of the folds.
ROUGH_FOLDS, ROUGH_FOLDS_OF_MANY = 3, 1
# And against so many competitors: by queries times competitors, but never fewer than the least.
ROUGH_PRODUCTS, FEWEST_COMPETITORS = 200_000_000, 1_000
# With fewer validation queries than this, queries that folds hold out tell of covered queries as well.
ENOUGH_QUERIES = 500
# Of more validation queries a sample chooses the setting; the final solution learns from all. Every setting costs
# queries times labelled nodes: of these products so many, but never fewer queries than the least. By so many the mean
# gain of a query has a standard error of 0.9 points if single gains have one of 0.4, and the difference of two
# settings, which is paired, one of half of that.
MOST_JUDGED, LEAST_JUDGED, PRODUCTS = 5_000, 2_000, 20_000_000


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
        self._parts = train, val
        both = join_labels(train, val)
        size = {"n_nodes": nodes.shape[0], "dimension": nodes.shape[1], "dtype": nodes.dtype}
        labelled = prepare_labels(both, "labelled", **size)
        n_labelled = len(np.unique(labelled.node_of_pair))
        self._judged_at_most = _enough_to_judge(n_labelled)
        self._many = labelled.n_queries * n_labelled > MANY
        # Every solver moves the same rows: the nodes that have a training label.
        learned = prepare_labels(train, "training", **size)
        self._rows = np.unique(learned.node_of_pair)
        if not len(self._rows):
            raise ValueError("the training set has no query with an answer: there is nothing to learn from")
        judged = prepare_labels(sample_labels(val, self._judged_at_most), "validation", **size)
        if not judged.n_queries:
            raise ValueError("the validation set has no query with an answer: no solver can be chosen")
        self._few = judged.n_queries < ENOUGH_QUERIES and not self._many
        self._plan = FoldPlan(
            count=max(FEW_FOLDS, n_labelled // MOST_IN_FOLD) if self._many else None,
            enough_nodes=ENOUGH_NODES if self._many else None,
            covered_too=self._few,
        )
        # Of all labels no copy of the queries is kept.
        self._rare_share, self._n_queries, self._judged = share_of_uncovered(labelled), labelled.n_queries, judged
        self._plain = self._geometry(train, val, background)
        self._measures = self._measures_of(self._plain)
        self._simplest: list[FloatArray] | None = None
        self._known: KnownNudges | None = None
        self._known_gain = 0.0
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
        held = plain.held.map_with(of_folds, of_nodes=of_nodes)
        mapped = plain.map_with(adapter, of_nodes=of_nodes).with_held(held)
        yield self._measures.measure_map(mapped, f"{mapped.prefix}, tau {chosen.tau:g}, ridge {chosen.ridge:g}")
        yield from self._contrastive(mapped, keep_lengths=True)

    def final_adapter(self) -> QueryAdapter:
        """The map at the chosen setting, learned from training and validation labels together.

        Raises:
            ValueError: no map was chosen.
        """
        if self._point is None:
            raise ValueError("no map was chosen: run with_map first")
        return self._map.fit_at(self._nodes, join_labels(*self._parts), *self._point)[0]

    def other_reaches(self, reaches: Sequence[str], gain: float, vectors: FloatArray | None) -> Iterator[Candidate]:
        """Rough records of reaches that are not tried, after all settings that are: nothing can be tried afterwards.

        Args:
            reaches: which ones.
            gain: what the best setting without a map is expected to gain.
            vectors: (b, d) of nodes that compete, in place of scores that the labels bring along; None if none do.
        """
        plain, measures = self._plain, self._measures
        # Folds hold copies of the queries: of many labels, two geometries would not fit.
        del self._plain, self._measures
        if vectors is not None:
            del plain, measures
            most = max(FEWEST_COMPETITORS, ROUGH_PRODUCTS // max(1, self._n_queries))
            train, val = (without_scores(part) for part in self._parts)
            plain = self._geometry(train, val, vectors[:most])
            measures = self._measures_of(plain)
        held = plain.held.first(ROUGH_FOLDS_OF_MANY if self._many else ROUGH_FOLDS)
        rough = OtherReaches(replace(plain, held=held), measures, self._known)
        yield from (rough.estimate(gain, of_nodes=reach == "nodes") for reach in reaches)

    def _geometry(self, train: LabelsLike, val: LabelsLike, background: Any) -> Geometry:
        """Labels and nodes as they are, with all labels in folds; of many validation queries a sample judges."""
        chooser, both = self._chooser, join_labels(train, val)
        held = HeldOutNodes(self._nodes, both, chooser.metric, chooser.similarity, background, self._plan)
        judged = sample_labels(val, self._judged_at_most)
        return Geometry(chooser, train, judged, held, self._nodes, self._rows, background)

    def _measures_of(self, geometry: Geometry) -> Measures:
        return Measures(self._chooser, self._rare_share, self._judged, self._rows, geometry.before)

    def _steps(self, name: str, kind: Callable[..., Any], solver: Any) -> Iterator[TriedSetting]:
        plain, similarity = self._plain, self._chooser.similarity
        first = solver.fit(self._nodes, plain.train, plain.val, background=self._background)
        if not first.gamma:
            yield self._measures.measure(plain, name, first, 0.0, None, None)
            return
        for share in SHARES:
            fixed = kind(gamma=share * first.gamma, similarity=similarity)
            whole = first if share == 1 else fixed.fit(self._nodes, plain.train, background=self._background)
            fit = replace(first, vectors=whole.vectors, gamma=share * first.gamma)
            solutions = plain.held.solutions(fixed)
            if self._many and name == NudgeN.name and share == 1:
                self._simplest = solutions
            yield from self._lowered(plain, name, fit, fixed, solutions, keep_lengths=name != "nudge-m")

    def _contrastive(self, geometry: Geometry, *, keep_lengths: bool) -> Iterator[TriedSetting]:
        """What validation chooses, and if that is small other points; of much validation without negatives too.

        Nudges that learn nothing of nodes that nobody labelled do not learn to win against them: they are tried if a
        group of queries without labelled answers loses by those that do.
        """
        solver = NudgeContrastive(
            metric=self._chooser.metric,
            similarity=self._chooser.similarity,
            refit=False,
            keep_lengths=keep_lengths,
        )
        fit = solver.fit(geometry.nodes, geometry.train, geometry.val, background=geometry.background)
        if not fit.averaged and not self._few:
            yield self._measures.measure(geometry, _name_of(keep_lengths), fit, 0.0, None, None)
            return
        for points in self._points(fit):
            fixed = solver.at_points(points)
            # Validation has solved at its own points.
            whole = fit if points == fit.averaged else self._solved(geometry, fixed, fit)
            solutions = self._solutions(geometry, self._of_folds(fixed))
            bold = list(self._averaged(geometry, fixed, whole, solutions))
            yield from bold
            self._remember(geometry, bold, KnownNudges(self._of_folds(fixed), whole, solutions))
            if not self._few and min(bold[0].candidate.uncovered or 0.0, bold[0].candidate.new_nodes or 0.0) < 0:
                careful = solver.at_points(points, negatives=0)
                whole = self._solved(geometry, careful.starting_from_fit(whole), fit)
                solutions = geometry.held.solutions_from(self._of_folds(careful), solutions)
                yield from self._averaged(geometry, careful, whole, solutions)

    def _solutions(self, geometry: Geometry, solver: NudgeContrastive) -> list[FloatArray]:
        """Of each fold, what ``solver`` learns; of many labels from where NUDGE-N led, in fewer steps."""
        if self._simplest is None or geometry is not self._plain:
            return geometry.held.solutions(solver)
        return geometry.held.solutions_from(solver, self._simplest)

    def _remember(self, geometry: Geometry, tried: Sequence[TriedSetting], known: KnownNudges) -> None:
        """Keep the nudges that are expected to gain most, if all reaches can begin from them."""
        gain = max(one.candidate.expected or 0.0 for one in tried)
        if geometry is self._plain and known.solver.keep_lengths and (self._known is None or gain > self._known_gain):
            self._known, self._known_gain = known, gain

    def _solved(self, geometry: Geometry, solver: NudgeContrastive, fit: NudgeFit) -> NudgeFit:
        """The record ``fit`` with what ``solver`` learns from the training labels."""
        whole = solver.fit(geometry.nodes, geometry.train, background=geometry.background)
        return replace(fit, vectors=whole.vectors, gamma=whole.gamma, averaged=whole.averaged, parts=whole.parts)

    def _of_folds(self, solver: NudgeContrastive) -> NudgeContrastive:
        """The solver of folds: of many labels at the best point alone, an average of several costs others no more."""
        points = list(zip(solver.taus, solver.strength or (), strict=True))
        return solver.at_points(points[:1]) if self._many else solver

    def _points(self, fit: NudgeFit) -> list[tuple[tuple[float, float], ...]]:
        """Temperatures and strengths to average the solutions of: what validation chose, and if that is small more."""
        chosen = [fit.averaged] if fit.averaged else []
        if not self._few:
            return chosen
        return [*(tuple((tau, strength) for tau in FEW_TAUS) for strength in FEW_STRENGTHS), *chosen]

    def _averaged(
        self, geometry: Geometry, solver: NudgeContrastive, fit: NudgeFit, solutions: Sequence[FloatArray]
    ) -> Iterator[TriedSetting]:
        """The average of the solutions at the points of ``solver``."""
        name = _name_of(solver.keep_lengths)
        name = name if solver.negatives else f"{name}, labelled negatives"
        if self._few:
            # What validation chose may have the strength of another point that is tried.
            taus = "" if solver.taus == FEW_TAUS else f", tau {' and '.join(f'{tau:g}' for tau in solver.taus)}"
            name = f"{name}, strength {1 / fit.gamma:g}{taus}"
        # The final solution starts from this one; not of few labels, where solving anew costs nothing, nor after a map,
        # which is learned anew as well.
        anew = self._few or bool(geometry.prefix)
        final = solver if anew else solver.starting_from_fit(fit)
        yield from self._lowered(geometry, name, fit, final, solutions, keep_lengths=solver.keep_lengths)

    def _lowered(
        self,
        geometry: Geometry,
        name: str,
        fit: NudgeFit,
        solver: FixedSolver,
        solutions: Sequence[FloatArray],
        *,
        keep_lengths: bool,
    ) -> Iterator[TriedSetting]:
        """A solution with the scores of moved nodes lowered by each offset: that costs next to nothing."""

        def lowered(*offsets: float) -> list[TriedSetting]:
            settings = [
                (
                    offset,
                    f"{name}, offset {offset:g}" if offset else name,
                    LoweredSolver(solver, offset, keep_lengths) if offset else solver,
                )
                for offset in offsets
            ]
            return self._measures.measure_lowered(geometry, fit, solutions, settings, keep_lengths=keep_lengths)

        tried = dict(zip(OFFSETS, lowered(*OFFSETS), strict=True))
        yield from tried.values()
        harmless = next((offset for offset, one in tried.items() if harms_nobody(one.candidate)), 0.0)
        harmful = max((offset for offset in OFFSETS if offset < harmless), default=0.0)
        for _ in range(HALVINGS if harmless else 0):
            middle = (harmful + harmless) / 2
            (one,) = lowered(middle)
            yield one
            harmful, harmless = (harmful, middle) if harms_nobody(one.candidate) else (middle, harmless)


def _enough_to_judge(n_labelled: int) -> int:
    """How many validation queries choose the setting.

    Example:
        >>> _enough_to_judge(1_000), _enough_to_judge(8_000), _enough_to_judge(50_000)
        (5000, 2500, 2000)
    """
    return int(np.clip(PRODUCTS // max(1, n_labelled), LEAST_JUDGED, MOST_JUDGED))


def _name_of(keep_lengths: bool) -> str:
    return "nudge-contrastive" if keep_lengths else "nudge-contrastive, lengths free"
