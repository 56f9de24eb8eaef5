"""Solutions of the contrastive objective at any temperature and strength, for one set of labels."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nudge_rag.common.arrays import Float64Array, FloatArray, IntArray, unit_rows
from nudge_rag.common.blas_threads import one_blas_thread, threads_to_map
from nudge_rag.common.similarity import Similarity
from nudge_rag.solvers.contrastive.groups import (
    QueryGroups,
    are_worth_it,
    group_queries,
    is_cheaper_in_groups,
    reorder_queries,
    select_columns,
)
from nudge_rag.solvers.contrastive.lbfgs import minimize
from nudge_rag.solvers.contrastive.objective import ContrastiveObjective
from nudge_rag.solvers.contrastive.offset import common_direction, lower_scores
from nudge_rag.solvers.problem import Problem
from nudge_rag.solvers.result import SAME_VALUE, Descent, first_best
from nudge_rag.solvers.scoring.blocks import covered_columns
from nudge_rag.solvers.scoring.fixed_scores import fixed_scores
from nudge_rag.solvers.scoring.validation import ValidationScorer

__all__ = ["ContrastiveDescent", "Point"]

# Relative improvement of the objective below which a step counts as the last.
TOLERANCE = 3e-3
# Steps that L-BFGS remembers: twice as many take twice the time and save hardly an evaluation.
MEMORY = 5
# Groups of queries look for their nearest nodes anew after so many points of a path, or steps towards a fixed strength.
POINTS_BEFORE_REFRESH, STEPS_BEFORE_REFRESH = 3, 6
# More numbers than this (5,000 nodes of 400) are descended on in the precision that they have.
LARGE = 2_000_000
# A path ends after this many points in a row that are worse than the best one, and at once if a point is worse by more
# than such a share of what the best one gained.
PATIENCE, CLEARLY_WORSE = 2, 0.05


@dataclass(frozen=True)
class Point:
    """A point of a path: the vectors of the covered nodes (c, d), their value, and how they were come to.

    ``solution`` (c, d) is where the descent ended, in its own scale; None for the untouched nodes.
    """

    vectors: FloatArray
    value: float
    descent: Descent | None
    solution: FloatArray | None = field(default=None, repr=False)


class ContrastiveDescent:
    """The labels of ``problem``, and what of the other nodes matters to them, ready to be descended on.

    Args:
        problem: checked input.
        background: more nodes that only compete.
        similarity: how the store ranks.
        uncovered_weight: of the objective's second sum.
        negatives: how many of each training query's nearest unlabelled nodes take part.
        rejection: how many nodes more one that a query rejected with grade -1 counts as.
        keep_lengths: whether nodes only turn.
    """

    def __init__(
        self,
        problem: Problem,
        background: Any,
        similarity: Similarity,
        uncovered_weight: float,
        negatives: int,
        rejection: float,
        keep_lengths: bool,
    ) -> None:
        if problem.train is None:
            raise TypeError("NudgeContrastive needs the training queries themselves")
        # Directions are all that is asked for from here on; of very many queries one copy is enough.
        self._train = replace(problem.train, vectors=unit_rows(problem.train.vectors))
        self._similarity = similarity
        self._bounds: IntArray | None = None
        if is_cheaper_in_groups(problem.train.n_queries, len(problem.rows)):
            self._put_into_groups(problem)
        self._given, self._uncovered_weight = problem.originals, uncovered_weight
        self._sphere = keep_lengths
        # For cosine and l2 lengths do not matter, and competitors are those by direction.
        ranked_by: Similarity = "dot" if similarity == "dot" else "cosine"
        self._columns = covered_columns(self._train.node_of_pair, problem.rows)
        originals = problem.originals.astype(_precision(problem.originals))
        self._lengths = np.linalg.norm(originals, axis=1, keepdims=True)
        self._originals = originals / self._lengths if self._sphere else originals
        self._others = self._best_others(problem, background, ranked_by, negatives)
        self._train = replace(self._train, competitors=None)
        self._embeddings, self._rows = problem.embeddings, problem.rows
        self._rejected_columns = covered_columns(self._train.rejected.node_of_pair, problem.rows)
        self._rejected_weights = rejection * self._train.rejected.weights
        self._groups: QueryGroups | None = None

    def path(
        self,
        tau: float,
        strengths: Sequence[float],
        iterations: int,
        judge: ValidationScorer,
        start: FloatArray | None = None,
        patience: int = PATIENCE,
    ) -> list[Point]:
        """Down the ``strengths``, each solution a warm start for the next; the first point is the untouched nodes.

        ``start`` is a solution for another temperature, for the first strength to start from. Vectors are kept of the
        best point alone: the first of equals. The path ends after ``patience`` points in a row that are worse than it,
        or after one that is clearly worse.
        """
        objective = self._objective(tau)
        current = objective.originals if start is None else start
        objective = self._grouped_at_originals(objective) if start is None else self._refreshed(objective, current)
        path = [Point(self._given, judge.value(self._given), None)]
        for number, strength in enumerate(strengths):
            if number and number % POINTS_BEFORE_REFRESH == 0:
                objective = self._refreshed(objective, current)
            current, record = _descend(objective, current, strength, iterations)
            vectors = self._as_given(current)
            path.append(Point(vectors, judge.value(vectors), record, current))
            path = _with_best_alone(path)
            best = max(one.value for one in path)
            clearly = best - path[-1].value > CLEARLY_WORSE * (best - path[0].value) > 0
            if clearly or max(one.value for one in path[-patience:]) < best - SAME_VALUE:
                break
        return path

    def at(self, tau: float, strength: float, iterations: int, start: FloatArray | None = None) -> Point:
        """From the untouched nodes, or from a solution for the same nodes, to one strength; of no known value."""
        objective, taken, asked = self._objective(tau), 0, 0
        if start is None:
            start = objective.originals
            if self._bounds is not None:
                grouped = self._grouped_at_originals(objective)
                first = min(STEPS_BEFORE_REFRESH, iterations)
                start, begun = _descend(grouped, start, strength, first)
                taken, asked = begun.iterations, begun.evaluations
        objective, left = self._refreshed(objective, start), max(1, iterations - taken)
        found, record = _descend(objective, start, strength, left)
        record = replace(record, iterations=record.iterations + taken, evaluations=record.evaluations + asked)
        return Point(self._as_given(found), float("nan"), record, found)

    def start_at(self, rows: IntArray, vectors: FloatArray) -> FloatArray:
        """The untouched nodes, those of increasing ``rows`` moved to ``vectors``, as a descent begins."""
        places = covered_columns(rows, self._rows)
        moved: FloatArray = vectors[places >= 0].astype(self._originals.dtype)
        if self._sphere:
            moved /= np.linalg.norm(moved, axis=1, keepdims=True)
        start = self._originals.copy()
        start[places[places >= 0]] = moved
        return start

    def averaged(self, solutions: Sequence[FloatArray]) -> FloatArray:
        """The mean of ``solutions``; for cosine and l2 its direction, at the nodes' own lengths.

        As model soups average weights: Wortsman et al., arXiv 2203.05482.
        """
        if len(solutions) == 1:
            return solutions[0]
        total = solutions[0].astype(np.float64)
        for one in solutions[1:]:
            total += one
        total /= len(solutions)
        return self._as_given(total)

    def lower_scores(self, vectors: FloatArray, offset: float) -> FloatArray:
        """As `offset.lower_scores`, along the training queries' common direction."""
        if not offset:
            return vectors
        return lower_scores(vectors, common_direction(self._train.vectors), offset, keep_lengths=self._sphere)

    def _put_into_groups(self, problem: Problem) -> None:
        """Order the training queries by groups, unless these have so many labels that all nodes cost less."""
        with one_blas_thread():
            order, bounds = group_queries(self._train.vectors)
        ordered = reorder_queries(self._train, order)
        columns = covered_columns(ordered.node_of_pair, problem.rows)
        if are_worth_it(bounds, ordered.query_of_pair, columns, len(problem.rows)):
            self._train, self._bounds = ordered, bounds

    def _as_given(self, solution: FloatArray) -> FloatArray:
        if self._sphere:
            solution = solution / np.linalg.norm(solution, axis=1, keepdims=True) * self._lengths
        return solution.astype(self._given.dtype)

    def _objective(self, tau: float) -> ContrastiveObjective:
        train = self._train
        total = np.bincount(train.query_of_pair, weights=train.grades, minlength=train.n_queries)
        return ContrastiveObjective(
            queries=self._train.vectors,
            query_of_pair=train.query_of_pair,
            column_of_pair=self._columns,
            weights=train.grades / total[train.query_of_pair],
            others=np.logaddexp(_log_sum_exp(self._others / tau), self._rejected_others(tau)),
            originals=self._originals,
            tau=tau,
            sphere=self._sphere,
            uncovered_weight=self._uncovered_weight,
            rejected=self._rejected_covered(),
            lengths=self._lengths if self._sphere and self._similarity == "dot" else None,
        )

    def _refreshed(self, objective: ContrastiveObjective, current: FloatArray) -> ContrastiveObjective:
        """The objective with the columns that are nearest now; itself if it runs over all nodes."""
        if self._bounds is None:
            return objective
        return replace(objective, groups=self._grouped(self._bounds, current, seed=1))

    def _grouped_at_originals(self, objective: ContrastiveObjective) -> ContrastiveObjective:
        if self._bounds is None:
            return objective
        if self._groups is None:
            self._groups = self._grouped(self._bounds, self._originals)
        return replace(objective, groups=self._groups)

    def _grouped(self, bounds: IntArray, nodes: FloatArray, seed: int = 0) -> QueryGroups:
        at = nodes
        if self._sphere:
            at = nodes / np.linalg.norm(nodes, axis=1, keepdims=True)
            at = at * self._lengths if self._similarity == "dot" else at
        rejecting, columns, _ = self._rejected_covered()
        with one_blas_thread():
            return select_columns(
                self._train.vectors,
                bounds,
                at.astype(self._train.vectors.dtype),
                (self._train.query_of_pair, self._columns),
                (rejecting, columns),
                seed,
            )

    def _rejected_covered(self) -> tuple[IntArray, IntArray, Float64Array]:
        covered = self._rejected_columns >= 0
        queries = self._train.rejected.query_of_pair[covered]
        return queries, self._rejected_columns[covered], np.log1p(self._rejected_weights[covered])

    def _rejected_others(self, tau: float) -> Float64Array:
        """Return log sum weight exp(q.v / tau) over the rejected nodes that do not move, (m,); -inf for none."""
        rejected, fixed = self._train.rejected, self._rejected_columns < 0
        queries, nodes = rejected.query_of_pair[fixed], rejected.node_of_pair[fixed]
        summed = np.full(self._train.n_queries, -np.inf)
        vectors = np.asarray(self._embeddings[nodes], dtype=np.float64)
        if self._similarity != "dot":
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        scores = np.einsum("pd,pd->p", self._train.vectors[queries], vectors)
        with np.errstate(divide="ignore"):
            np.logaddexp.at(summed, queries, scores / tau + np.log(self._rejected_weights[fixed]))
        return summed

    def _best_others(self, problem: Problem, background: Any, ranked_by: Similarity, depth: int) -> Float64Array:
        """Scores of each training query's nearest nodes that do not move, (m, depth); -inf if there are fewer."""
        train = self._train
        if self._similarity == "l2":
            train = replace(train, competitors=None)  # distances do not tell directions
        if train.competitors is not None:
            depth = min(depth, train.competitors.shape[1])
        if not depth:
            return np.full((train.n_queries, 1), -np.inf)
        found = fixed_scores(train, problem.embeddings, problem.rows, background, depth=depth, similarity=ranked_by)
        return found.best.astype(np.float64)


