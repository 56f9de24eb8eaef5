"""Estimate roughly what the reaches would give that were not asked for, at a fraction of what trying them costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from nudge_rag.common.arrays import FloatArray
from nudge_rag.solvers.auto.geometry import Geometry
from nudge_rag.solvers.auto.held_out_nodes import HeldOutNodes
from nudge_rag.solvers.auto.measures import Measures
from nudge_rag.solvers.auto.selection import TriedSetting
from nudge_rag.solvers.contrastive.solver import NudgeContrastive
from nudge_rag.solvers.labels import sample_labels
from nudge_rag.solvers.linear_map.solver import LinearMap
from nudge_rag.solvers.result import Candidate, NudgeFit

__all__ = ["KnownNudges", "OtherReaches"]

# The map is learned at one setting, in the middle of what `LinearMap` tries, in so many steps, from so many queries.
TAU, RIDGE, STEPS, QUERIES = 0.03, 0.1, 8, 3_000
# Nudges on top descend in so many steps, twice as often as an iteration of `NudgeContrastive` counts.
ITERATIONS = 3
# Cosines by which scores of moved nodes are lowered: every second one of those that are tried in full.
OFFSETS = (0.0, 0.02, 0.045, 0.08)


@dataclass(frozen=True)
class KnownNudges:
    """Nudges without a map, which those on top of a map descend from.

    Attributes:
        solver: at fixed points.
        fit: what it learned from the training labels.
        of_folds: what it learned from those of each fold.
    """

    solver: NudgeContrastive
    fit: NudgeFit
    of_folds: Sequence[FloatArray]


class OtherReaches:
    """What other reaches are expected to gain: one map, and the nudges that are known moved on from there.

    Trying a reach takes as long as all settings without a map. Here the map is learned at one setting, from the first
    folds alone, and the nudges on top descend from those without a map, so that few steps do. Estimated is the
    difference to those same nudges on the same folds, which noise blurs less than either.

    Args:
        plain: labels and nodes as they are, with the first folds alone; whatever competes is there as vectors.
        measures: of ``plain``.
        known: nudges without a map; None if none was worth trying: then maps are tried alone.
    """

    def __init__(self, plain: Geometry, measures: Measures, known: KnownNudges | None) -> None:
        self._plain, self._measures, self._known = plain, measures, known
        metric, similarity = plain.chooser.metric, plain.chooser.similarity
        learner = LinearMap(metric=metric, similarity=similarity, iterations=STEPS)
        # None starts from another one: each has seen labels that the other is judged by.
        self._adapter, *self._of_folds = (
            learner.fit_at(plain.nodes, sample_labels(labels, QUERIES), TAU, RIDGE)[0]
            for labels in (plain.train, *plain.held.training_labels)
        )

    def estimate(self, gain: float, *, of_nodes: bool) -> Candidate:
        """A rough record of one reach.

        Args:
            gain: what the best setting without a map is expected to gain.
            of_nodes: whether all nodes pass the map rather than all queries.
        """
        plain, known = self._plain, self._known
        # One after the other: of many labels, copies of all and of the folds would not fit together.
        fit = None if known is None else self._nudges(known, of_nodes=of_nodes)
        held = plain.held.map_with(self._of_folds, of_nodes=of_nodes)
        of_folds = [] if known is None else self._nudges_of_folds(known, held, of_nodes=of_nodes)
        mapped = plain.map_with(self._adapter, of_nodes=of_nodes).with_held(held)
        tried = [self._measures.measure_map(mapped, mapped.prefix)]
        if fit is not None:
            tried += self._lowered(mapped, fit, of_folds)
        best = max(tried, key=_expected)
        without = max((_expected(one) for one in self._known_again), default=0.0)
        reach = "nodes" if of_nodes else "queries"
        return replace(
            best.candidate,
            validation=None,
            expected=gain + _expected(best) - max(0.0, without),
            allowed=False,
            note=f"estimated roughly: reach={reach!r} tries it in full",
        )

    @cached_property
    def _known_again(self) -> list[TriedSetting]:
        """The nudges without a map, measured on the same folds as those on top of one."""
        known = self._known
        return [] if known is None else self._lowered(self._plain, known.fit, known.of_folds[: len(self._of_folds)])

    def _nudges(self, known: KnownNudges, *, of_nodes: bool) -> NudgeFit:
        """Nudges on top of the map, a few steps from those without one."""
        mapped, start = self._plain.map_with(self._adapter, of_nodes=of_nodes), known.fit.vectors
        if of_nodes:
            start = self._adapter.apply_to_nodes(start)
        solver = known.solver.with_iterations(ITERATIONS).starting_from(known.fit.rows, start)
        return solver.fit(mapped.nodes, mapped.train, background=mapped.background)

    def _nudges_of_folds(self, known: KnownNudges, held: HeldOutNodes, *, of_nodes: bool) -> list[FloatArray]:
        """The same of each fold."""
        starts = known.of_folds[: len(self._of_folds)]
        if of_nodes:
            starts = [adapter.apply_to_nodes(start) for adapter, start in zip(self._of_folds, starts, strict=True)]
        return held.solutions_from(known.solver.with_iterations(ITERATIONS), starts)

    def _lowered(self, geometry: Geometry, fit: NudgeFit, of_folds: Sequence[FloatArray]) -> list[TriedSetting]:
        settings = [(offset, fit.solver, None) for offset in OFFSETS]
        return self._measures.measure_lowered(geometry, fit, of_folds, settings, keep_lengths=True)


def _expected(one: TriedSetting) -> float:
    return one.candidate.expected or 0.0
