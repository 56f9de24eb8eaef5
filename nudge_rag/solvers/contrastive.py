"""A contrastive solver: move nodes towards their queries and away from the queries that they are mistaken for."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nudge_rag.arrays import FloatArray
from nudge_rag.metrics import Metric, parse_metric
from nudge_rag.similarity import Similarity, score_matrix
from nudge_rag.solvers._problem import Problem, make_problem
from nudge_rag.solvers.competitors import FixedScores, fixed_scores, query_vectors
from nudge_rag.solvers.contrastive_objective import ContrastiveObjective
from nudge_rag.solvers.devices import is_foreign
from nudge_rag.solvers.labels import LabelsLike, PreparedLabels, QuerySums
from nudge_rag.solvers.ranks import covered_columns, pair_blocks, tie_margin
from nudge_rag.solvers.result import SAME_VALUE, NudgeFit, ValidationCurve, first_best

__all__ = ["DEFAULT_STRENGTHS", "DEFAULT_TAUS", "NudgeContrastive"]

Float64Array = np.ndarray[Any, np.dtype[np.float64]]

# From nearly nothing moved to nearly free, each a warm start for the next.
DEFAULT_STRENGTHS = (1000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0, 0.3)
DEFAULT_TAUS = (0.05, 0.1)
# Relative improvement of the objective below which a step counts as the last.
TOLERANCE = 1e-5
# The path ends after this many points in a row that are worse than the best one.
PATIENCE = 2


class NudgeContrastive:
    """Move covered nodes so that training queries tell them from the nodes that they are confused with.

    Minimises, over the covered nodes V,

        sum_i cross-entropy( softmax_j(q_i.v_j / tau), labels of query i ) + strength * sum_j |v_j - d_j|^2

    where the softmax runs over the covered nodes and, as constants, each training query's nearest other nodes. Convex
    for dot-product stores; for cosine and l2, v_j is a direction, and every node keeps its length. The penalty's
    strength goes down a path that begins at the untouched embeddings, each solution a warm start for the next;
    validation chooses the point (and the temperature, where several are given) with the best mean of ``metric``. The
    embeddings stay as they are where nothing improves on them. Deterministic.

    Worth more than `NudgeN` where nodes have many labels, about as much where they have one or two. Time and memory
    grow with training queries times covered nodes. Needs SciPy, whose L-BFGS-B does the descent: a well-kept optimiser
    is worth the extra dependency, and the other solvers run without it.

    Args:
        metric: what validation maximises.
        similarity: how the store ranks.
        taus: temperatures of the softmax.
        strengths: of the penalty, tried from the largest to the smallest.
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
        negatives: int = 50,
        iterations: int = 20,
    ) -> None:
        for name, values in (("taus", taus), ("strengths", strengths), ("iterations", [iterations])):
            if not values or not all(np.isfinite(value) and value > 0 for value in values):
                raise ValueError(f"{name} must be positive, got {values!r}")
        if similarity not in ("cosine", "dot", "l2"):
            raise ValueError(f"similarity must be 'cosine', 'dot' or 'l2', got {similarity!r}")
        if negatives < 0:
            raise ValueError(f"negatives must be at least 0, got {negatives!r}")
        self.metric = parse_metric(metric)
        self.similarity: Similarity = similarity
        self.taus = tuple(float(tau) for tau in taus)
        self.strengths = tuple(sorted((float(one) for one in strengths), reverse=True))
        self.negatives, self.iterations = int(negatives), int(iterations)

    @property
    def depth(self) -> int:
        """How many of the best unlabelled nodes of a validation query matter: the cut-off of the metric."""
        return self.metric.k

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
        problem = make_problem(embeddings, train, val, needs_validation=True)
        judge = _Judge(problem, background, self.metric, self.similarity)
        paths = [self._path(problem, background, judge, tau) for tau in self.taus]
        curves = [np.array([value for value, _ in path]) for path in paths]
        best = int(np.argmax([curve.max() for curve in curves]))
        chosen = first_best(curves[best])
        gammas = np.array([0.0, *(1 / strength for strength in self.strengths)])[: len(curves[best])]
        if chosen == len(self.strengths):
            warnings.warn(f"the best strength, {self.strengths[-1]:g}, is the smallest that was tried", stacklevel=2)
        return NudgeFit(
            solver=self.name,
            rows=problem.rows,
            vectors=paths[best][chosen][1],
            gamma=float(gammas[chosen]),
            curve=ValidationCurve(gammas, curves[best], str(self.metric)),
            improved=bool(curves[best][chosen] > curves[best][0] + SAME_VALUE),
            at_edge=chosen == len(self.strengths),
            opposed=problem.rows[:0],
            originals=problem.embeddings,
            **problem.without_answers(),
        )

    def _path(self, problem: Problem, background: Any, judge: _Judge, tau: float) -> list[tuple[float, FloatArray]]:
        """Validation score and vectors at every point of the path; the first is the untouched embeddings."""
        try:
            from scipy.optimize import minimize
        except ImportError as error:
            raise ImportError("NudgeContrastive needs SciPy: pip install 'nudge-rag[contrastive]'") from error
        objective, lengths = self._objective(problem, background, tau)
        shape = objective.originals.shape
        path = [(judge.value(problem.originals), problem.originals)]
        current = objective.originals.ravel()
        for strength in self.strengths:

            def function(flat: Float64Array, strength: float = strength) -> tuple[float, Float64Array]:
                value, gradient = objective.value_and_gradient(flat.reshape(shape), strength)
                return value, gradient.ravel()

            options = {"maxiter": self.iterations, "ftol": TOLERANCE, "maxls": 8}
            current = minimize(function, current, jac=True, method="L-BFGS-B", options=options).x
            moved = current.reshape(shape)
            if objective.sphere:
                moved = moved / np.linalg.norm(moved, axis=1, keepdims=True) * lengths
            vectors = moved.astype(problem.originals.dtype)
            path.append((judge.value(vectors), vectors))
            if max(value for value, _ in path[-PATIENCE:]) < max(value for value, _ in path) - SAME_VALUE:
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
        )
        return objective, lengths

    def _others(
        self, train: PreparedLabels, problem: Problem, background: Any, ranked_by: Similarity, tau: float
    ) -> Float64Array:
        """log sum exp(q.v / tau) over each training query's nearest nodes that do not move, (m,); -inf for none."""
        depth = self.negatives
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


