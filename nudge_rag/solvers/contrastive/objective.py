"""The objective of `NudgeContrastive` and its gradient."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from nudge_rag.common.arrays import Float64Array, FloatArray, IntArray
from nudge_rag.solvers.contrastive.groups import QueryGroups

__all__ = ["ContrastiveObjective"]

# Blocks of queries are chosen so that this many logits are held at once.
LOGITS_PER_BLOCK = 2_000_000
# About how much of the queries' second moment lies in each of the directions that matter.
COMMON_SHARE = 0.15


def _no_pairs() -> tuple[IntArray, IntArray, Float64Array]:
    return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)


@dataclass(frozen=True)
class ContrastiveObjective:
    """Cross-entropy of the training queries against their labels, and a penalty on leaving the originals.

        f(V) = sum_i [ log( sum_j n_ij exp(q_i.u_j / tau) + exp(b_i) ) - sum_j w_ij q_i.u_j / tau ]
             + uncovered_weight * sum_i log( sum_{j not in A_i} n_ij exp(q_i.u_j / tau)
                                             + sum_{j in A_i} exp(q_i.d_j / tau) + exp(b_i) ) + strength * P(V)

    where A_i are the answers of query i, and n_ij is 1 except for nodes that the query rejected, which count as more.
    The second sum is what the query would lose if its own answers had no labels and stood where they were while all
    others moved: the lot of queries whose answers nobody has labelled.

    For dot products u_j = v_j and P = sum_j |v_j - d_j|^2: a sum of convex functions, strictly convex for a positive
    strength. On the sphere u_j = l_j v_j / |v_j| and P = sum_j |v_j / |v_j| - d_j|^2 + (|v_j| - 1)^2, whose second term
    only keeps lengths near 1; f is then not convex in v, and is descended from the originals. There d_j in the second
    sum stands for l_j d_j.

    With p_ij and r_ij the shares of n_ij exp(q_i.u_j / tau) in the two sums (r_ij = 0 for answers), the gradient with
    respect to u_j is sum_i (p_ij - w_ij + uncovered_weight r_ij) q_i / tau, and on the sphere that of v_j its part
    across v_j, times l_j / |v_j|.

    With ``groups`` the sums over j run over the columns of a query's group alone, each n_ij times the nodes that it
    stands for: an evaluation then costs queries times a constant.

    Attributes:
        queries: (m, d) float32 unit training queries q_i.
        query_of_pair: (p,) the query i of each label.
        column_of_pair: (p,) its node j.
        weights: (p,) its w_ij, positive and summing to 1 for each query.
        others: (m,) b_i, the logarithm of the summed exponentials of all nodes that do not move; -inf for none.
        originals: (c, d) d_j; unit rows on the sphere.
        tau: temperature.
        sphere: whether nodes are scored by direction, or by direction times a length of their own.
        uncovered_weight: of the second sum.
        rejected: (queries, columns, log n_ij) arrays of the pairs whose n_ij is not 1, by query; none of them a label.
        lengths: (c, 1) l_j on the sphere; None for 1.
        groups: of the queries, in their order; None: every query's sums run over all nodes.
    """

    queries: FloatArray
    query_of_pair: IntArray
    column_of_pair: IntArray
    weights: Float64Array
    others: Float64Array
    originals: Float64Array
    tau: float
    sphere: bool
    uncovered_weight: float = 0.0
    rejected: tuple[IntArray, IntArray, Float64Array] = field(default_factory=_no_pairs)
    lengths: Float64Array | None = None
    groups: QueryGroups | None = None

    def value_and_gradient(self, vectors: Float64Array, strength: float) -> tuple[float, Float64Array]:
        """Return f and its gradient at V (c, d), in float64; logits are computed in the queries' precision."""
        if not self.sphere:
            loss, gradient = self._cross_entropy(vectors)
            moved = vectors - self.originals
            return loss + strength * float((moved**2).sum()), gradient + 2 * strength * moved
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        units = vectors / norms
        loss, gradient = self._cross_entropy(self._at_lengths(units))
        moved = units - self.originals
        loss += strength * (float((moved**2).sum()) + float(((norms - 1) ** 2).sum()))
        gradient = self._at_lengths(gradient) + 2 * strength * moved
        along = (gradient * units).sum(axis=1, keepdims=True)
        return loss, (gradient - along * units) / norms + 2 * strength * (norms - 1) * units

    def _at_lengths(self, rows: Float64Array) -> Float64Array:
        return rows if self.lengths is None else rows * self.lengths

    def curvature(self, strength: float) -> float:
        """A rough guess of the second derivative by a node's vector at the originals, for a first step's length."""
        per_node = len(self.queries) / max(1, len(self.originals))
        return 2 * strength + COMMON_SHARE * (1 + self.uncovered_weight) * per_node / self.tau**2

    def _cross_entropy(self, nodes: Float64Array) -> tuple[float, Float64Array]:
        dtype = self.queries.dtype
        scaled = np.ascontiguousarray(nodes / self.tau, dtype=dtype)
        originals = np.ascontiguousarray(self._at_lengths(self.originals) / self.tau, dtype=dtype)
        gradient, loss = np.zeros(nodes.shape, dtype=np.float64), 0.0
        for queries, columns, log_counts in self._blocks(len(nodes)):
            block = self.queries[queries]
            part = self._pairs_of(queries, columns)
            logits = block @ (scaled if columns is None else scaled[columns]).T
            loss -= float((part.weights * logits[part.rows, part.columns]).sum())
            if log_counts is not None:
                logits += log_counts
            rejecting, rejected, extra = self._rejected_by(queries, columns)
            logits[rejecting, rejected] += extra.astype(dtype)
            others = self.others[queries].astype(dtype)
            if self.uncovered_weight:
                original = np.einsum("pd,pd->p", block[part.rows], originals[self._columns_of(queries)])
                loss += self._both_sums(logits, others, part, original)
            else:
                loss += _log_sum(logits, others)
            logits[part.rows, part.columns] -= part.weights.astype(dtype)
            if columns is None:
                gradient += logits.T @ block
            else:
                gradient[columns] += logits.T @ block
        return loss, gradient / self.tau

    def _blocks(self, n_nodes: int) -> Iterator[tuple[slice, IntArray | None, FloatArray | None]]:
        """Queries that are looked at together, with the columns of their sums (None: all) and what these stand for."""
        if self.groups is not None:
            yield from self.groups
            return
        step = max(1, LOGITS_PER_BLOCK // max(1, n_nodes))
        for first in range(0, len(self.queries), step):
            yield slice(first, min(first + step, len(self.queries))), None, None

    def _pairs_of(self, queries: slice, columns: IntArray | None) -> _Pairs:
        """Labels of a block; their nodes as places in ``columns``."""
        pairs = self._slice_of(self.query_of_pair, queries)
        nodes = self.column_of_pair[pairs]
        places = nodes if columns is None else np.searchsorted(columns, nodes)
        return _Pairs(self.query_of_pair[pairs] - queries.start, places, self.weights[pairs])

    def _columns_of(self, queries: slice) -> IntArray:
        return self.column_of_pair[self._slice_of(self.query_of_pair, queries)]

    def _rejected_by(self, queries: slice, columns: IntArray | None) -> tuple[IntArray, IntArray, Float64Array]:
        pairs = self._slice_of(self.rejected[0], queries)
        rows, nodes, extra = self.rejected[0][pairs], self.rejected[1][pairs], self.rejected[2][pairs]
        return rows - queries.start, nodes if columns is None else np.searchsorted(columns, nodes), extra

    @staticmethod
    def _slice_of(query_of_pair: IntArray, queries: slice) -> slice:
        return slice(*np.searchsorted(query_of_pair, [queries.start, queries.stop]))

    def _both_sums(self, logits: FloatArray, others: FloatArray, part: _Pairs, original: FloatArray) -> float:
        """The logarithms of both sums; ``logits`` become their gradient, that of the labels aside."""
        highest = np.maximum(logits.max(axis=1), others)
        np.maximum.at(highest, part.rows, original)
        np.exp(np.subtract(logits, highest[:, None], out=logits), out=logits)
        moved = logits[part.rows, part.columns]
        logits[part.rows, part.columns] = 0
        rest = logits.sum(axis=1) + np.exp(others - highest)
        total, unmoved = (
            rest + np.bincount(part.rows, weights=each, minlength=len(rest))
            for each in (moved, np.exp(original - highest[part.rows]))
        )
        logits *= (1 / total + self.uncovered_weight / unmoved).astype(logits.dtype)[:, None]
        logits[part.rows, part.columns] = moved / total[part.rows]
        first = float((highest + np.log(total)).sum(dtype=np.float64))
        return first + self.uncovered_weight * float((highest + np.log(unmoved)).sum(dtype=np.float64))


@dataclass(frozen=True)
class _Pairs:
    """The labels of a block of queries."""

    rows: IntArray
    columns: IntArray
    weights: Float64Array


def _log_sum(logits: FloatArray, others: FloatArray) -> float:
    """The summed logarithm of the sums of exponentials; ``logits`` become the shares in them."""
    highest = np.maximum(logits.max(axis=1), others)
    np.exp(np.subtract(logits, highest[:, None], out=logits), out=logits)
    total = logits.sum(axis=1) + np.exp(others - highest)
    logits /= total[:, None]
    return float((highest + np.log(total)).sum(dtype=np.float64))
