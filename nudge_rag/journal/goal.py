"""What a push makes of every node of a store: labelled ones are nudged, all others pass a map or stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.journal.packed_map import node_map_of
from nudge_rag.journal.versions import Version
from nudge_rag.solvers.linear_map.adapter import QueryAdapter, usable_rows
from nudge_rag.stores.access import same_vectors
from nudge_rag.stores.base import EmbeddingStore

__all__ = ["Goal", "MapVectors", "goal_of"]


@dataclass(frozen=True, eq=False)
class MapVectors:
    """A map of nodes, computed in float64 so that no number depends on how many nodes it is applied to at once.

    Attributes:
        node_map: the map.

    Example:
        >>> turn = MapVectors(QueryAdapter(np.array([[-1.0, 1.0], [1.0, -1.0]])))
        >>> turn(np.array([[3.0, 4.0], [0.0, 0.0]], dtype=np.float32)).tolist()
        [[4.0, 3.0], [0.0, 0.0]]
    """

    node_map: QueryAdapter

    def __call__(self, vectors: FloatArray) -> FloatArray:
        """Map vectors (n, d); those without a direction stay as they are."""
        mapped = np.array(vectors)
        usable = usable_rows(vectors)
        if usable.any():
            mapped[usable] = self.node_map.apply_to_nodes(vectors[usable].astype(np.float64))
        return mapped


@dataclass(frozen=True, eq=False)
class Goal:
    """What a push makes of every node.

    Attributes:
        store: its store.
        node_map: the map that all nodes pass; None for none.
        ids: of nodes that get a vector of their own.
        originals: (len(ids), d) their vectors before any nudge: a node that has another one by now is as all others.
        vectors: (len(ids), d) their own vectors, as the store keeps them.
    """

    store: EmbeddingStore
    node_map: QueryAdapter | None
    ids: Sequence[str]
    originals: FloatArray
    vectors: FloatArray

    @cached_property
    def rows(self) -> dict[str, int]:
        """Row of each of ``ids``."""
        return {node_id: row for row, node_id in enumerate(self.ids)}

    def reach(self, names: Sequence[str], originals: FloatArray) -> tuple[FloatArray, list[int]]:
        """Return the vectors that nodes are to have, and which of them have changed since they were nudged.

        Args:
            names: ids of nodes.
            originals: (len(names), d) their vectors before any nudge.
        """
        wanted = np.array(originals)
        if self.node_map is not None:
            usable = usable_rows(originals)
            if usable.any():
                wanted[usable] = self.store.as_stored(MapVectors(self.node_map)(originals[usable]))
        changed = []
        for place, name in enumerate(names):
            row = self.rows.get(name)
            if row is None:
                continue
            if same_vectors(self.store, originals[place], self.originals[row].astype(originals.dtype, copy=False)):
                wanted[place] = self.vectors[row]
            else:
                changed.append(place)
        return wanted, changed


def goal_of(store: EmbeddingStore, version: Version) -> Goal:
    """Return what a recorded push of all nodes makes of them.

    Raises:
        CorruptArchiveError: its record is damaged.
    """
    vectors = version.load()
    return Goal(store, node_map_of(version), version.ids, vectors.originals, vectors.after)
