"""The objective of `LinearMap` and its gradient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nudge_rag.common.arrays import Float64Array, FloatArray, IntArray, unit_rows
from nudge_rag.common.blas_threads import Map
from nudge_rag.solvers.contrastive.objective import ContrastiveObjective
from nudge_rag.solvers.labels import PreparedLabels
from nudge_rag.solvers.scoring.blocks import covered_columns

__all__ = ["LinearMapObjective", "make_objective"]

# Queries and nodes beyond these are sampled, so that an evaluation never costs more than their product.
MOST_QUERIES, MOST_NODES = 10_000, 5_000
# About how much of the second moment of queries lies in each of the directions that matter.
COMMON_SHARE = 0.15


@dataclass(frozen=True)
class LinearMapObjective:
    """Mean cross-entropy of mapped queries against their labels, with a ridge.

        f(B) = 1/m sum_i [ log sum_j exp(((I + B) q_i).d_j / tau) - sum_j w_ij ((I + B) q_i).d_j / tau ] + ridge |B|^2

    The sum over j runs over labelled nodes only, so that the nodes that nobody labelled are not pushed away. f is
    strictly convex in B for a positive ridge: a log-sum-exp of linear functions, a linear function, and a quadratic.

    Since ((I + B) q).d = q.((I + B^T) d), with U = D (I + B) the rows of moved nodes and G the gradient of the
    cross-entropy with respect to U, the gradient is D^T G / m + 2 ridge B.

    Attributes:
        scores: cross-entropy of queries against any rows of nodes, and its gradient with respect to them.
        ridge: of |B|^2, positive.
    """

    scores: ContrastiveObjective
    ridge: float

    @property
    def dimension(self) -> int:
        """d, of the (d, d) matrix B."""
        return int(self.scores.originals.shape[1])

    def value_and_gradient(self, change: FloatArray, share: Map = map) -> tuple[float, FloatArray]:
        """F and its gradient at B (d, d), float64; ``share`` as `ContrastiveObjective.value_and_gradient` has it."""
        nodes, count = self.scores.originals, max(1, len(self.scores.queries))
        loss, by_node = self.scores.value_and_gradient(nodes + nodes @ change, 0.0, share)
        value = loss / count + self.ridge * float(np.vdot(change, change))
        return value, nodes.T @ by_node / count + 2 * self.ridge * change

    def curvature(self) -> float:
        """A rough guess of the second derivative at B = 0, for the length of a first step."""
        return 2 * self.ridge + COMMON_SHARE / self.scores.tau**2 / self.dimension


def make_objective(
    labels: PreparedLabels, embeddings: Float64Array, rows: IntArray, tau: float, ridge: float, seed: int = 0
) -> LinearMapObjective:
    """Set up the objective; of very many labels a sample, always the same for one seed.

    Args:
        labels: checked training labels.
        embeddings: (c, d) the labelled nodes, as they are scored: unit rows unless the store ranks by dot product.
        rows: (c,) increasing, the rows that ``labels`` knows these nodes by.
        tau: temperature.
        ridge: of |B|^2.
        seed: of the sample.
    """
    queries = unit_rows(labels.vectors)
    columns = covered_columns(labels.node_of_pair, rows)
    query_of_pair, grades = labels.query_of_pair, labels.grades
    rng = np.random.default_rng(seed)
    if len(queries) > MOST_QUERIES:
        kept = np.sort(rng.permutation(len(queries))[:MOST_QUERIES])
        pairs = np.isin(query_of_pair, kept)
        queries, columns, grades = queries[kept], columns[pairs], grades[pairs]
        query_of_pair = np.searchsorted(kept, query_of_pair[pairs])
    if len(rows) > MOST_NODES:
        # Their own answers stay; all others are stood for by a sample.
        answers = np.unique(columns)
        others = np.setdiff1d(np.arange(len(rows)), answers)
        drawn = rng.permutation(others)[: max(0, MOST_NODES - len(answers))]
        shown = np.sort(np.concatenate([answers, drawn]))
        embeddings, columns = embeddings[shown], np.searchsorted(shown, columns)
    total = np.bincount(query_of_pair, weights=grades, minlength=len(queries))
    scores = ContrastiveObjective(
        queries=queries,
        query_of_pair=query_of_pair,
        column_of_pair=columns,
        weights=grades / total[query_of_pair],
        others=np.full(len(queries), -np.inf),
        originals=embeddings,
        tau=tau,
        sphere=False,
    )
    return LinearMapObjective(scores, ridge)
