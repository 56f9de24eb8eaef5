"""Two versions of a store's vectors compared, node by node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.text import preview
from nudge_rag.stores.access import read_present, same_vectors
from nudge_rag.stores.base import EmbeddingStore

__all__ = ["Differences", "find_differences"]

NODES_PER_STEP = 5_000


@dataclass
class Differences:
    """Nodes by which what is live and a copy differ though they should not; empty lists if there are none."""

    only_live: list[str] = field(default_factory=list)
    only_copy: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.only_live or self.only_copy or self.changed)

    def __str__(self) -> str:
        parts = (self.only_live, "only in the live version"), (self.only_copy, "only in the copy beside it")
        told = [(ids, what) for ids, what in (*parts, (self.changed, "changed")) if ids]
        return ", ".join(f"{len(ids)} node(s) {what}: {preview(ids)}" for ids, what in told)


@runtime_checkable
class AlignedStore(Protocol):
    """A store that knows which of its nodes a copy may hold otherwise, and gives them in the same order."""

    def scan_beside(self, copy: Any, batch_size: int) -> Iterator[tuple[list[str], FloatArray, FloatArray]]:
        """Ids, and vectors here and there, of all nodes but those that the two share."""
        ...


@dataclass(frozen=True, eq=False)
class _Expected:
    """What the moved nodes must be in the live version and in the copy."""

    row_of: dict[str, int]
    here: FloatArray
    there: FloatArray

    def changed(
        self, live: EmbeddingStore, copy: EmbeddingStore, names: list[str], mine: FloatArray, theirs: FloatArray
    ) -> list[str]:
        """Those of ``names`` that are not as they must be: as expected if they are moved, alike if not."""
        wanted_mine, wanted_theirs = theirs.copy(), theirs.copy()
        for row, name in enumerate(names):
            if name in self.row_of:
                place = self.row_of[name]
                wanted_mine[row], wanted_theirs[row] = self.here[place], self.there[place]
        if same_vectors(live, mine, wanted_mine) and same_vectors(copy, theirs, wanted_theirs):
            return []
        return [
            node_id
            for row, node_id in enumerate(names)
            if not same_vectors(live, mine[row], wanted_mine[row])
            or not same_vectors(copy, theirs[row], wanted_theirs[row])
        ]


def find_differences(
    live: EmbeddingStore, copy: EmbeddingStore, ids: Sequence[str], here: FloatArray, there: FloatArray
) -> Differences:
    """Compare what is live and a copy, but for ``ids``, which must be ``here`` in the one and ``there`` in the other.

    Reads both once, a few thousand nodes at a time; of an `AlignedStore`, only what the two do not share.
    """
    expected = _Expected({node_id: place for place, node_id in enumerate(ids)}, here, there)
    if isinstance(live, AlignedStore):
        return _aligned_differences(live, copy, ids, expected)
    found = Differences()
    n_live = 0
    for names, vectors in live.scan(NODES_PER_STEP):
        n_live += len(names)
        present = copy.matching(names, None)
        found.only_live += [node_id for node_id in names if node_id not in present]
        rows = [row for row, node_id in enumerate(names) if node_id in present]
        kept = [names[row] for row in rows]
        found.changed += expected.changed(live, copy, kept, vectors[rows], copy.read(kept))
    if copy.count() != n_live - len(found.only_live):
        found.only_copy += _absent(live, copy)
    return found


def _aligned_differences(live: Any, copy: EmbeddingStore, ids: Sequence[str], expected: _Expected) -> Differences:
    found, seen = Differences(), set[str]()
    for names, mine, theirs in live.scan_beside(copy, NODES_PER_STEP):
        seen.update(name for name in names if name in expected.row_of)
        found.changed += expected.changed(live, copy, names, mine, theirs)
    shared = [node_id for node_id in ids if node_id not in seen]
    present, _ = read_present(live, shared) if shared else ({}, ())
    if present:
        vectors = np.stack(list(present.values()))
        found.changed += expected.changed(live, copy, list(present), vectors, vectors)
    return found


def _absent(live: EmbeddingStore, copy: EmbeddingStore) -> Iterator[str]:
    for names, _ in copy.scan(NODES_PER_STEP):
        present = live.matching(names, None)
        yield from (node_id for node_id in names if node_id not in present)
