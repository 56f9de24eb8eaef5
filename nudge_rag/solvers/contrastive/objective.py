"""The objective of `NudgeContrastive` and its gradient."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from nudge_rag.common.arrays import Float64Array, FloatArray, IntArray
from nudge_rag.common.blas_threads import Map, count_threads
from nudge_rag.solvers.contrastive.groups import QueryGroups

__all__ = ["ContrastiveObjective"]

# Blocks of queries are chosen so that this many logits are held at once.
LOGITS_PER_BLOCK = 2_000_000
# What a logit costs beside its products, in multiplications: its exponential, and the passes over it.
LOGIT = 250
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
    originals: FloatArray
    tau: float
    sphere: bool
    uncovered_weight: float = 0.0
    rejected: tuple[IntArray, IntArray, Float64Array] = field(default_factory=_no_pairs)
    lengths: FloatArray | None = None
    groups: QueryGroups | None = None

    def value_and_gradient(self, vectors: FloatArray, strength: float, share: Map = map) -> tuple[float, FloatArray]:
        """Return f and its gradient at V (c, d), in the precision of V; logits are computed in that of the queries.

        ``share`` looks at blocks of queries: `threads_to_map` at several at once. The result is the same to the bit.
        """
        if not self.sphere:
            loss, gradient = self._cross_entropy(vectors, share)
            moved = vectors - self.originals
            return loss + strength * float((moved**2).sum()), gradient + 2 * strength * moved
        norms = np.sqrt(_row_products(vectors, vectors))
        units = vectors / norms
        loss, by_place = self._cross_entropy(self._at_lengths(units), share)
        gradient = self._at_lengths(by_place)
        moved = units - self.originals
        loss += strength * (float(np.vdot(moved, moved)) + float(((norms - 1) ** 2).sum()))
        moved *= 2 * strength
        gradient += moved
        # The part across v_j over |v_j|, and the pull of lengths towards 1; in place, since rows are many.
        outward = 2 * strength * (norms - 1) - _row_products(gradient, units) / norms
        gradient /= norms
        units *= outward
        gradient += units
        return loss, gradient

    def _at_lengths(self, rows: FloatArray, nodes: IntArray | slice = slice(None)) -> FloatArray:
        return rows if self.lengths is None else rows * self.lengths[nodes]

    def curvatures(self, strength: float) -> Float64Array:
        """A rough guess of the second derivative by each node's vector, (c, 1), for a first step's length.

        A node is drawn by its own labels, and repelled by queries of others, by about as many of them at every node.
        """
        labels = np.bincount(self.column_of_pair, weights=self.weights, minlength=len(self.originals))
        queries = (labels + labels.mean()) / 2
        common = COMMON_SHARE * (1 + self.uncovered_weight) * queries[:, None] / self.tau**2
        return np.asarray(2 * strength + common)

    @property
    def n_threads(self) -> int:
        """How many threads an evaluation is worth: no more than there are blocks of queries."""
        of_logit = 2 * self.originals.shape[1] + LOGIT
        logits = sum(block.others.size * block.width for block in self._blocks)
        return min(len(self._blocks), count_threads(float(of_logit * logits)))

    def _cross_entropy(self, nodes: FloatArray, share: Map) -> tuple[float, FloatArray]:
        dtype = self.queries.dtype
        scaled = np.divide(nodes, self.tau, out=np.empty(nodes.shape, dtype=dtype), casting="same_kind")
        gradient, loss = np.zeros(nodes.shape, dtype=dtype), 0.0
        looked_at = share(lambda block: self._look_at(block, scaled), self._blocks)
        for block, (of_block, by_column) in zip(self._blocks, looked_at, strict=True):
            loss += of_block
            gradient[slice(None) if block.columns is None else block.columns] += by_column
        in_full = gradient.astype(nodes.dtype, copy=False)
        in_full /= self.tau
        return loss, in_full

    def _look_at(self, block: _Block, scaled: FloatArray) -> tuple[float, FloatArray]:
        """The cross-entropy of a block's queries, and its gradient by the nodes at the block's columns."""
        logits = block.queries @ (scaled if block.columns is None else scaled.take(block.columns, axis=0)).T
        flat = logits.reshape(-1)
        loss = -float(block.weights @ flat[block.pairs])
        if block.log_counts is not None:
            logits += block.log_counts
        flat[block.rejected] += block.extra
        loss += self._both_sums(logits, block) if self.uncovered_weight else _log_sum(logits, block.others)
        flat[block.pairs] -= block.weights
        return loss, logits.T @ block.queries

    @cached_property
    def _blocks(self) -> tuple[_Block, ...]:
        """Queries that are looked at together, with all of them that is the same at every V."""
        return tuple(self._block(*part) for part in self._parts())

    def _parts(self) -> Iterator[tuple[slice, IntArray | None, FloatArray | None]]:
        """Queries that are looked at together, the columns of their sums (None: all) and what these stand for."""
        if self.groups is not None:
            yield from self.groups
            return
        step = max(1, LOGITS_PER_BLOCK // max(1, len(self.originals)))
        for first in range(0, len(self.queries), step):
            yield slice(first, min(first + step, len(self.queries))), None, None

    def _block(self, queries: slice, columns: IntArray | None, log_counts: FloatArray | None) -> _Block:
        dtype, width = self.queries.dtype, len(self.originals if columns is None else columns)

        def places(rows: IntArray, nodes: IntArray) -> IntArray:
            at: IntArray = nodes if columns is None else np.searchsorted(columns, nodes)
            return np.asarray((rows - queries.start) * width + at)

        pairs, rejecting = _slice_of(self.query_of_pair, queries), _slice_of(self.rejected[0], queries)
        rows, nodes = self.query_of_pair[pairs], self.column_of_pair[pairs]
        return _Block(
            queries=self.queries[queries],
            columns=columns,
            width=width,
            log_counts=log_counts,
            others=self.others[queries].astype(dtype),
            rows=rows - queries.start,
            nodes=nodes,
            pairs=places(rows, nodes),
            weights=self.weights[pairs],
            rejected=places(self.rejected[0][rejecting], self.rejected[1][rejecting]),
            extra=self.rejected[2][rejecting].astype(dtype),
        )

    def _both_sums(self, logits: FloatArray, block: _Block) -> float:
        """The logarithms of both sums; ``logits`` become their gradient, that of the labels aside."""
        originals = (self._at_lengths(self.originals[block.nodes], block.nodes) / self.tau).astype(logits.dtype)
        original = np.einsum("pd,pd->p", block.queries[block.rows], originals)
        highest, flat = np.maximum(logits.max(axis=1), block.others), logits.reshape(-1)
        np.maximum.at(highest, block.rows, original)
        np.exp(np.subtract(logits, highest[:, None], out=logits), out=logits)
        moved = flat[block.pairs]
        flat[block.pairs] = 0
        rest = logits.sum(axis=1) + np.exp(block.others - highest)
        total, unmoved = (
            rest + np.bincount(block.rows, weights=each, minlength=len(rest))
            for each in (moved, np.exp(original - highest[block.rows]))
        )
        logits *= (1 / total + self.uncovered_weight / unmoved).astype(logits.dtype)[:, None]
        flat[block.pairs] = moved / total[block.rows]
        first = float((highest + np.log(total)).sum(dtype=np.float64))
        return first + self.uncovered_weight * float((highest + np.log(unmoved)).sum(dtype=np.float64))


@dataclass(frozen=True)
class _Block:
    """Queries that are looked at together, and the labels and rejections of theirs.

    Attributes:
        queries: (b, d) rows.
        columns: of the nodes that their sums run over; None: all.
        width: how many these are.
        log_counts: how many nodes each column stands for, logarithms; None: one.
        others: (b,) as those of the objective.
        rows: (p,) the place in the block of each label's query.
        nodes: (p,) each label's node.
        pairs: (p,) the place of each label among the logits, counted row by row.
        weights: (p,) of the labels.
        rejected: the place of each rejection among the logits.
        extra: what is added there.
    """

    queries: FloatArray
    columns: IntArray | None
    width: int
    log_counts: FloatArray | None
    others: FloatArray
    rows: IntArray
    nodes: IntArray
    pairs: IntArray
    weights: Float64Array
    rejected: IntArray
    extra: FloatArray


def _row_products(rows: FloatArray, others: FloatArray) -> FloatArray:
    """The product of each row with that of the other array, (c, 1)."""
    return np.asarray(np.einsum("cd,cd->c", rows, others)[:, None])


def _slice_of(query_of_pair: IntArray, queries: slice) -> slice:
    return slice(*np.searchsorted(query_of_pair, [queries.start, queries.stop]))


def _log_sum(logits: FloatArray, others: FloatArray) -> float:
    """The summed logarithm of the sums of exponentials; ``logits`` become the shares in them."""
    highest = np.maximum(logits.max(axis=1), others)
    logits -= highest[:, None]
    np.exp(logits, out=logits)
    total = logits.sum(axis=1) + np.exp(others - highest)
    logits *= (1 / total)[:, None]
    return float((highest + np.log(total)).sum(dtype=np.float64))
