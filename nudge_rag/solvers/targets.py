"""Where each covered node is pulled: the mean direction of its training queries."""

from __future__ import annotations

import numpy as np

from nudge_rag.common.arrays import Float64Array, FloatArray, IntArray, row_norms
from nudge_rag.common.blas_threads import count_threads, map_in_threads
from nudge_rag.solvers.labels import PreparedLabels

__all__ = ["covered_targets", "summable_queries", "unit_directions"]

# As many rows as the processor's cache holds: what is done to them in turn does not go to memory in between.
PAIRS_PER_CHUNK, ROWS_PER_CHUNK = 500, 250
# Threads are worth their start from some milliseconds on: counted as so many multiplications a number.
PASS = 600
# Unit queries are summed as multiples of one over this.
SUMMABLE = 2.0**36


def covered_targets(train: PreparedLabels) -> tuple[IntArray, Float64Array]:
    """Covered rows and the unit direction of the sum of each one's training queries.

    g_j = sum over training queries i that node j answers of q_i / |q_i|, returned as g_j / |g_j| in float64. A row
    whose queries cancel out has no direction and is returned as zeros.

    Args:
        train: labels; c is the number of distinct nodes in them.

    Returns:
        rows (c,) increasing, targets (c, d).
    """
    order = np.argsort(train.node_of_pair, kind="stable")
    rows, starts, counts = np.unique(train.node_of_pair[order], return_index=True, return_counts=True)
    unit = summable_queries(train.vectors)
    sums = np.empty((len(rows), train.vectors.shape[1]), dtype=np.float64)
    queries = train.query_of_pair[order]
    # Nodes with equally many labels are summed together; chunks keep a gather from growing with the labels.
    chunks: list[IntArray] = []
    for count in np.unique(counts):
        members = np.flatnonzero(counts == count)
        step = max(1, PAIRS_PER_CHUNK // int(count))
        chunks += [members[first : first + step] for first in range(0, len(members), step)]

    def add_up(chunk: IntArray) -> None:
        pairs = starts[chunk][:, None] + np.arange(counts[chunk[0]])
        sums[chunk] = unit[queries[pairs]].sum(axis=1)

    map_in_threads(add_up, chunks, count_threads(PASS * len(order) * unit.shape[1]))
    return rows, unit_directions(sums, counts)


def summable_queries(vectors: FloatArray) -> Float64Array:
    """Queries (m, d) at unit length in float64, rounded to multiples of 2^-36.

    Sums of up to 2^16 of them are exact, so that a sum is the same in any order, and after anything was added to it
    and taken away again; what rounding changes is far below float32.

    Raises:
        ValueError: a query that is zero or not finite.
    """
    unit = np.empty(vectors.shape)

    def fill(first: int) -> None:
        rows = unit[first : first + ROWS_PER_CHUNK]
        rows[:] = vectors[first : first + ROWS_PER_CHUNK]
        rows /= row_norms(rows, "training query embeddings", first_row=first)[:, None]
        rows *= SUMMABLE
        np.rint(rows, out=rows)
        rows *= 1 / SUMMABLE

    map_in_threads(fill, range(0, len(vectors), ROWS_PER_CHUNK), count_threads(PASS * unit.size))
    return unit


def unit_directions(sums: Float64Array, counts: IntArray) -> Float64Array:
    """Sums (c, d) of ``counts`` unit queries, at unit length; zeros if the queries cancel out."""
    units = np.empty(sums.shape)

    def divide(first: int) -> None:
        part = slice(first, first + ROWS_PER_CHUNK)
        norms = np.linalg.norm(sums[part], axis=1, keepdims=True)
        cancelled = norms <= 1e-9 * counts[part, None]
        np.divide(sums[part], np.where(cancelled, 1.0, norms), out=units[part])
        units[part][cancelled[:, 0]] = 0.0

    map_in_threads(divide, range(0, len(sums), ROWS_PER_CHUNK), count_threads(PASS * sums.size))
    return units
