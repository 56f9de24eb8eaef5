"""Blocks of queries with their pairs, the columns of covered nodes, and which scores count as equal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from nudge_rag.common.arrays import FloatArray, IntArray
from nudge_rag.solvers.labels import PreparedLabels

__all__ = [
    "SCORES_PER_BLOCK",
    "covered_columns",
    "is_worth_selecting",
    "most_telling_scores",
    "pair_blocks",
    "tie_margin",
]

# One block of scores stays near 4 MB of float32.
SCORES_PER_BLOCK = 1_000_000
# Nodes that reach the same target tie; rounding must not decide which of them comes first. In units of the last place
# of 1 + |score|: products add up to a few in float32, sines and cosines of float64 to some tens in float64.
SAME_SCORE = {np.dtype(np.float32): 4.0, np.dtype(np.float64): 64.0}
# Selecting the best scores of a query takes as long as comparing all of them with so many answers.
WORTH_SELECTING = 8


def tie_margin(dtype: Any) -> float:
    """Scores that differ by less than this, times 1 + |score|, tie."""
    return float(SAME_SCORE[np.dtype(dtype)] * np.finfo(dtype).eps)


def covered_columns(nodes: IntArray, covered: IntArray) -> IntArray:
    """Position of each node among the increasing ``covered`` rows; -1 for nodes that are not."""
    if not len(covered):
        return np.full(len(nodes), -1, dtype=np.int64)
    at = np.minimum(np.searchsorted(covered, nodes), len(covered) - 1)
    return np.where(covered[at] == nodes, at, -1)


def pair_blocks(val: PreparedLabels, n_covered: int, scores: int | None = None) -> Iterator[tuple[slice, slice]]:
    """Slices of the queries, each with the slice of their pairs, so that queries x covered stays near a block."""
    step = max(1, (scores or SCORES_PER_BLOCK) // max(1, n_covered))
    for first in range(0, val.n_queries, step):
        part = slice(first, min(first + step, val.n_queries))
        yield part, slice(*(int(at) for at in np.searchsorted(val.query_of_pair, [part.start, part.stop])))


def is_worth_selecting(n_pairs: int, n_queries: int) -> bool:
    """Whether queries have so many answers that their best scores are selected before these are ranked.

    Example:
        >>> is_worth_selecting(1_000, 1_000), is_worth_selecting(40_000, 1_000)
        (False, True)
    """
    return n_pairs > WORTH_SELECTING * n_queries


def most_telling_scores(scores: FloatArray, depth: int, n_pairs: int) -> FloatArray:
    """Scores (m, c) that tell whether one of the queries' ``n_pairs`` answers ranks among the first ``depth``.

    An answer that fewer than ``depth`` scores of its row exceed is exceeded by as many of the row's ``depth`` best;
    these alone are returned if there are many answers a query, in no order.

    Example:
        >>> most_telling_scores(np.array([[0.1, 0.9, 0.5]]), 2, n_pairs=20).tolist()
        [[0.5, 0.9]]
    """
    beyond = scores.shape[1] - depth
    if beyond <= 0 or not is_worth_selecting(n_pairs, len(scores)):
        return scores
    return np.asarray(np.partition(scores, beyond, axis=1)[:, beyond:])
