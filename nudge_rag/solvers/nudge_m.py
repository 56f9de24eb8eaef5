"""NUDGE-M: add a step towards the training queries, for dot-product stores (arXiv 2409.02343, section 3.2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from nudge_rag.common.arrays import Float64Array, FloatArray
from nudge_rag.common.similarity import Similarity
from nudge_rag.evaluation.metrics import Metric, parse_metric
from nudge_rag.solvers.devices import to_numpy
from nudge_rag.solvers.labels import LabelsLike, PreparedLabels, QuerySums
from nudge_rag.solvers.needs import SolverNeeds
from nudge_rag.solvers.problem import Problem, check_gamma, make_problem
from nudge_rag.solvers.result import SAME_VALUE, NudgeFit, ValidationCurve, first_best
from nudge_rag.solvers.scoring.blocks import covered_columns, pair_blocks
from nudge_rag.solvers.scoring.fixed_scores import fixed_scores, query_vectors
from nudge_rag.solvers.step_search.exact import metric_along_paths
from nudge_rag.solvers.step_search.paths import Paths, paths_of_lines

__all__ = ["NudgeM"]

# A few units in the last place: two nodes with the same queries have the same slope, whatever the product rounds to.
SAME_SLOPE = 8.0
# nudge-ft divides by slope + 1e-8, which widens intervals by a hair: two that only touch then overlap.
PEER_BLUR = 1e-8
# Past an interval that never ends, any larger step is as good; the smallest one that is clear of rounding is taken.
CLEAR_OF_EDGE = 1e-3


class NudgeM:
    """Move covered node embeddings along the sum of their training queries; the result is not unit length.

        v'_j = v_j + gamma * g_j,  g_j the unit direction of the sum of node j's unit training queries.

    gamma is chosen exactly: for each validation (query, answer) pair the steps at which the answer outranks every other
    node form one interval; gamma lies where most intervals overlap, and is 0 where that is already so at 0. With a
    ``metric``, every stretch of gamma >= 0 on which it is constant is found, and gamma lies in the first best one.

    Scores must be dot products: on a cosine or l2 store use `NudgeN`. Long vectors win dot products, so nodes without
    training queries can lose; validation pairs should include some of theirs.

    Args:
        gamma: fixed step size; no search.
        metric: what validation maximises, such as ``"nDCG@10"``; default the number of pairs ranked first, as nudge-ft.
        similarity: must be ``"dot"``.
        point: ``"middle"`` of the best interval; or its lower ``"edge"`` as nudge-ft takes it, with intervals that
            are widened by an epsilon as nudge-ft's are.

    References:
        arXiv 2409.02343, section 3.2.

    Example:
        >>> import numpy as np
        >>> queries = np.array([[0.6, 0.8]])
        >>> fit = NudgeM(point="edge").fit(np.eye(2), (queries, [[0]]), (queries, [[0]]))
        >>> round(fit.gamma, 6), fit.vectors.round(2).tolist()
        (0.2, [[1.12, 0.16]])
    """

    name = "nudge-m"

    def __init__(
        self,
        *,
        gamma: float | None = None,
        metric: str | Metric | None = None,
        similarity: Similarity = "dot",
        point: Literal["middle", "edge"] = "middle",
    ) -> None:
        if similarity != "dot":
            raise ValueError(
                f"NUDGE-M gives vectors that are not unit length, which a {similarity} store cannot rank:"
                " use NudgeN (solver='nudge-n'), or a store with dot-product (inner-product) similarity"
            )
        if point not in ("middle", "edge"):
            raise ValueError(f"point must be 'middle' or 'edge', got {point!r}")
        if point == "edge" and metric is not None:
            raise ValueError("point='edge' is nudge-ft's rule for pairs ranked first: it takes no metric")
        self.metric = None if metric is None else parse_metric(metric)
        self.gamma = None if gamma is None else check_gamma(gamma, "gamma", float(np.finfo(np.float32).max))
        self.similarity: Similarity = "dot"
        self.point = point

    @property
    def needs(self) -> SolverNeeds:
        """The unlabelled nodes that validation ranks against, as deep as the metric looks."""
        return SolverNeeds(depth=1 if self.metric is None else self.metric.k)

    def fit(
        self,
        embeddings: ArrayLike,
        train: LabelsLike | QuerySums,
        val: LabelsLike | None = None,
        *,
        background: FloatArray | Iterable[FloatArray] | None = None,
    ) -> NudgeFit:
        """Solve for the covered rows of ``embeddings``. Arguments, errors and warnings as `NudgeN.fit`."""
        problem = make_problem(embeddings, train, val, needs_validation=self.gamma is None)
        gamma, curve = self._searched(problem, background)
        moved = (problem.originals.astype(np.float64) + gamma * problem.targets).astype(problem.originals.dtype)
        return NudgeFit(
            solver=self.name,
            rows=problem.rows,
            vectors=problem.as_given(problem.originals if gamma == 0 else moved),
            gamma=gamma,
            curve=curve,
            improved=bool(
                len(curve.values) and curve.values[np.searchsorted(curve.gammas, gamma)] > curve.values[0] + SAME_VALUE
            ),
            at_edge=False,
            opposed=problem.rows[:0],
            originals=problem.embeddings,
            **problem.without_answers(),
        )

    def _searched(self, problem: Problem, background: Any) -> tuple[float, ValidationCurve]:
        if self.metric is not None and problem.val is not None:
            curve = _metric_curve(problem, problem.val, background, self.metric, self.gamma)
            return curve.gammas[first_best(curve.values)] if self.gamma is None else self.gamma, curve
        lows, highs, n_pairs = _intervals(problem, background, PEER_BLUR if self.point == "edge" else 0.0)
        gamma = _most_covered(lows, highs, self.point) if self.gamma is None else self.gamma
        return gamma, _coverage(lows, highs, gamma, n_pairs)


def _metric_curve(
    problem: Problem, val: PreparedLabels, background: Any, metric: Metric, fixed_gamma: float | None
) -> ValidationCurve:
    """A step inside each stretch on which the metric is constant: its middle, or just past its start for the last."""
    fixed = fixed_scores(val, problem.embeddings, problem.rows, background, depth=metric.k, similarity="dot")
    steps = metric_along_paths(val, _lines(problem), fixed, metric)
    starts = np.tan(steps.starts)
    ends = np.append(starts[1:], starts[-1] * (1 + 2 * CLEAR_OF_EDGE))
    gammas, values = (starts + ends) / 2, steps.values
    gammas[0] = 0.0
    if fixed_gamma is not None:
        at = int(np.searchsorted(gammas, fixed_gamma))
        if at == len(gammas) or gammas[at] != fixed_gamma:
            value = steps.value_at(float(np.arctan(fixed_gamma)))
            gammas, values = np.insert(gammas, at, fixed_gamma), np.insert(values, at, value)
    return ValidationCurve(gammas, values, str(metric))


def _lines(problem: Problem) -> Paths:
    return paths_of_lines(problem.rows, problem.originals, problem.targets, problem.embeddings)


def _intervals(problem: Problem, background: Any, blur: float) -> tuple[Float64Array, Float64Array, int]:
    """For each validation pair whose answer can come first: lowest and highest gamma at which it does, and the count.

    Against node j the answer x is not outranked while s_j + gamma t_j <= s_x + gamma t_x, with s = q.v, t = q.g.
    """
    val = problem.val
    if val is None:
        return np.zeros(0), np.zeros(0), 0
    fixed = fixed_scores(val, problem.embeddings, problem.rows, background, depth=1, similarity="dot")
    queries = query_vectors(val, "dot")
    paths = _lines(problem)
    products = paths.products(queries.dtype)
    columns = covered_columns(val.node_of_pair, problem.rows)
    lows, highs = np.empty(len(columns)), np.empty(len(columns))
    for part, pairs in pair_blocks(val, len(problem.rows), products.scores_at_once):
        scores = products.of(queries[part])
        at_start = np.concatenate([to_numpy(scores.a), fixed.best[part]], axis=1)
        at_slope = np.concatenate([to_numpy(scores.b), np.zeros_like(fixed.best[part])], axis=1)
        rows, own_columns = val.query_of_pair[pairs] - part.start, columns[pairs]
        covered = own_columns >= 0
        own = np.where(covered, at_start[rows, own_columns], fixed.answer[pairs])
        slope = np.where(covered, at_slope[rows, own_columns], at_slope.dtype.type(0))
        lows[pairs], highs[pairs] = _interval_of_each(own, slope, at_start[rows], at_slope[rows], blur)
    kept = highs >= lows
    return lows[kept], highs[kept], len(columns)


def _interval_of_each(
    own: FloatArray, slope: FloatArray, starts: FloatArray, slopes: FloatArray, blur: float
) -> tuple[FloatArray, FloatArray]:
    """Steps gamma >= 0 at which own + gamma slope (p,) is at least starts + gamma slopes (p, n) everywhere.

    An empty interval comes back as (inf, -inf).
    """
    lead = own[:, None] - starts
    gains = slopes - slope[:, None]
    flat = SAME_SLOPE * np.finfo(gains.dtype).eps
    lows = np.zeros_like(own)
    which, column = np.nonzero(lead < 0)
    lost = gains[which, column] >= -flat
    catching = which[~lost], column[~lost]
    np.maximum.at(lows, catching[0], lead[catching] / (gains[catching] - blur))
    # Of those behind, the one that rises fastest for its distance catches up first.
    with np.errstate(divide="ignore", invalid="ignore"):
        pace = (gains - flat) / lead
    pace[which, column] = -np.inf
    fastest = np.nanargmax(pace, axis=1)
    at = np.arange(len(own)), fastest
    rises = gains[at] > flat
    highs = np.where(rises, lead[at] / np.where(rises, gains[at] - blur, 1), np.inf)
    lows[which[lost]], highs[which[lost]] = np.inf, -np.inf
    return lows, highs


def _most_covered(lows: Float64Array, highs: Float64Array, point: Literal["middle", "edge"]) -> float:
    """A step in the first stretch that most intervals cover; 0 if that stretch starts at 0 or there is none."""
    starts, ends = np.sort(lows), np.sort(highs)
    candidates = np.unique(starts)
    # An interval that ends where another starts does not overlap it: the rule of nudge-ft.
    covered = np.searchsorted(starts, candidates, side="right") - np.searchsorted(ends, candidates, side="right")
    if not len(covered) or covered.max() <= 0:
        return 0.0
    edge = float(candidates[covered.argmax()])
    if point == "edge" or edge == 0:
        return edge
    end = ends[np.searchsorted(ends, edge, side="right")]
    return (edge + float(end)) / 2 if np.isfinite(end) else edge * (1 + CLEAR_OF_EDGE)


def _coverage(lows: Float64Array, highs: Float64Array, gamma: float, n_pairs: int) -> ValidationCurve:
    """Share of validation pairs ranked first at 0, at every point where an interval starts, and at ``gamma``."""
    name = "pairs ranked first"
    if not n_pairs:
        return ValidationCurve(np.zeros(0), np.zeros(0), name)
    gammas = np.unique(np.concatenate([[0.0, gamma], lows]))
    starts, ends = np.sort(lows), np.sort(highs)
    counts = np.searchsorted(starts, gammas, side="right") - np.searchsorted(ends, gammas, side="left")
    return ValidationCurve(gammas, counts / n_pairs, name)
