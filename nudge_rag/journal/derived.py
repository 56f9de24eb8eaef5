"""A push of all nodes beside the live version: each vector is made of one in the other of the two.

Nothing is recorded of single nodes. While the copy waits, its vectors are made of the live ones; once it is live, the
copy beside it holds the vectors that it was made of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from nudge_rag.common.arrays import BoolArray, FloatArray
from nudge_rag.errors import JournalError
from nudge_rag.journal.coding import Vectors
from nudge_rag.journal.goal import Goal, goal_of
from nudge_rag.journal.versions import Version
from nudge_rag.solvers.linear_map.adapter import usable_rows
from nudge_rag.stores.access import read_present, reading, same_rows
from nudge_rag.stores.base import EmbeddingStore, SideBySideStore
from nudge_rag.stores.copies import DerivedNodes

__all__ = ["Derivation", "FindOriginals", "find_made"]

# Ids and vectors as the store holds them, to the vectors before any nudge.
FindOriginals = Callable[[Sequence[str], FloatArray], FloatArray]
# Another machine may round the last bit of a sum otherwise; relative to the largest number of a vector.
LAST_BITS = 1e-6


class Derivation:
    """How the vectors of a version are made.

    Args:
        store: its store.
        version: the version.
        find_originals: of the vectors that were live when it was pushed.
    """

    def __init__(self, store: EmbeddingStore, version: Version, find_originals: FindOriginals) -> None:
        self._store, self._version, self._find_originals = store, version, find_originals

    @cached_property
    def goal(self) -> Goal:
        """What is made of every node."""
        return goal_of(self._store, self._version)

    def make(self, names: Sequence[str], before: FloatArray) -> FloatArray:
        """Make the version's vectors, (n, d), of those that were live before it."""
        return self.goal.reach(names, self._find_originals(names, before))[0]

    def is_made(self, found: FloatArray, made: FloatArray) -> BoolArray:
        """Say for each row whether a vector of the store is the one that was made, but for its last bits."""
        return find_made(self._store, found, made)

    def nodes(self, *, is_live: bool) -> DerivedNodes:
        """Return what each side is to hold, while the version is live or waits."""
        return DerivedNodes(self.make, self.is_made, to_copy=not is_live)

    def look_up(self, names: Sequence[str], vectors: FloatArray) -> tuple[np.ndarray[Any, Any], Vectors]:
        """Return which of the live ``vectors`` the version made or found, as rows, and their record.

        Raises:
            JournalError: the copy that holds the vectors from before is gone.
            StoreError: the store failed.
        """
        copy = self._copy()
        with reading(self._store, "the vectors from before were read from the copy"):
            present, _ = read_present(copy, names)
        rows = np.array([row for row, name in enumerate(names) if name in present], dtype=np.int64)
        if not len(rows):
            return rows, Vectors(vectors[:0], vectors[:0], vectors[:0])
        there = [names[row] for row in rows]
        before = np.stack([present[name] for name in there]).astype(vectors.dtype, copy=False)
        originals = self._find_originals(there, before)
        after = self.goal.reach(there, originals)[0]
        made = self.is_made(vectors[rows], after)
        after[made] = vectors[rows[made]]
        known = made | np.array(same_rows(self._store, vectors[rows], before), dtype=np.bool_)
        return rows[known], Vectors(originals[known], before[known], after[known])

    def find_absent(self, size: int) -> Iterator[tuple[list[str], FloatArray, FloatArray]]:
        """Ids of nodes that the copy alone still has, with what was live of them, and their originals, n by n.

        They were deleted while the version was live. The copy loses them when it is switched to.

        Args:
            size: how many nodes of the copy are looked at in one step.

        Raises:
            JournalError: the copy is gone.
            StoreError: the store failed.
        """
        copy = self._copy()
        with reading(self._store, "nodes that are away were looked for"):
            for names, vectors in copy.scan(size):
                there = self._store.matching(names, None)
                rows = [row for row, name in enumerate(names) if name not in there]
                if rows:
                    gone = [names[row] for row in rows]
                    originals = self._find_originals(gone, np.asarray(vectors)[rows])
                    yield gone, self.goal.reach(gone, originals)[0], originals

    def _copy(self) -> EmbeddingStore:
        store, version = self._store, self._version
        with reading(store, "the versions beside it were listed"):
            if isinstance(store, SideBySideStore) and version.label in store.copy_labels():
                return store.open_copy(version.label)
        raise JournalError(
            f"version {version.name} is live in {store.name}, and the copy with the vectors from before is no longer"
            " there: they cannot be restored. Embed the nodes again, and let nudge_rag.repair() set its record aside"
        )


def find_made(store: EmbeddingStore, found: FloatArray, made: FloatArray) -> BoolArray:
    """Say for each row whether a vector of a store is the one that was made, but for its last bits."""
    same = np.asarray((found == made).all(axis=1), dtype=np.bool_)
    rows = np.flatnonzero(~same & usable_rows(made))
    if len(rows):
        wanted = made[rows]
        apart = LAST_BITS * np.abs(wanted).max(axis=1, keepdims=True)
        # A store that keeps fewer digits may round such a difference up.
        above, below = (store.as_stored(wanted + side) for side in (apart, -apart))
        allowed = store.capabilities.rounding + apart + np.abs(above - below)
        with np.errstate(invalid="ignore"):
            same[rows] = (np.abs(found[rows] - wanted) <= allowed).all(axis=1)
    return same
