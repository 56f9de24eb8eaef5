"""Nodes that hold vectors of a push again that is over.

A backup that is restored brings them back, and so does a process that read a whole file before a rollback and saves it
after it. The vectors of the newest versions that are over stay recorded, by which they are known.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nudge_rag.common.arrays import BoolArray, FloatArray, IntArray
from nudge_rag.journal.versions import Version
from nudge_rag.stores.access import read_present, same_rows
from nudge_rag.stores.base import EmbeddingStore

__all__ = ["IsKnown", "Returned", "among", "find_returned", "has_returned", "match_over"]

NODES_PER_STEP = 5_000
# Nodes of a push of all that are looked at to tell whether it is back: a backup brings back most of them.
SAMPLE = 200

# Ids to whether the vector of each is known to be no returned one.
IsKnown = Callable[[Sequence[str]], BoolArray]


@dataclass(frozen=True)
class Returned:
    """Some nodes that hold what a version that is over wrote.

    Attributes:
        version: its name.
        ids: of the nodes.
        found: (n, d) their vectors in the store.
        originals: (n, d) their vectors before any nudge.
    """

    version: str
    ids: list[str]
    found: FloatArray
    originals: FloatArray


def among(ids: Collection[str]) -> IsKnown:
    """Tell which nodes are among ``ids``.

    Example:
        >>> among({"a", "b"})(["b", "c"]).tolist()
        [True, False]
    """
    return lambda asked: np.array([node_id in ids for node_id in asked], dtype=np.bool_)


def match_over(
    store: EmbeddingStore, over: Sequence[Version], ids: Sequence[str], vectors: FloatArray
) -> Iterator[tuple[str, IntArray, FloatArray]]:
    """Find which of the ``vectors`` that the store holds are nudges of versions that are over.

    Args:
        store: the vector store.
        over: versions, newest first: the first one that knows a vector counts.
        ids: of the nodes.
        vectors: (n, d) of these nodes.

    Returns:
        Of each version: its name, the rows that hold what it wrote, and their originals. What a version had found is
        what the one before it wrote.

    Raises:
        CorruptArchiveError: a record is damaged.
        JournalError: it cannot be read.
    """
    left = np.arange(len(ids), dtype=np.int64)
    for version in over:
        if not len(left):
            return
        if version.dimension != vectors.shape[1]:
            continue
        places, block = version.find([ids[row] for row in left.tolist()])
        rows, known = left[places], block.vectors
        is_told = np.array(same_rows(store, vectors[rows], known.originals), dtype=np.bool_)
        for name, part in ((version.name, known.after), (version.previous or version.name, known.before)):
            is_nudge = ~is_told & np.array(same_rows(store, vectors[rows], part), dtype=np.bool_)
            if is_nudge.any():
                yield name, rows[is_nudge], known.originals[is_nudge]
            is_told |= is_nudge
        left = np.setdiff1d(left, rows[is_told], assume_unique=True)


def find_returned(
    store: EmbeddingStore, over: Sequence[Version], is_known: IsKnown | None = None, *, own_alone: bool = False
) -> Iterator[Returned]:
    """Look for nodes that hold nudges of versions that are over, some thousand at a time; each node is given once.

    Args:
        store: the vector store.
        over: versions, newest first.
        is_known: tells nodes that need not be read; None if there are none.
        own_alone: of a push of all nodes, look at those alone that got vectors of their own.

    Raises:
        CorruptArchiveError: a record is damaged.
        JournalError: it cannot be read.
    """
    seen: set[str] = set()
    for place, version in enumerate(over):
        for asked in _ids_of(version, own_alone=own_alone):
            known = np.zeros(len(asked), dtype=np.bool_) if is_known is None else is_known(asked)
            names = [name for name, skipped in zip(asked, known, strict=True) if not skipped and name not in seen]
            if place < len(over) - 1:
                seen.update(names)
            present = read_present(store, names)[0] if names else {}
            if not present:
                continue
            ids, found = list(present), np.array(list(present.values()))
            for name, rows, originals in match_over(store, over[place:], ids, found):
                yield Returned(name, [ids[row] for row in rows], found[rows], originals)


def has_returned(store: EmbeddingStore, version: Version) -> bool:
    """Whether some of the nodes that a push of all wrote hold what it wrote, as far as a sample of them tells."""
    block = next(iter(version.parts()), None)
    if block is None or not block.ids:
        return False
    rows = np.unique(np.linspace(0, len(block.ids) - 1, min(len(block.ids), SAMPLE)).round().astype(int))
    present, _ = read_present(store, [block.ids[row] for row in rows])
    if not present:
        return False
    ids, found = list(present), np.array(list(present.values()))
    return any(True for _ in match_over(store, [version], ids, found))


def _ids_of(version: Version, *, own_alone: bool) -> Iterator[Sequence[str]]:
    if version.is_streamed and not own_alone:
        yield from (block.ids for block in version.blocks)
        return
    ids = version.ids
    yield from (ids[first : first + NODES_PER_STEP] for first in range(0, len(ids), NODES_PER_STEP))
