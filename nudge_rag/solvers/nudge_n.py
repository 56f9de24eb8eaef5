"""NUDGE-N: turn covered nodes towards their training queries, on the sphere (arXiv 2409.02343, section 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.caller import warn_caller
from nudge_rag.common.similarity import Similarity
from nudge_rag.evaluation.metrics import Metric, parse_metric
from nudge_rag.solvers.labels import LabelsLike, QuerySums
from nudge_rag.solvers.needs import SolverNeeds
from nudge_rag.solvers.problem import Problem, check_gamma, make_problem
from nudge_rag.solvers.result import SAME_VALUE, NudgeFit, ValidationCurve, first_best
from nudge_rag.solvers.scoring.fixed_scores import fixed_scores
from nudge_rag.solvers.step_search.arcs import Arcs, make_arcs
from nudge_rag.solvers.step_search.exact import metric_along_paths
from nudge_rag.solvers.step_search.paths import paths_of_arcs
from nudge_rag.solvers.step_search.ranks import ranks_along_paths

__all__ = ["DEFAULT_GAMMAS", "NudgeN"]

# The authors' grid (nudge-ft 0.1.2): 0, 0.02, ..., 0.48, by the same products so that the floats are equal too.
DEFAULT_GAMMAS = tuple(0.02 * step for step in range(25))
# |v' - v|^2 between two opposite unit vectors.
LARGEST_GAMMA = 4.0

Curve = tuple[list[float], list[float]]


class NudgeN:
    """Move covered node embeddings on the sphere, as far as validation queries gain from it.

    For each node j with training queries of unit sum direction g_j, solves

        max  v'_j . g_j   subject to  |v'_j - v_j|^2 <= gamma,  |v'_j| = |v_j| = 1,

    whose solution turns v_j towards g_j by min(arccos(1 - gamma / 2), angle(v_j, g_j)). gamma is the smallest point of
    a grid with the best mean of ``metric`` over the validation queries; the grid is extended by its own step while the
    best point is its last. Embeddings that are not unit length keep their length. Nodes whose training queries lie more
    than 90 degrees away stay in place, as in the authors' implementation; the result lists them.

    Args:
        gamma: fixed step size; no search.
        gammas: grid to search, in 0..4; 0 is always searched too. Default: 0, 0.02, ..., 0.48.
        metric: what validation maximises, such as ``"nDCG@10"``; default top-1 accuracy, as nudge-ft.
        similarity: how the store ranks.
        extend: whether to extend the grid beyond its end.
        search: ``"grid"``, or ``"exact"``: the metric is a step function of gamma, all of whose steps are found; gamma
            is the middle of the first best one. Takes no ``gammas``. Ties count for the answer, and nodes that share
            all of their queries tie where they arrive: with many of those, prefer the grid.

    References:
        Zeighami, Wellmer, Parameswaran: NUDGE: Lightweight Non-Parametric Fine-Tuning of Embeddings for Retrieval,
        arXiv 2409.02343, section 3.3.

    Example:
        >>> import numpy as np
        >>> nodes = np.eye(3)
        >>> queries = np.array([[0.65, 0.76, 0.0]])    # a user wanted node 0, node 1 came first
        >>> fit = NudgeN().fit(nodes, (queries, [[0]]), (queries, [[0]]))
        >>> round(fit.gamma, 2), fit.rows.tolist(), fit.vectors.round(2).tolist()
        (0.04, [0], [[0.98, 0.2, 0.0]])
    """

    name = "nudge-n"

    def __init__(
        self,
        *,
        gamma: float | None = None,
        gammas: Sequence[float] | None = None,
        metric: str | Metric = "CappedRecall@1",
        similarity: Similarity = "cosine",
        extend: bool = True,
        search: Literal["grid", "exact"] = "grid",
    ) -> None:
        if search not in ("grid", "exact"):
            raise ValueError(f"search must be 'grid' or 'exact', got {search!r}")
        if search == "exact" and (gamma is not None or gammas is not None):
            raise ValueError("search='exact' finds gamma over its whole range: pass neither gamma= nor gammas=")
        if gamma is not None and gammas is not None:
            raise ValueError("pass gamma= (one fixed step) or gammas= (a grid to search), not both")
        if similarity not in ("cosine", "dot", "l2"):
            raise ValueError(f"similarity must be 'cosine', 'dot' or 'l2', got {similarity!r}")
        self.gamma = None if gamma is None else check_gamma(gamma, "gamma", LARGEST_GAMMA)
        grid = DEFAULT_GAMMAS if gammas is None else [check_gamma(one, "gammas", LARGEST_GAMMA) for one in gammas]
        self.gammas = sorted({0.0, *grid})
        self.metric = parse_metric(metric)
        self.similarity: Similarity = similarity
        self.extend = extend
        self.search = search

    @property
    def needs(self) -> SolverNeeds:
        """The unlabelled nodes that validation ranks against, as deep as the metric looks."""
        return SolverNeeds(depth=self.metric.k)

    def fit(
        self,
        embeddings: ArrayLike,
        train: LabelsLike | QuerySums,
        val: LabelsLike | None = None,
        *,
        background: FloatArray | Iterable[FloatArray] | None = None,
    ) -> NudgeFit:
        """Solve for the covered rows of ``embeddings``, which is only read.

        Args:
            embeddings: (n, d) node embeddings, float32 or float64 (kept); may be memory-mapped, or an array of another
                library (torch, CuPy, the array API standard), which stays on its device, as the result does.
            train: queries with the rows that answer them (`LabeledQueries` or a pair), or their `QuerySums`.
            val: the same, for choosing gamma; may be left out when gamma is fixed.
            background: more nodes that compete in validation and never move: an array (b, d) or blocks of one.

        Raises:
            TypeError: labels that are not integers, arrays that are not numeric.
            ValueError: shapes, dimensions or row indices that do not fit; zero, NaN or infinite vectors (with the row);
                an empty training set; an empty validation set when gamma is to be chosen.

        Warns:
            UserWarning: queries without answers; the best gamma still at the end of the range.
        """
        problem = make_problem(embeddings, train, val, needs_validation=self.gamma is None)
        arcs = make_arcs(problem.rows, problem.originals, problem.targets)
        gammas, values = self._curve(problem, arcs, background)
        gamma = self.gamma if self.gamma is not None else gammas[first_best(values)]
        at_edge = self.gamma is None and self.search == "grid" and gamma > 0 and gamma == gammas[-1]
        if at_edge:
            warn_caller(_edge_message(gamma, arcs, extended=self.extend))
        improved = bool(values) and values[gammas.index(gamma)] > values[0] + SAME_VALUE
        return NudgeFit(
            solver=self.name,
            rows=problem.rows,
            vectors=problem.as_given(problem.originals if gamma == 0 else arcs.points(gamma, problem.originals)),
            gamma=gamma,
            curve=ValidationCurve(np.array(gammas), np.array(values), str(self.metric)),
            improved=improved,
            at_edge=at_edge,
            opposed=arcs.opposed,
            originals=problem.embeddings,
            **problem.without_answers(),
        )

    def _curve(self, problem: Problem, arcs: Arcs, background: Any) -> Curve:
        val = problem.val
        if val is None:
            return [], []
        fixed = fixed_scores(
            val, problem.embeddings, arcs.rows, background, depth=self.metric.k, similarity=self.similarity
        )
        paths = paths_of_arcs(arcs, self.similarity, problem.embeddings)
        if self.search == "exact":
            steps = metric_along_paths(val, paths, fixed, self.metric)
            # A point inside each step, as |v' - v|^2 = 2 - 2 cos(angle).
            return (2 - 2 * np.cos(steps.middles())).tolist(), steps.values.tolist()
        gammas = self.gammas if self.gamma is None else sorted({0.0, self.gamma})

        def values_at(steps: list[float]) -> list[float]:
            ranks = ranks_along_paths(val, arcs, paths, fixed, steps)
            per_query = self.metric.per_query(ranks, val.grades, val.query_of_pair, val.n_queries)
            return [float(value) for value in per_query.mean(axis=0)]

        values = values_at(gammas)
        if self.gamma is None and self.extend:
            return self._extended(arcs, values_at, gammas, values)
        return gammas, values

    def _extended(
        self, arcs: Arcs, values_at: Callable[[list[float]], list[float]], gammas: list[float], values: list[float]
    ) -> Curve:
        limit = arcs.largest_gamma()
        while len(gammas) > 1 and first_best(values) == len(values) - 1 and gammas[-1] < limit:
            step = gammas[-1] - gammas[-2]
            more = [min(gammas[-1] + step * count, limit) for count in range(1, len(self.gammas))]
            more = sorted({gamma for gamma in more if gamma > gammas[-1]})
            gammas, values = gammas + more, values + values_at(more)
        return gammas, values


def _edge_message(gamma: float, arcs: Arcs, *, extended: bool) -> str:
    if extended and gamma >= arcs.largest_gamma():
        return f"the best gamma, {gamma:.3g}, is the largest there is: every covered node sits on its training queries"
    return f"the best gamma, {gamma:.3g}, is the largest that was tried: pass larger gammas or extend=True"
