"""Two versions of a store's vectors compared, node by node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.text import preview
from nudge_rag.stores.access import same_vectors
from nudge_rag.stores.base import EmbeddingStore

__all__ = ["Differences", "find_differences"]

NODES_PER_STEP = 5_000


@dataclass
class Differences:
    """Nodes by which two versions differ though they should not; empty lists if there are none."""

    only_live: list[str] = field(default_factory=list)
    only_copy: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.only_live or self.only_copy or self.changed)

    def __str__(self) -> str:
        parts = (self.only_live, "only in the live version"), (self.only_copy, "only in the copy beside it")
        told = [(ids, what) for ids, what in (*parts, (self.changed, "changed")) if ids]
        return ", ".join(f"{len(ids)} node(s) {what}: {preview(ids)}" for ids, what in told)


def find_differences(
    live: EmbeddingStore, copy: EmbeddingStore, ids: Sequence[str], here: FloatArray, there: FloatArray
) -> Differences:
    """Compare two versions, but for ``ids``, which must be ``here`` in the live one and ``there`` in the copy.

    Reads both versions once, a few thousand nodes at a time.
    """
    found, at = Differences(), {node_id: place for place, node_id in enumerate(ids)}
    n_live = 0
    for names, vectors in live.scan(NODES_PER_STEP):
        n_live += len(names)
        present = copy.matching(names, None)
        found.only_live += [node_id for node_id in names if node_id not in present]
        rows = [row for row, node_id in enumerate(names) if node_id in present]
        kept = [names[row] for row in rows]
        mine, theirs = vectors[rows], copy.read(kept)
        moved = [(row, at[node_id]) for row, node_id in enumerate(kept) if node_id in at]
        wanted_mine, wanted_theirs = theirs.copy(), theirs.copy()
        for row, place in moved:
            wanted_mine[row], wanted_theirs[row] = here[place], there[place]
        if not (same_vectors(live, mine, wanted_mine) and same_vectors(copy, theirs, wanted_theirs)):
            found.changed += [
                node_id
                for row, node_id in enumerate(kept)
                if not same_vectors(live, mine[row], wanted_mine[row])
                or not same_vectors(copy, theirs[row], wanted_theirs[row])
            ]
    if copy.count() != n_live - len(found.only_live):
        found.only_copy += _absent(live, copy)
    return found


def _absent(live: EmbeddingStore, copy: EmbeddingStore) -> Iterator[str]:
    for names, _ in copy.scan(NODES_PER_STEP):
        present = live.matching(names, None)
        yield from (node_id for node_id in names if node_id not in present)
