"""Measure a setting: what covered queries gain by it on the validation part, and others on held-out nodes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nudge_rag.common.arrays import BoolArray, Float64Array, FloatArray, IntArray
from nudge_rag.evaluation.student import students_t
from nudge_rag.solvers.auto.geometry import Chooser, Geometry
from nudge_rag.solvers.auto.held_out_nodes import FEW_NODES, GroupEffects
from nudge_rag.solvers.auto.selection import TriedSetting
from nudge_rag.solvers.contrastive.offset import shift_of_offset
from nudge_rag.solvers.labels import PreparedLabels
from nudge_rag.solvers.nudge_n import NudgeN
from nudge_rag.solvers.result import Candidate, NudgeFit

__all__ = ["Measures"]

logger = logging.getLogger(__name__)

# The labels know nothing of documents that are to come: at least so many of tomorrow's queries are taken to ask for
# what nobody labelled, unless the user knows better.
LEAST_SHARE = 0.2


class Measures:
    """Turns solutions into tried settings, each with its change of every group of queries and the expected one.

    Args:
        chooser: tolerance, and share of uncovered queries.
        rare_share: of tomorrow's queries, those of rarely asked nodes (`share_of_uncovered` of all labels).
        judged: the validation queries.
        rows: increasing rows of the nodes that may move.
        before: (m,) the metric of the validation queries as all nodes are.
    """

    def __init__(
        self, chooser: Chooser, rare_share: float, judged: PreparedLabels, rows: IntArray, before: Float64Array
    ) -> None:
        self._before, self._tolerance = before, chooser.tolerance
        self._covered = _covered_queries(judged.query_of_pair, np.isin(judged.node_of_pair, rows))
        self._rare = rare_share
        given = chooser.uncovered_share
        self._uncovered = max(self._rare, LEAST_SHARE) if given is None else given

    def measure(
        self,
        geometry: Geometry,
        name: str,
        fit: NudgeFit,
        gamma: float,
        final: Any,
        solutions: Sequence[FloatArray] | None,
    ) -> TriedSetting:
        """The setting that ``fit`` is by; ``solutions`` are those of the folds, None if no node moves there."""
        values = geometry.scorer.per_query(fit.vectors)
        return self._setting(geometry, name, fit, gamma, final, values, geometry.held.effects(solutions))

    def measure_map(self, mapped: Geometry, name: str) -> TriedSetting:
        """The setting by which queries or all nodes pass a map, and no node moves beyond that."""
        still = NudgeN(gamma=0.0, similarity=mapped.chooser.similarity).fit(
            mapped.nodes, mapped.train, background=mapped.background
        )
        alone = replace(still, solver=mapped.prefix, vectors=mapped.nodes[mapped.rows])
        return self.measure(mapped, name, alone, 0.0, None, None)

    def measure_lowered(
        self,
        geometry: Geometry,
        fit: NudgeFit,
        solutions: Sequence[FloatArray],
        settings: Sequence[tuple[float, str, Any]],
        *,
        keep_lengths: bool,
    ) -> list[TriedSetting]:
        """The settings that ``fit`` is by, with the scores of moved nodes lowered: (offset, name, final solver) each.

        One product of queries and nodes serves all of them.
        """
        direction, directions = geometry.directions
        offsets = [offset for offset, _, _ in settings]
        shifts = [shift_of_offset(fit.vectors, direction, offset, keep_lengths=keep_lengths) for offset in offsets]
        values = geometry.scorer.per_query_shifted(fit.vectors, direction, shifts)
        effects = geometry.held.effects_lowered(solutions, directions, offsets, keep_lengths=keep_lengths)
        return [
            self._setting(geometry, name, fit, fit.gamma, final, of_queries, of_groups)
            for (_, name, final), of_queries, of_groups in zip(settings, values, effects, strict=True)
        ]

    def _setting(
        self,
        geometry: Geometry,
        name: str,
        fit: NudgeFit,
        gamma: float,
        final: Any,
        values: Float64Array,
        effects: GroupEffects | None,
    ) -> TriedSetting:
        """The setting of which ``values`` are the metric of the validation queries."""
        mapped = bool(geometry.prefix)
        if mapped and not name.startswith(geometry.prefix):
            name = f"{geometry.prefix} + {name}"
        aside = np.zeros(0) if effects is None else effects.covered
        gains = np.concatenate([(values - self._before)[self._covered], aside])
        candidate = self._candidate(name, gamma, float(values.mean()), gains, effects)
        logger.info("%s", candidate)
        solver = f"{geometry.prefix} + {fit.solver}" if mapped and fit.solver != geometry.prefix else fit.solver
        # Its vectors are solved for anew if it is chosen, and of many settings they are too many to keep.
        record = replace(fit, solver=solver, vectors=fit.vectors[:0].copy(), parts=())
        share = 1.0 if effects is None else 1 - self._uncovered
        return TriedSetting(solver, candidate, gains, share, final, record, mapped)

    def _expected(self, covered: float, uncovered: float, new_nodes: float) -> float:
        """The change over tomorrow's queries; those without labelled answers ask for rare nodes or for new ones."""
        rare = min(self._rare, self._uncovered)
        return (1 - self._uncovered) * covered + rare * uncovered + (self._uncovered - rare) * new_nodes

    def _candidate(
        self, name: str, gamma: float, validation: float, gains: Float64Array, effects: GroupEffects | None
    ) -> Candidate:
        covered = float(gains.mean())
        # One query says nothing of the spread.
        half = students_t(len(gains) - 1) * float(gains.std(ddof=1)) / np.sqrt(len(gains)) if len(gains) > 1 else None
        candidate = Candidate(
            name,
            gamma,
            validation,
            covered=covered,
            covered_low=None if half is None else covered - half,
            covered_high=None if half is None else covered + half,
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
            expected=self._expected(covered, uncovered.change, new.change),
            allowed=effects.within(self._tolerance),
        )


def _covered_queries(query_of_pair: IntArray, known: BoolArray) -> BoolArray:
    """Whether each query has an answer with a training label; all queries if none has."""
    covered = np.bincount(query_of_pair, weights=known) > 0
    return covered if covered.any() else np.ones_like(covered)


def _note(effects: GroupEffects | None) -> str:
    if effects is None:
        return "too few labelled nodes to estimate the effect on uncovered queries"
    if effects.uncovered.n_nodes < FEW_NODES:
        return f"only {effects.uncovered.n_nodes} labelled nodes: too few to tell the effect on uncovered queries"
    return ""
