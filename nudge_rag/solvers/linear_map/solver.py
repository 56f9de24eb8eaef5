"""Learn a linear map of queries from labels; its temperature and ridge are chosen on nodes that are held out."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nudge_rag.common.arrays import Float64Array, FloatArray, as_matrix
from nudge_rag.common.blas_threads import threads_to_map
from nudge_rag.common.similarity import Similarity
from nudge_rag.evaluation.metrics import Metric, parse_metric
from nudge_rag.solvers.auto.folds import FoldPlan
from nudge_rag.solvers.auto.held_out_nodes import HeldOutNodes
from nudge_rag.solvers.contrastive.lbfgs import minimize
from nudge_rag.solvers.labels import LabelsLike, prepare_labels
from nudge_rag.solvers.linear_map.adapter import QueryAdapter
from nudge_rag.solvers.linear_map.objective import make_objective
from nudge_rag.solvers.result import Descent

__all__ = ["DEFAULT_MAP_TAUS", "DEFAULT_RIDGES", "LinearMap", "MapFit", "MapPoint"]

logger = logging.getLogger(__name__)

# From hardly anything mapped to nearly free, each a warm start for the next.
DEFAULT_RIDGES = (0.3, 0.1, 0.03, 0.01)
DEFAULT_MAP_TAUS = (0.03, 0.05, 0.1)
# Relative improvement of the objective below which a step counts as the last.
TOLERANCE = 1e-4
MEMORY = 8
# Each of them costs a descent at every setting.
FOLDS = 4


@dataclass(frozen=True)
class MapPoint:
    """A setting that was tried.

    Attributes:
        tau: temperature.
        ridge: of |B|^2.
        change: mean change of the metric for queries of held-out nodes.
        error: the standard error of ``change``, by a bootstrap over nodes.
    """

    tau: float
    ridge: float
    change: float
    error: float


@dataclass(frozen=True)
class MapFit:
    """A learned map and how it was chosen.

    Attributes:
        adapter: the map; None if every setting harms the queries of held-out nodes.
        tau: temperature chosen.
        ridge: ridge chosen.
        tried: every setting with its effect on queries of nodes that were held out.
        descent: how the final solution was come to; None without one.
    """

    adapter: QueryAdapter | None
    tau: float
    ridge: float
    tried: tuple[MapPoint, ...]
    descent: Descent | None


class LinearMap:
    """Learn one linear map for all queries, so that they find their labelled nodes among all labelled ones.

        minimise over B (d, d):  mean cross-entropy( softmax_j( ((I + B) q_i).d_j / tau ), labels ) + ridge |B|^2

    j runs over the labelled nodes alone. The problem is convex, and solved by L-BFGS from B = 0. The temperature and
    the ridge are chosen by what queries of held-out nodes gain: for each fold of nodes, the map is learned without any
    label of theirs. Taken is the setting by which these gain most: nudges on top serve the nodes that have labels. If
    all lose by more than a standard error, there is no map.
    Deterministic.

    Args:
        metric: what is measured on held-out nodes.
        similarity: how the store ranks.
        taus: temperatures; the first goes down all of ``ridges``, the others are tried at the ridge chosen.
        ridges: penalties on |B|^2, from the largest on.
        iterations: at most, at each setting.

    Raises:
        ValueError: temperatures or ridges that are not positive.

    References:
        Query-side adapters: arXiv 2409.02343, section 4 (Adaptor). Ridge and multinomial logistic regression: Hastie,
        Tibshirani, Friedman, The Elements of Statistical Learning, section 4.4.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> nodes = np.linalg.norm(rng.normal(size=(40, 8)), axis=1, keepdims=True) ** -1 * rng.normal(size=(40, 8))
        >>> queries = nodes[:30] @ rng.normal(size=(8, 8))    # all of them speak another dialect
        >>> fit = LinearMap(metric="nDCG@10").fit(nodes, (queries, [[row] for row in range(30)]))
        >>> fit.adapter is not None, max(point.change for point in fit.tried) > 0.1
        (True, True)
    """

    def __init__(
        self,
        *,
        metric: str | Metric = "nDCG@10",
        similarity: Similarity = "cosine",
        taus: Sequence[float] = DEFAULT_MAP_TAUS,
        ridges: Sequence[float] = DEFAULT_RIDGES,
        iterations: int = 40,
    ) -> None:
        for name, values in (("taus", taus), ("ridges", ridges), ("iterations", [iterations])):
            if not values or not all(np.isfinite(value) and value > 0 for value in values):
                raise ValueError(f"{name} must be positive, got {values!r}")
        self.metric = parse_metric(metric)
        self.similarity: Similarity = similarity
        self.taus = tuple(float(tau) for tau in taus)
        self.ridges = tuple(sorted((float(ridge) for ridge in ridges), reverse=True))
        self.iterations = int(iterations)

    def fit(
        self, embeddings: ArrayLike, labels: LabelsLike, *, held: HeldOutNodes | None = None, background: Any = None
    ) -> MapFit:
        """Choose the temperature and the ridge, and learn from all ``labels``.

        Args:
            embeddings: (n, d) node embeddings, only read.
            labels: queries with the rows that answer them.
            held: the same labels in folds of nodes, if they are ready; made here otherwise.
            background: more nodes that only compete for the queries of held-out nodes.

        Raises:
            TypeError: as `NudgeN.fit`.
            ValueError: as `NudgeN.fit`.
        """
        nodes = as_matrix(embeddings, "embeddings")
        folds = held or HeldOutNodes(nodes, labels, self.metric, self.similarity, background, FoldPlan(FOLDS))
        tried = tuple(self._tried(nodes, folds))
        best = _chosen(tried)
        if best is None:
            return MapFit(None, self.taus[0], self.ridges[0], tried, None)
        adapter, descent = self.fit_at(nodes, labels, best.tau, best.ridge)
        return MapFit(adapter, best.tau, best.ridge, tried, descent)

    def fit_folds(self, embeddings: FloatArray, held: HeldOutNodes, tau: float, ridge: float) -> list[QueryAdapter]:
        """Learn one map for each fold of ``held``, from its training labels alone."""
        return [self.fit_at(embeddings, labels, tau, ridge)[0] for labels in held.training_labels]

    def choose(self, embeddings: FloatArray, held: HeldOutNodes) -> MapPoint | None:
        """The setting by which queries of held-out nodes gain most; None if they lose by all."""
        return _chosen(tuple(self._tried(embeddings, held)))

    def fit_at(
        self, embeddings: FloatArray, labels: LabelsLike, tau: float, ridge: float, start: Float64Array | None = None
    ) -> tuple[QueryAdapter, Descent]:
        """Learn the map at one temperature and ridge, from ``start`` or from B = 0."""
        n_nodes, dimension = embeddings.shape
        prepared = prepare_labels(labels, "training", n_nodes=n_nodes, dimension=dimension, dtype=embeddings.dtype)
        rows = np.unique(prepared.node_of_pair)
        if not len(rows):
            raise ValueError("the training set has no query with an answer: there is nothing to learn from")
        labelled = embeddings[rows].astype(np.float64)
        if self.similarity != "dot":
            labelled /= np.linalg.norm(labelled, axis=1, keepdims=True)
        else:
            # One scale for all, so that a temperature means the same in every store.
            labelled /= np.linalg.norm(labelled, axis=1).mean()
        objective = make_objective(prepared, labelled, rows, tau, ridge)
        with threads_to_map(objective.scores.n_threads) as share:
            found = minimize(
                lambda change: objective.value_and_gradient(change, share),
                np.zeros((dimension, dimension)) if start is None else start,
                curvature=objective.curvature(),
                iterations=self.iterations,
                tolerance=TOLERANCE,
                memory=MEMORY,
            )
        largest = float(np.abs(found.gradient).max(initial=0.0))
        record = Descent(tau, ridge, found.iterations, found.evaluations, found.value, largest, found.converged)
        return QueryAdapter(found.point.astype(np.float32)), record

    def _tried(self, nodes: FloatArray, folds: HeldOutNodes) -> Iterator[MapPoint]:
        """Down the ridges at the first temperature, then the other temperatures at the best one."""
        starts: list[Float64Array | None] = [None] * len(folds.training_labels)
        path: list[MapPoint] = []
        for ridge in self.ridges:
            point, starts = self._measured(nodes, folds, self.taus[0], ridge, starts)
            path.append(point)
            yield point
            top = max(path, key=lambda one: one.change)
            if point.change < top.change - top.error:
                break
        best = _chosen(path)
        if best is None:
            return
        for tau in self.taus[1:]:
            yield self._measured(nodes, folds, tau, best.ridge, [None] * len(starts))[0]

    def _measured(
        self, nodes: FloatArray, folds: HeldOutNodes, tau: float, ridge: float, starts: Sequence[Float64Array | None]
    ) -> tuple[MapPoint, list[Float64Array | None]]:
        adapters = [
            self.fit_at(nodes, train, tau, ridge, start)[0]
            for train, start in zip(folds.training_labels, starts, strict=True)
        ]
        effects = folds.with_adapters(adapters).effects(None)
        change = 0.0 if effects is None else effects.new_nodes.change
        error = 0.0 if effects is None else effects.new_nodes.standard_error
        point = MapPoint(tau, ridge, change, error)
        logger.info("%s", point)
        return point, [np.asarray(adapter.change, dtype=np.float64) for adapter in adapters]


def _chosen(points: Sequence[MapPoint]) -> MapPoint | None:
    """The point by which queries of held-out nodes gain most; None if all lose."""
    top = max(points, key=lambda point: point.change)
    return None if top.change < -top.error else top