class _Judge:
    """The mean of a metric over the validation queries for any vectors of the covered nodes."""

    def __init__(self, problem: Problem, background: Any, metric: Metric, similarity: Similarity) -> None:
        if problem.val is None:
            raise ValueError("the validation set has no query with an answer: the strength cannot be chosen")
        self._val: PreparedLabels = problem.val
        self._metric, self._similarity = metric, similarity
        self._fixed: FixedScores = fixed_scores(
            self._val, problem.embeddings, problem.rows, background, depth=metric.k, similarity=similarity
        )
        self._columns = covered_columns(self._val.node_of_pair, problem.rows)

    def value(self, vectors: FloatArray) -> float:
        """The metric when the covered nodes have these ``vectors`` (c, d)."""
        val, queries = self._val, query_vectors(self._val, self._similarity)
        ranks = np.empty(len(self._columns), dtype=np.int64)
        for part, pairs in pair_blocks(val, len(vectors)):
            scores = score_matrix(queries[part], vectors, self._similarity)
            if self._similarity == "l2":
                scores = (scores + (queries[part] ** 2).sum(axis=1, keepdims=True)) / 2
            rows, columns = val.query_of_pair[pairs] - part.start, self._columns[pairs]
            own = np.where(columns >= 0, scores[rows, columns], self._fixed.answer[pairs])
            own = own + (tie_margin(queries.dtype) * (1 + np.abs(own))).astype(own.dtype)
            ranks[pairs] = (scores[rows] > own[:, None]).sum(axis=1)
            ranks[pairs] += (self._fixed.best[part][rows] > own[:, None]).sum(axis=1)
        return float(self._metric.per_query(ranks, val.grades, val.query_of_pair, val.n_queries).mean())
