"""``solver="auto"``: the solver and the step that validation prefers, among those that harm no uncovered queries."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nudge_rag.common.arrays import FloatArray, as_matrix
from nudge_rag.common.similarity import Similarity
from nudge_rag.evaluation.metrics import Metric, parse_metric
from nudge_rag.solvers.auto.held_out_nodes import FEW_NODES, HeldOutNodes, UncoveredEffect
from nudge_rag.solvers.auto.selection import TriedSetting, preferred_setting, search_setting
from nudge_rag.solvers.contrastive.offset import common_direction, lower_scores
from nudge_rag.solvers.contrastive.solver import NudgeContrastive
from nudge_rag.solvers.devices import is_foreign
from nudge_rag.solvers.labels import LabelsLike, join_labels, prepare_labels
from nudge_rag.solvers.needs import SolverNeeds
from nudge_rag.solvers.nudge_m import NudgeM
from nudge_rag.solvers.nudge_n import NudgeN
from nudge_rag.solvers.result import Candidate, NudgeFit
from nudge_rag.solvers.scoring.validation import ValidationScorer

__all__ = ["AutoSolver"]

logger = logging.getLogger(__name__)

# Cosines: the larger, the less the uncovered queries lose, and the less the covered ones gain.
OFFSETS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12)
HALVINGS = 2
# Shares of the best step size of NUDGE-N and NUDGE-M.
SHARES = (1.0, 0.5, 0.25, 0.125)


class AutoSolver:
    """Fit the solvers, keep what harms no uncovered queries, and choose by validation.

    Of each solver, settings go from the boldest to the most careful (NUDGE-N and NUDGE-M: ever shorter steps;
    `NudgeContrastive`: scores of moved nodes lowered by ever larger offsets), until the loss that `HeldOutNodes`
    estimates for queries whose answers have no label is within ``tolerance``; where that is None, further on to one
    that is not estimated to lose anything, as long as validation does not lose significantly by it. The way
    from the last offset that does not qualify to the first that does is narrowed down. Of these settings, one a solver,
    the one with the best mean of ``metric`` on the validation queries is chosen; a simpler solver is kept unless the
    other one is better by more than one standard error of the paired differences. The final solution learns from
    training and validation labels together. Every setting tried is in ``tried`` of the result. Nothing moves where
    no setting qualifies.

    Args:
        metric: what is measured.
        similarity: how the store ranks.
        tolerance: the loss of ``metric`` that uncovered queries may suffer, such as 0.01; None: no significant loss
            (the 95 % interval reaches 0), and none at all where that costs nothing significant. ``math.inf`` switches
            the guard off.

    Example:
        >>> import numpy as np
        >>> queries = np.array([[0.65, 0.76, 0.0], [0.65, 0.7, 0.0]])
        >>> fit = AutoSolver().fit(np.eye(3), (queries, [[0], [0]]), (queries, [[0], [0]]))
        >>> fit.improved, fit.solver, [setting.solver for setting in fit.tried if setting.chosen]
        (True, 'nudge-n', ['nudge-n'])
    """

    name = "auto"

    def __init__(
        self,
        *,
        metric: str | Metric = "nDCG@10",
        similarity: Similarity = "cosine",
        tolerance: float | None = None,
    ) -> None:
        if tolerance is not None and not tolerance >= 0:
            raise ValueError(f"tolerance must be None or at least 0, got {tolerance!r}")
        self.metric = parse_metric(metric)
        self.similarity: Similarity = similarity
        self.tolerance = tolerance
        self._contrastive = NudgeContrastive(metric=self.metric, similarity=similarity)

    @property
    def needs(self) -> SolverNeeds:
        """As deep for training as for validation queries, since the final solution learns from both."""
        depth = self._contrastive.needs.depth
        return SolverNeeds(depth=depth, train_depth=depth, learns_from_validation=True, training_queries=True)

    def fit(
        self,
        embeddings: ArrayLike,
        train: LabelsLike,
        val: LabelsLike | None = None,
        *,
        background: FloatArray | Iterable[FloatArray] | None = None,
    ) -> NudgeFit:
        """Choose, and solve for the covered rows of ``embeddings``. Arguments and errors as `NudgeN.fit`.

        Raises:
            TypeError: embeddings of another array library than numpy.
            ValueError: no validation query with an answer.
        """
        if is_foreign(embeddings):
            raise TypeError("AutoSolver needs numpy arrays: use NudgeN or NudgeM")
        nodes = as_matrix(embeddings, "embeddings")
        if background is not None and not isinstance(background, np.ndarray):
            background = list(background)  # gone over many times
        if val is None:
            raise ValueError("validation queries are needed to choose a solver")
        both = join_labels(train, val)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of queries without answers, once for all, below
            trials = _Trials(
                self, nodes, train, val, HeldOutNodes(nodes, both, self.metric, self.similarity, background), background
            )
            found = [*trials.all()]
        tried = [one for all_of_one_solver, _ in found for one in all_of_one_solver]
        chosen = preferred_setting([standing for _, standing in found if standing is not None])
        best = chosen if chosen is not None else replace(tried[0], final=NudgeN(gamma=0.0, similarity=self.similarity))
        whole = best.final.fit(nodes, both, background=background)
        candidates = [replace(one.candidate, chosen=one is chosen) for one in tried]
        return replace(
            best.fit,
            rows=whole.rows,
            vectors=whole.vectors,
            gamma=best.candidate.gamma if chosen is not None else 0.0,
            improved=chosen is not None,
            descents=best.fit.descents + whole.descents,
            tried=tuple(candidates),
        )


class _Trials:
    """Every setting with its value on the validation queries and its effect on uncovered ones."""

    def __init__(
        self,
        auto: AutoSolver,
        nodes: FloatArray,
        train: LabelsLike,
        val: LabelsLike,
        held: HeldOutNodes,
        background: Any,
    ) -> None:
        self._auto, self._nodes, self._train, self._val = auto, nodes, train, val
        self._held, self._background = held, background
        size = {"n_nodes": nodes.shape[0], "dimension": nodes.shape[1], "dtype": nodes.dtype}
        # Every solver moves the same rows: the nodes that have a training label.
        learned = prepare_labels(train, "training", **size)
        self._train_vectors, rows = learned.vectors, np.unique(learned.node_of_pair)
        judged = prepare_labels(val, "validation", **size)
        self._judge = ValidationScorer(judged, nodes, rows, background, auto.metric, auto.similarity)

    def all(self) -> Iterator[tuple[list[TriedSetting], TriedSetting | None]]:
        """From the simplest solver to the most elaborate: what was tried of each, and the one to take."""
        metric, similarity = self._auto.metric, self._auto.similarity
        yield self._steps("nudge-n", NudgeN, NudgeN(metric=metric, similarity=similarity))
        if similarity == "dot":
            yield self._steps("nudge-m", NudgeM, NudgeM(metric=metric))
        yield self._contrastive(keep_lengths=True)
        if similarity == "dot":
            yield self._contrastive(keep_lengths=False)

    def _steps(
        self, name: str, kind: Callable[..., Any], solver: Any
    ) -> tuple[list[TriedSetting], TriedSetting | None]:
        first = solver.fit(self._nodes, self._train, self._val, background=self._background)

        def at(share: float) -> TriedSetting:
            final = kind(gamma=share * first.gamma, similarity=self._auto.similarity)
            fit = first if share == 1 else final.fit(self._nodes, self._train, background=self._background)
            solutions = self._held.solutions(final) if first.gamma else []
            shown = replace(first, vectors=fit.vectors)
            return self._measured(name, shown, share * first.gamma, final, solutions)

        return search_setting(at, SHARES if first.gamma else SHARES[:1], self._auto.tolerance, halvings=0)

    def _contrastive(self, *, keep_lengths: bool) -> tuple[list[TriedSetting], TriedSetting | None]:
        auto = self._auto
        solver = NudgeContrastive(
            metric=auto.metric, similarity=auto.similarity, refit=False, keep_lengths=keep_lengths
        )
        name = "nudge-contrastive" if keep_lengths else "nudge-contrastive, lengths free"
        fit = solver.fit(self._nodes, self._train, self._val, background=self._background)
        if not fit.averaged:
            untouched = self._measured(name, fit, 0.0, None, [])
            return [untouched], untouched
        # Solved once; what an offset does to the solutions costs next to nothing.
        solutions = self._held.solutions(solver.at_points(fit.averaged))
        direction = common_direction(self._train_vectors)
        directions = [common_direction(vectors) for vectors in self._held.training_vectors]

        def at(offset: float) -> TriedSetting:
            moved = [
                lower_scores(vectors, each, offset, keep_lengths=keep_lengths)
                for vectors, each in zip(solutions, directions, strict=True)
            ]
            shown = replace(fit, vectors=lower_scores(fit.vectors, direction, offset, keep_lengths=keep_lengths))
            final = solver.at_points(fit.averaged, offset)
            return self._measured(f"{name}, offset {offset:g}", shown, fit.gamma, final, moved)

        return search_setting(at, OFFSETS, auto.tolerance, HALVINGS)

    def _measured(
        self, name: str, fit: NudgeFit, gamma: float, final: Any, solutions: list[FloatArray]
    ) -> TriedSetting:
        """``solutions`` are those of the folds."""
        values = self._judge.per_query(fit.vectors)
        effect = self._held.effect(solutions) if gamma else UncoveredEffect(0.0, 0.0, 0.0, 0)
        candidate = Candidate(name, gamma, float(values.mean()), note=_note(effect))
        if effect is None:
            candidate = replace(candidate, allowed=True)
        else:
            candidate = replace(
                candidate,
                uncovered=effect.change,
                low=effect.low,
                high=effect.high,
                held_out_nodes=effect.n_nodes,
                allowed=effect.within(self._auto.tolerance),
            )
        logger.info("%s", candidate)
        return TriedSetting(fit.solver, candidate, values, final, fit)


def _note(effect: UncoveredEffect | None) -> str:
    if effect is None:
        return "too few labelled nodes to estimate the effect on uncovered queries"
    if 0 < effect.n_nodes < FEW_NODES:
        return f"only {effect.n_nodes} labelled nodes: too few to tell the effect on uncovered queries"
    return ""
