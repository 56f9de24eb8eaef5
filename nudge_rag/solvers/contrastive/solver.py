"""A contrastive solver: move nodes towards their queries and away from the queries that they are mistaken for."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nudge_rag.common.arrays import FloatArray, IntArray
from nudge_rag.common.caller import warn_caller
from nudge_rag.common.similarity import Similarity
from nudge_rag.evaluation.metrics import Metric, parse_metric
from nudge_rag.solvers.contrastive.descent import ContrastiveDescent, Point
from nudge_rag.solvers.contrastive.paths import gammas_of, search_paths, worth_averaging
from nudge_rag.solvers.devices import is_foreign
from nudge_rag.solvers.labels import LabelsLike, QuerySums, join_labels
from nudge_rag.solvers.needs import SolverNeeds
from nudge_rag.solvers.problem import Problem, make_problem
from nudge_rag.solvers.result import SAME_VALUE, Descent, NudgeFit, ValidationCurve, first_best
from nudge_rag.solvers.scoring.validation import ValidationScorer

__all__ = ["DEFAULT_STRENGTHS", "DEFAULT_TAUS", "NudgeContrastive"]

# From nearly nothing moved to nearly free, each a warm start for the next.
DEFAULT_STRENGTHS = (1000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1)
DEFAULT_TAUS = (0.05, 0.03, 0.08, 0.02)
# Of an average the solutions are kept that it is made of if they hold no more numbers than this: 40 MB of float32.
MOST_KEPT = 10_000_000
# A fixed strength is come to without a path, and gets so many times the iterations of a point.
WITHOUT_PATH = 2


class NudgeContrastive:
    """Move covered nodes so that training queries tell them from the nodes that they are confused with.

    Minimises, over the covered nodes V,

        sum_i cross-entropy( softmax_j(q_i.v_j / tau), labels of query i ) + strength * sum_j |v_j - d_j|^2
        + uncovered_weight * sum_i log-sum-exp_j(q_i.v_j / tau, the query's own answers where they were)

    where the sums over j run over the covered nodes and, as constants, each training query's nearest other nodes
    (`ContrastiveObjective` has the equation in full, and its gradient). Convex for dot-product stores; for cosine
    and l2, or with ``keep_lengths``, v_j is a direction, and every node keeps its length. The penalty's strength goes
    down a path that begins at the untouched embeddings, each solution a warm start for the next; validation chooses the
    point with the best mean of ``metric``. Of several temperatures, each chooses its own point; then their solutions
    are averaged, from the best one down, as long as validation gains by it. The embeddings stay as they are if
    nothing improves on them. Then, with ``refit``, training and validation labels together are solved for at the chosen
    points, so that no label is lost. Grades weigh the labels of a query; those below 0 are rejections (thumbs-down):
    the node counts as 1 + rejection * |grade| nodes in that query's softmax. Deterministic.

    Worth more than `NudgeN` where nodes have many labels, about as much where they have one or two. Time grows with the
    training queries; beyond a few hundred covered nodes the sums over j run over a sample (`groups`).

    Args:
        metric: what validation maximises.
        similarity: how the store ranks.
        taus: temperatures of the softmax.
        strengths: of the penalty, tried from the largest to the smallest.
        uncovered_weight: how much queries whose answers have no labels count: 0 gives the most to labelled nodes, 1 and
            more keep moved nodes from pushing the unlabelled ones down.
        offset: after solving, lower the scores of moved nodes by about this cosine (`offset.lower_scores`): a cheap
            alternative to ``uncovered_weight``.
        strength: fixed strength, or one for each of ``taus``, whose solutions are averaged; no search, and no
            validation needed.
        refit: whether the final solution learns from the validation labels too.
        negatives: how many of each training query's nearest unlabelled nodes take part.
        rejection: how many nodes more one that a query rejected with grade -1 counts as: its score is kept lower than
            others' by about tau * log(1 + rejection). 0 leaves rejections aside.
        iterations: at most, at each strength of the path; twice as many at a fixed one.
        keep_lengths: whether nodes only turn; None: unless the store ranks by dot product.

    References:
        The setting (non-parametric fine-tuning of embeddings): arXiv 2409.02343. The loss: van den Oord et al.,
        Representation Learning with Contrastive Predictive Coding, arXiv 1807.03748. The average: Wortsman et al.,
        Model soups, arXiv 2203.05482.

    Example:
        >>> import numpy as np
        >>> queries = np.array([[0.65, 0.76, 0.0], [0.1, 1.0, 0.0]])    # users wanted node 0, and node 1
        >>> fit = NudgeContrastive().fit(np.eye(3), (queries, [[0], [1]]), (queries, [[0], [1]]))
        >>> fit.improved, fit.rows.tolist(), bool((fit.vectors @ queries.T).argmax(axis=0).tolist() == [0, 1])
        (True, [0, 1], True)
    """

    name = "nudge-contrastive"

    def __init__(
        self,
        *,
        metric: str | Metric = "nDCG@10",
        similarity: Similarity = "cosine",
        taus: Sequence[float] = DEFAULT_TAUS,
        strengths: Sequence[float] = DEFAULT_STRENGTHS,
        uncovered_weight: float = 0.0,
        offset: float = 0.0,
        strength: float | Sequence[float] | None = None,
        refit: bool = True,
        negatives: int = 50,
        rejection: float = 10.0,
        iterations: int = 12,
        keep_lengths: bool | None = None,
    ) -> None:
        fixed = _fixed_strengths(strength, len(taus))
        for name, values in (
            ("taus", taus),
            ("strengths", strengths),
            ("strength", [1.0] if fixed is None else fixed),
            ("iterations", [iterations]),
        ):
            if not values or not all(np.isfinite(value) and value > 0 for value in values):
                raise ValueError(f"{name} must be positive, got {values!r}")
        if similarity not in ("cosine", "dot", "l2"):
            raise ValueError(f"similarity must be 'cosine', 'dot' or 'l2', got {similarity!r}")
        for name, value in (
            ("uncovered_weight", uncovered_weight),
            ("offset", offset),
            ("rejection", rejection),
        ):
            if not (np.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be at least 0, got {value!r}")
        if keep_lengths is False and similarity != "dot":
            raise ValueError(f"lengths may change only where the store ranks by dot product, not by {similarity}")
        if negatives < 0:
            raise ValueError(f"negatives must be at least 0, got {negatives!r}")
        self.metric = parse_metric(metric)
        self.similarity: Similarity = similarity
        self.taus = tuple(float(tau) for tau in taus)
        self.strengths = tuple(sorted((float(one) for one in strengths), reverse=True))
        self.uncovered_weight, self.offset, self.refit = float(uncovered_weight), float(offset), bool(refit)
        self.strength = fixed
        self.negatives, self.iterations, self.rejection = int(negatives), int(iterations), float(rejection)
        self.keep_lengths = similarity != "dot" if keep_lengths is None else bool(keep_lengths)
        self._start: tuple[IntArray, tuple[FloatArray, ...]] | None = None

    @property
    def needs(self) -> SolverNeeds:
        """The training queries, and the best unlabelled nodes of every query."""
        return SolverNeeds(
            depth=max(self.metric.k, self.negatives if self.refit else 0),
            train_depth=self.negatives,
            learns_from_validation=self.refit,
            training_queries=True,
        )

    def fit(
        self,
        embeddings: ArrayLike,
        train: LabelsLike,
        val: LabelsLike | None = None,
        *,
        background: FloatArray | Iterable[FloatArray] | None = None,
    ) -> NudgeFit:
        """Solve for the covered rows of ``embeddings``. Arguments, errors and warnings as `NudgeN.fit`.

        ``gamma`` of the result is 1 / strength, and its ``curve`` runs over that; with several temperatures they are
        those of the best one. ``averaged`` are the points whose solutions make up the result.

        Raises:
            TypeError: `QuerySums` as training labels, or embeddings of another array library than numpy.
        """
        if isinstance(train, QuerySums) or is_foreign(embeddings):
            raise TypeError("NudgeContrastive needs the training queries themselves, and numpy arrays")
        if background is not None and not isinstance(background, np.ndarray):
            background = list(background)  # gone over twice: for the training and for the validation queries
        if self.strength is not None:
            return self._at_fixed_strengths(self.strength, embeddings, train, val, background)
        problem = make_problem(embeddings, train, val, needs_validation=True)
        if problem.val is None:
            raise ValueError("the validation set has no query with an answer: the strength cannot be chosen")
        judge = ValidationScorer(
            problem.val, problem.embeddings, problem.rows, background, self.metric, self.similarity
        )
        fit = self._chosen(problem, judge, background)
        if fit.at_edge:
            warn_caller(f"the best strength, {self.strengths[-1]:g}, is the smallest that was tried")
        if not (fit.averaged and self.refit) or val is None:
            return fit
        final = self.at_points(fit.averaged)
        if not self.offset:  # its scores would be lowered twice
            final = final.starting_from_fit(fit)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # queries without answers were warned of above
            whole = final.fit(embeddings, join_labels(train, val), background=background)
        descents = fit.descents + whole.descents
        return replace(fit, rows=whole.rows, vectors=whole.vectors, parts=whole.parts, descents=descents)

    def at_points(self, points: Sequence[tuple[float, float]], negatives: int | None = None) -> NudgeContrastive:
        """This solver at fixed points of its paths, (tau, strength) each, whose solutions are averaged."""
        return NudgeContrastive(
            metric=self.metric,
            similarity=self.similarity,
            taus=[tau for tau, _ in points],
            uncovered_weight=self.uncovered_weight,
            offset=self.offset,
            strength=[strength for _, strength in points],
            negatives=self.negatives if negatives is None else negatives,
            rejection=self.rejection,
            iterations=self.iterations,
            keep_lengths=self.keep_lengths,
        )

    def starting_from(self, rows: IntArray, *vectors: FloatArray) -> NudgeContrastive:
        """This solver at its fixed points, descending from the ``vectors`` of increasing ``rows``.

        Those are one array for all points, or one for each.
        """
        warm = copy(self)
        warm._start = rows, vectors
        return warm

    def starting_from_fit(self, fit: NudgeFit) -> NudgeContrastive:
        """This solver at its fixed points, descending from what ``fit`` learned at the same ones."""
        return self.starting_from(fit.rows, *(fit.parts or [fit.vectors]))

    def with_iterations(self, iterations: int) -> NudgeContrastive:
        """This solver with another limit of iterations."""
        other = copy(self)
        other.iterations = iterations
        return other

    def _points(self, descent: ContrastiveDescent) -> list[Point]:
        """The solutions at the fixed points."""
        starts: list[FloatArray | None] = [None]
        if self._start is not None:
            rows, vectors = self._start
            starts = [descent.start_at(rows, one) for one in vectors]
        if len(starts) == 1:
            starts *= len(self.taus)
        return [
            descent.at(tau, strength, WITHOUT_PATH * self.iterations, start)
            for tau, strength, start in zip(self.taus, self.strength or (), starts, strict=True)
        ]

    def _chosen(self, problem: Problem, judge: ValidationScorer, background: Any) -> NudgeFit:
        descent = self._descent(problem, background)
        paths = search_paths(descent, judge, self.taus, self.strengths, self.iterations)
        tops = [path[first_best([point.value for point in path])] for path in paths]
        order = sorted(range(len(paths)), key=lambda index: -tops[index].value)  # stable: the first of equals
        path, best = paths[order[0]], tops[order[0]]
        values = np.array([point.value for point in path])
        parts = worth_averaging(descent, judge, [tops[index] for index in order])
        vectors = descent.averaged([part.vectors for part in parts])
        strength = 0.0 if best.descent is None else best.descent.strength
        fit = self._result(
            problem,
            descent.lower_scores(vectors, self.offset) if strength else problem.originals,
            gamma=1 / strength if strength else 0.0,
            curve=ValidationCurve(gammas_of(path), values, str(self.metric)),
            descents=[point.descent for path in paths for point in path if point.descent is not None],
            points=parts,
        )
        improved = bool(best.value > values[0] + SAME_VALUE)
        return replace(fit, improved=improved, at_edge=strength == self.strengths[-1])

    def _at_fixed_strengths(
        self, strengths: Sequence[float], embeddings: ArrayLike, train: LabelsLike, val: LabelsLike | None, others: Any
    ) -> NudgeFit:
        labels = join_labels(train, val) if val is not None and self.refit else train
        problem = make_problem(embeddings, labels, None, needs_validation=False)
        descent = self._descent(problem, others)
        points = self._points(descent)
        return self._result(
            problem,
            descent.lower_scores(descent.averaged([point.vectors for point in points]), self.offset),
            gamma=1 / strengths[0],
            curve=ValidationCurve(np.zeros(0), np.zeros(0), str(self.metric)),
            descents=[point.descent for point in points if point.descent is not None],
            points=points,
        )

    def _descent(self, problem: Problem, background: Any) -> ContrastiveDescent:
        weights = self.uncovered_weight, self.negatives, self.rejection
        return ContrastiveDescent(problem, background, self.similarity, *weights, self.keep_lengths)

    def _result(
        self,
        problem: Problem,
        vectors: FloatArray,
        *,
        gamma: float,
        curve: ValidationCurve,
        descents: Sequence[Descent],
        points: Sequence[Point],
    ) -> NudgeFit:
        made_of = [point.descent for point in points if point.descent is not None]
        return NudgeFit(
            solver=self.name,
            rows=problem.rows,
            vectors=vectors,
            gamma=gamma,
            curve=curve,
            improved=False,
            at_edge=False,
            opposed=problem.rows[:0],
            originals=problem.embeddings,
            descents=tuple(descents),
            averaged=tuple((one.tau, one.strength) for one in made_of),
            parts=_parts_of(points),
            **problem.without_answers(),
        )


def _parts_of(points: Sequence[Point]) -> tuple[FloatArray, ...]:
    """The solutions that an average is made of, unless they are too large to be kept."""
    if len(points) < 2 or sum(point.vectors.size for point in points) > MOST_KEPT:
        return ()
    return tuple(point.vectors for point in points)


def _fixed_strengths(strength: float | Sequence[float] | None, n_taus: int) -> tuple[float, ...] | None:
    """One for each temperature."""
    if strength is None:
        return None
    if not isinstance(strength, Sequence):
        return (float(strength),) * n_taus
    if len(strength) != n_taus:
        raise ValueError(f"strength must be one number or one for each of {n_taus} taus, got {strength!r}")
    return tuple(float(one) for one in strength)