def _with_best_alone(path: Sequence[Point]) -> list[Point]:
    """The same points without the vectors of all but the best one."""
    best = first_best([point.value for point in path])
    return [
        point if number == best else replace(point, vectors=point.vectors[:0].copy(), solution=None)
        for number, point in enumerate(path)
    ]


def _precision(originals: FloatArray) -> Any:
    """Of very many numbers their own: a descent keeps some twenty arrays of their size."""
    return originals.dtype if originals.size > LARGE else np.float64


def _log_sum_exp(logits: Float64Array) -> Float64Array:
    """Of each row; -inf for rows of nothing else."""
    highest = logits.max(axis=1, keepdims=True)
    highest = np.where(np.isfinite(highest), highest, 0.0)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.exp(logits - highest).sum(axis=1)) + highest[:, 0])


def _descend(
    objective: ContrastiveObjective, start: FloatArray, strength: float, iterations: int
) -> tuple[FloatArray, Descent]:
    """Where L-BFGS from ``start`` (c, d) ends."""
    n_threads = objective.n_threads  # counted before linear algebra has one thread
    # Products of groups are small.
    alone = one_blas_thread() if objective.groups is not None else nullcontext()
    with alone, threads_to_map(n_threads) as share:
        found = minimize(
            lambda vectors: objective.value_and_gradient(vectors, strength, share),
            start,
            curvature=objective.curvatures(strength),
            iterations=iterations,
            tolerance=TOLERANCE,
            memory=MEMORY,
        )
    largest = float(np.abs(found.gradient).max(initial=0.0))
    record = Descent(
        objective.tau, strength, found.iterations, found.evaluations, found.value, largest, found.converged
    )
    return found.point, record
