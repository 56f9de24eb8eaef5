"""A contrastive solver: move nodes towards their queries and away from the queries that they are mistaken for."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nudge_rag.arrays import FloatArray
from nudge_rag.metrics import Metric, parse_metric
from nudge_rag.similarity import Similarity
from nudge_rag.solvers._problem import Problem, make_problem
from nudge_rag.solvers.competitors import fixed_scores, query_vectors
from nudge_rag.solvers.contrastive_objective import ContrastiveObjective
from nudge_rag.solvers.devices import is_foreign
from nudge_rag.solvers.judge import Judge
from nudge_rag.solvers.labels import LabelsLike, PreparedLabels, QuerySums, join_labels
from nudge_rag.solvers.ranks import covered_columns
from nudge_rag.solvers.result import SAME_VALUE, Descent, NudgeFit, ValidationCurve, first_best

__all__ = ["DEFAULT_STRENGTHS", "DEFAULT_TAUS", "NudgeContrastive"]

Float64Array = np.ndarray[Any, np.dtype[np.float64]]

# From nearly nothing moved to nearly free, each a warm start for the next.
DEFAULT_STRENGTHS = (1000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0, 0.3)
DEFAULT_TAUS = (0.05,)
# Relative improvement of the objective below which a step counts as the last.
TOLERANCE = 1e-5
# The path ends after this many points in a row that are worse than the best one.
PATIENCE = 2
# A fixed strength is come to by way of one so many times as large.
WARM_START = 10.0


class NudgeContrastive:
    """Move covered nodes so that training queries tell them from the nodes that they are confused with.

    Minimises, over the covered nodes V,

        sum_i cross-entropy( softmax_j(q_i.v_j / tau), labels of query i ) + strength * sum_j |v_j - d_j|^2
        + uncovered_weight * sum_i log-sum-exp_j(q_i.v_j / tau, the query's own answers where they were)

    where the sums over j run over the covered nodes and, as constants, each training query's nearest other nodes
    (`ContrastiveObjective` has the equation in full, and its gradient). Convex for dot-product stores; for cosine
    and l2, v_j is a direction, and every node keeps its length. The penalty's strength goes down a path that
    begins at the untouched embeddings, each solution a warm start for the next; validation chooses the point (and the
    temperature, where several are given) with the best mean of ``metric``. The embeddings stay as they are where
    nothing improves on them. Then, with ``refit``, training and validation labels together are solved for at the chosen
    point, so that no label is lost. Grades weigh the labels of a query. Deterministic.

    Worth more than `NudgeN` where nodes have many labels, about as much where they have one or two. Time and memory
    grow with training queries times covered nodes. Needs SciPy, whose L-BFGS-B does the descent: a well-kept optimiser
    is worth the extra dependency, and the other solvers run without it.

    Args:
        metric: what validation maximises.
        similarity: how the store ranks.
        taus: temperatures of the softmax.
        strengths: of the penalty, tried from the largest to the smallest.
        uncovered_weight: how much queries whose answers have no labels count: 0 gives the most to labelled nodes, 1 and
            more keep moved nodes from pushing the unlabelled ones down.
        strength: fixed strength; no search, and no validation needed.
        refit: whether the final solution learns from the validation labels too.
        negatives: how many of each training query's nearest unlabelled nodes take part.
        iterations: at most, at each strength.

    References:
        The setting (non-parametric fine-tuning of embeddings): arXiv 2409.02343. The loss: van den Oord et al.,
        Representation Learning with Contrastive Predictive Coding, arXiv 1807.03748.

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
        strength: float | None = None,
        refit: bool = True,
        negatives: int = 50,
        iterations: int = 12,
    ) -> None:
        for name, values in (
            ("taus", taus),
            ("strengths", strengths),
            ("strength", [1.0 if strength is None else strength]),
            ("iterations", [iterations]),
        ):
            if not values or not all(np.isfinite(value) and value > 0 for value in values):
                raise ValueError(f"{name} must be positive, got {values!r}")
        if similarity not in ("cosine", "dot", "l2"):
            raise ValueError(f"similarity must be 'cosine', 'dot' or 'l2', got {similarity!r}")
        if not (np.isfinite(uncovered_weight) and uncovered_weight >= 0):
            raise ValueError(f"uncovered_weight must be at least 0, got {uncovered_weight!r}")
        if negatives < 0:
            raise ValueError(f"negatives must be at least 0, got {negatives!r}")
        self.metric = parse_metric(metric)
        self.similarity: Similarity = similarity
        self.taus = tuple(float(tau) for tau in taus)
        self.strengths = tuple(sorted((float(one) for one in strengths), reverse=True))
        self.uncovered_weight, self.refit = float(uncovered_weight), bool(refit)
        self.strength = None if strength is None else float(strength)
        self.negatives, self.iterations = int(negatives), int(iterations)

    @property
    def depth(self) -> int:
        """How many of the best unlabelled nodes of a validation query matter."""
        return max(self.metric.k, self.negatives if self.refit else 0)

    @property
    def learns_from_validation(self) -> bool:
        """Whether the nodes of validation labels move too."""
        return self.refit

    @property
    def train_depth(self) -> int:
        """How many of the best unlabelled nodes of a training query take part."""
        return self.negatives

    def fit(
        self,
        embeddings: ArrayLike,
        train: LabelsLike,
        val: LabelsLike | None = None,
        *,
        background: FloatArray | Iterable[FloatArray] | None = None,
    ) -> NudgeFit:
        """Solve for the covered rows of ``embeddings``. Arguments, errors and warnings as `NudgeN.fit`.

        ``gamma`` of the result is 1 / strength, and its ``curve`` runs over that; with several temperatures it is that
        of the best one.

        Raises:
            TypeError: `QuerySums` as training labels, or embeddings of another array library than numpy.
            ImportError: SciPy is not installed.
        """
        if isinstance(train, QuerySums) or is_foreign(embeddings):
            raise TypeError("NudgeContrastive needs the training queries themselves, and numpy arrays")
        if background is not None and not isinstance(background, np.ndarray):
            background = list(background)  # gone over twice: for the training and for the validation queries
        if self.strength is not None:
            return self._at_fixed_strength(self.strength, embeddings, train, val, background)
        problem = make_problem(embeddings, train, val, needs_validation=True)
        if problem.val is None:
            raise ValueError("the validation set has no query with an answer: the strength cannot be chosen")
        judge = Judge(problem.val, problem.embeddings, problem.rows, background, self.metric, self.similarity)
        paths = [self._path(problem, background, judge, tau) for tau in self.taus]
        best = int(np.argmax([max(point.value for point in path) for path in paths]))
        values, path = np.array([point.value for point in paths[best]]), paths[best]
        chosen = first_best(values)
        gammas = np.array([0.0, *(1 / strength for strength in self.strengths)])[: len(path)]
        if chosen == len(self.strengths):
            warnings.warn(f"the best strength, {self.strengths[-1]:g}, is the smallest that was tried", stacklevel=2)
        fit = NudgeFit(
            solver=self.name,
            rows=problem.rows,
            vectors=path[chosen].vectors,
            gamma=float(gammas[chosen]),
            curve=ValidationCurve(gammas, values, str(self.metric)),
            improved=bool(values[chosen] > values[0] + SAME_VALUE),
            at_edge=chosen == len(self.strengths),
            opposed=problem.rows[:0],
            originals=problem.embeddings,
            descents=tuple(point.descent for point in path if point.descent is not None),
            **problem.without_answers(),
        )
        if not (chosen and self.refit) or val is None:
            return fit
        final = self.at_strength(self.strengths[chosen - 1], self.taus[best])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # queries without answers were warned of above
            whole = final.fit(embeddings, join_labels(train, val), background=background)
        return replace(fit, rows=whole.rows, vectors=whole.vectors, descents=fit.descents + whole.descents)

    def at_strength(self, strength: float, tau: float) -> NudgeContrastive:
        """This solver at one fixed point of its path."""
        return NudgeContrastive(
            metric=self.metric,
            similarity=self.similarity,
            taus=[tau],
            uncovered_weight=self.uncovered_weight,
            strength=strength,
            negatives=self.negatives,
            iterations=self.iterations,
        )

    def _at_fixed_strength(
        self, strength: float, embeddings: ArrayLike, train: LabelsLike, val: LabelsLike | None, background: Any
    ) -> NudgeFit:
        labels = join_labels(train, val) if val is not None and self.refit else train
        problem = make_problem(embeddings, labels, None, needs_validation=False)
        path = self._path(problem, background, None, self.taus[0], (WARM_START * strength, strength))
        return NudgeFit(
            solver=self.name,
            rows=problem.rows,
            vectors=path[-1].vectors,
            gamma=1 / strength,
            curve=ValidationCurve(np.zeros(0), np.zeros(0), str(self.metric)),
            improved=False,
            at_edge=False,
            opposed=problem.rows[:0],
            originals=problem.embeddings,
            descents=tuple(point.descent for point in path if point.descent is not None),
            **problem.without_answers(),
        )

    def _path(
        self,
        problem: Problem,
        background: Any,
        judge: Judge | None,
        tau: float,
        strengths: Sequence[float] | None = None,
    ) -> list[_Point]:
        """Every point of the path; the first is the untouched embeddings."""
        objective, lengths = self._objective(problem, background, tau)
        path = [_Point(problem.originals, _value(judge, problem.originals), None)]
        current = objective.originals
        for strength in self.strengths if strengths is None else strengths:
            current, descent = _descend(objective, current, strength, self.iterations)
            moved = current
            if objective.sphere:
                moved = moved / np.linalg.norm(moved, axis=1, keepdims=True) * lengths
            vectors = moved.astype(problem.originals.dtype)
            path.append(_Point(vectors, _value(judge, vectors), descent))
            if max(one.value for one in path[-PATIENCE:]) < max(one.value for one in path) - SAME_VALUE:
                break
        return path

    def _objective(self, problem: Problem, background: Any, tau: float) -> tuple[ContrastiveObjective, Float64Array]:
        train = problem.train
        if train is None:
            raise TypeError("NudgeContrastive needs the training queries themselves")
        sphere = self.similarity != "dot"
        # On the sphere lengths do not matter, and rivals are those by direction.
        ranked_by: Similarity = "cosine" if sphere else "dot"
        originals = problem.originals.astype(np.float64)
        lengths = np.linalg.norm(originals, axis=1, keepdims=True)
        total = np.bincount(train.query_of_pair, weights=train.grades, minlength=train.n_queries)
        objective = ContrastiveObjective(
            query_vectors(train, ranked_by),
            train.query_of_pair,
            covered_columns(train.node_of_pair, problem.rows),
            train.grades / total[train.query_of_pair],
            self._others(train, problem, background, ranked_by, tau),
            originals / lengths if sphere else originals,
            tau,
            sphere,
            self.uncovered_weight,
        )
        return objective, lengths

    def _others(
        self, train: PreparedLabels, problem: Problem, background: Any, ranked_by: Similarity, tau: float
    ) -> Float64Array:
        """log sum exp(q.v / tau) over each training query's nearest nodes that do not move, (m,); -inf for none."""
        depth = self.negatives
        if self.similarity == "l2":
            train = replace(train, rivals=None)  # distances do not tell directions
        if train.rivals is not None:
            depth = min(depth, train.rivals.shape[1])
        if not depth:
            return np.full(train.n_queries, -np.inf)
        found = fixed_scores(train, problem.embeddings, problem.rows, background, depth=depth, similarity=ranked_by)
        logits = found.best.astype(np.float64) / tau
        highest = logits.max(axis=1, keepdims=True)
        highest = np.where(np.isfinite(highest), highest, 0.0)
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(np.exp(logits - highest).sum(axis=1)) + highest[:, 0])


