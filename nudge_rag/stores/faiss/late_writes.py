"""What was written to the live index since another one was copied from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from nudge_rag.common.arrays import BoolArray, FloatArray
from nudge_rag.stores.copies import NodesOfCopy
from nudge_rag.stores.faiss.index import FaissCopy, FaissIndex

__all__ = ["copy_caught_up"]


def copy_caught_up(
    copy: FaissCopy,
    live: FaissIndex,
    ids: Mapping[int, str],
    moved: NodesOfCopy,
    same_rows: Callable[[FloatArray, FloatArray], BoolArray],
) -> tuple[FaissCopy, int]:
    """Give a copy what was written since it was made: the copy, or a new one, and the number of nodes caught up.

    Args:
        copy: the index and node ids of the copy.
        live: the live index.
        ids: FAISS id to node id of the live index.
        moved: what tells the two apart, apart from late writes.
        same_rows: two matrices to which of their rows are the same to the store.
    """
    positions, vectors = live.positions(ids), live.vectors()
    names, places = list(positions), list(positions.values())
    wanted = vectors.copy()
    held = FaissIndex(copy.index)
    known, copied = held.positions(copy.ids), held.vectors()
    if names:
        beside = np.full_like(vectors[places], np.nan)
        there = [row for row, name in enumerate(names) if name in known]
        beside[there] = copied[[known[names[row]] for row in there]]
        wanted[places] = moved.wanted(names, vectors[places], same_rows, beside)
    stale = [
        name for name, place in positions.items() if name not in known or (copied[known[name]] != wanted[place]).any()
    ]
    deleted = known.keys() - positions.keys()
    if stale or deleted or copy.named() != FaissCopy(live.index, ids).named():
        copy = FaissCopy(live.copied(), ids)
        FaissIndex(copy.index).put(np.flatnonzero((wanted != vectors).any(axis=1)).tolist(), wanted)
    return copy, len(stale) + len(deleted)
