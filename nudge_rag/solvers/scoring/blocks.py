"""Blocks of queries with their pairs, the columns of covered nodes, and which scores count as equal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from nudge_rag.common.arrays import IntArray
from nudge_rag.solvers.labels import PreparedLabels

__all__ = ["SCORES_PER_BLOCK", "covered_columns", "pair_blocks", "tie_margin"]

# One block of scores stays near 4 MB of float32.
SCORES_PER_BLOCK = 1_000_000
# Nodes that reach the same target tie; rounding must not decide which of them comes first. In units of the last place
# of 1 + |score|: products add up to a few in float32, sines and cosines of float64 to some tens in float64.
SAME_SCORE = {np.dtype(np.float32): 4.0, np.dtype(np.float64): 64.0}


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