@dataclass(frozen=True)
class _Point:
    """A point of the path: the vectors of the covered nodes, their value, and how they were come to."""

    vectors: FloatArray
    value: float
    descent: Descent | None


def _value(judge: Judge | None, vectors: FloatArray) -> float:
    return 0.0 if judge is None else judge.value(vectors)


def _descend(
    objective: ContrastiveObjective, start: Float64Array, strength: float, iterations: int
) -> tuple[Float64Array, Descent]:
    """L-BFGS-B from ``start`` (c, d)."""
    try:
        from scipy.optimize import minimize
    except ImportError as error:
        raise ImportError("NudgeContrastive needs SciPy: pip install 'nudge-rag[contrastive]'") from error

    def function(flat: Float64Array) -> tuple[float, Float64Array]:
        value, gradient = objective.value_and_gradient(flat.reshape(start.shape), strength)
        return value, gradient.ravel()

    options = {"maxiter": iterations, "ftol": TOLERANCE, "maxls": 8}
    found = minimize(function, start.ravel(), jac=True, method="L-BFGS-B", options=options)
    largest = float(np.abs(found.jac).max(initial=0.0))
    record = Descent(strength, int(found.nit), int(found.nfev), float(found.fun), largest, bool(found.success))
    return found.x.reshape(start.shape), record
