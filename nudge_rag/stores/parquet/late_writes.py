"""What was written to one version of the files since the other was copied from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from nudge_rag.common.arrays import BoolArray, FloatArray
from nudge_rag.stores.base import StoreError
from nudge_rag.stores.copies import MovedNodes, NodesOfCopy
from nudge_rag.stores.parquet.counting import CountingFiles

__all__ = ["find_late_writes", "scan_differing"]

NODES_PER_STEP = 5_000


def find_late_writes(
    live: CountingFiles,
    copy: CountingFiles,
    moved: NodesOfCopy,
    same_rows: Callable[[FloatArray, FloatArray], BoolArray],
    fetch: Callable[[list[str]], dict[str, FloatArray]],
) -> dict[str, FloatArray]:
    """Find the nodes that a copy does not hold as it should, and what it should hold.

    Args:
        live: the files of the live version.
        copy: those of the copy.
        moved: what tells the two versions apart, apart from late writes.
        same_rows: two matrices to which of their rows are the same to the store.
        fetch: ids to vectors of the live version.
    """
    late: dict[str, FloatArray] = {}
    seen: set[str] = set()
    for names, mine, theirs in scan_differing(live, copy, NODES_PER_STEP):
        if isinstance(moved, MovedNodes):
            seen.update(name for name in names if name in moved.rows)
        wanted = moved.wanted(names, mine, same_rows, theirs)
        late.update((names[row], wanted[row]) for row in np.flatnonzero(~same_rows(theirs, wanted)))
    # Of a file that a pipeline has written anew, both versions are that file.
    shared = _fetch_shared(moved, seen, fetch) if isinstance(moved, MovedNodes) else _scan_shared(live, copy)
    for names, mine in shared:
        wanted = moved.wanted(names, mine, same_rows, mine)
        late.update((names[row], wanted[row]) for row in np.flatnonzero(~same_rows(mine, wanted)))
    return late


def scan_differing(
    live: CountingFiles, copy: CountingFiles, batch_size: int
) -> Iterator[tuple[list[str], FloatArray, FloatArray]]:
    """Nodes of the files by which two versions differ: ids, vectors in the one and in the other.

    Raises:
        StoreError: their nodes are not the same.
    """
    here, there = live.whole_files(), copy.whole_files()
    for path in [path for path in here if path not in there or here[path].path != there[path].path]:
        pairs = zip(here[path].batches(batch_size), there[path].batches(batch_size), strict=True)
        for (names, mine), (others, theirs) in pairs:
            if names != others:
                raise StoreError(f"{there[path].path} does not hold the nodes of {here[path].path}")
            yield names, mine, theirs


def _fetch_shared(
    moved: MovedNodes, seen: set[str], fetch: Callable[[list[str]], dict[str, FloatArray]]
) -> Iterator[tuple[list[str], FloatArray]]:
    """Moved nodes of files that two versions share, by which the two have to differ."""
    shared = fetch([name for name in moved.ids if name not in seen])
    if shared:
        yield list(shared), np.stack([*shared.values()])


def _scan_shared(live: CountingFiles, copy: CountingFiles) -> Iterator[tuple[list[str], FloatArray]]:
    """All nodes of files that two versions share."""
    here, there = live.whole_files(), copy.whole_files()
    for path in [path for path in here if path in there and here[path].path == there[path].path]:
        yield from here[path].batches(NODES_PER_STEP)
