"""A map of all nodes that belongs to a version: a view of the store through it, and nodes that it has not reached."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nudge_rag.common.arrays import FloatArray, IntArray
from nudge_rag.common.text import preview
from nudge_rag.journal.blocks import nodes_per_block
from nudge_rag.journal.derived import find_made
from nudge_rag.journal.goal import MapVectors
from nudge_rag.journal.journal import Journal
from nudge_rag.journal.packed_map import NODE_MAP, node_map_of, pack_adapter, unpack_adapter
from nudge_rag.journal.returned import has_returned
from nudge_rag.journal.versions import Version
from nudge_rag.solvers.linear_map.adapter import QueryAdapter, usable_rows
from nudge_rag.stores.access import reading
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.stores.mapped import MappedStore

__all__ = [
    "NODE_MAP",
    "describe_unmapped",
    "mapped_store",
    "node_map_of",
    "nodes_mapped_in_vain",
    "pack_adapter",
    "rows_mapped_at_ingestion",
    "unmapped_ids",
    "unmapped_nodes",
    "unpack_adapter",
    "untouched_store",
]

NODES_PER_STEP = 1_000


def mapped_store(store: EmbeddingStore, journal: Journal, node_map: QueryAdapter) -> MappedStore:
    """Return a view of ``store`` in which all nodes are mapped, from their originals on."""
    map_vectors = MapVectors(unpack_adapter(pack_adapter(node_map)))
    return MappedStore(store, lambda names, found: map_vectors(journal.originals_of(names, found)))


def untouched_store(store: EmbeddingStore, journal: Journal) -> EmbeddingStore:
    """Return a view of ``store`` as it was before all of its nodes were written; the store itself if they were not."""
    live = journal.live
    if live is not None and live.is_streamed:
        return MappedStore(store, journal.originals_of)
    with reading(store, "vectors of versions that are over were looked for"):
        is_back = any(version.is_streamed and has_returned(store, version) for version in journal.over(live))
    return MappedStore(store, journal.originals_of) if is_back else store


def unmapped_nodes(journal: Journal, live: Version) -> Iterator[tuple[list[str], FloatArray]]:
    """Nodes that were added to the store, or embedded again, since ``live`` mapped all others, a block at a time.

    So are those that were mapped by another map before they were added.

    Returns:
        Ids, and the vectors that the store holds of them.

    Raises:
        StoreError: it failed while it was read.
    """
    with reading(journal.store, "new nodes were looked for"):
        for names, found in journal.store.scan(nodes_per_block(live.dimension)):
            journal.ingested.look_again()
            is_new = usable_rows(found)
            is_new[journal.find_live(names, found)[0]] = False
            is_new[rows_mapped_at_ingestion(journal, live, found)] = False
            rows = np.flatnonzero(is_new)
            if len(rows):
                yield [names[row] for row in rows], found[rows]


def rows_mapped_at_ingestion(journal: Journal, version: Version, found: FloatArray) -> IntArray:
    """Rows of vectors of the store that the map of ``version`` made before they were added; none if it has no map."""
    node_map = node_map_of(version) if journal.ingested else None
    if node_map is None:
        return np.zeros(0, dtype=np.int64)
    rows, originals = journal.ingested.originals_of(found)
    made = journal.store.as_stored(MapVectors(node_map)(originals)) if len(rows) else originals
    return rows[find_made(journal.store, found[rows], made)]


def nodes_mapped_in_vain(journal: Journal) -> Iterator[tuple[list[str], FloatArray, FloatArray]]:
    """Nodes that were mapped before they were added although no map of all nodes is live: ids, vectors, originals.

    Whoever adds documents looks from time to time at what is live, and may do so just before a rollback.

    Raises:
        StoreError: the store failed while it was read.
    """
    live = journal.live
    if not journal.ingested or node_map_of(live) is not None:
        return
    with reading(journal.store, "nodes that were mapped before they were added were looked for"):
        for names, found in journal.store.scan(NODES_PER_STEP):
            rows, originals = journal.ingested.originals_of(found)
            is_wrong = (found[rows] != originals).any(axis=1)
            is_wrong &= ~np.isin(rows, journal.find_live(names, found)[0])
            if is_wrong.any():
                rows = rows[is_wrong]
                yield [names[row] for row in rows], found[rows], originals[is_wrong]


def unmapped_ids(journal: Journal, version: Version) -> list[str]:
    """Ids of the nodes that ``version``, which is live, did not map although it has mapped all others."""
    if not version.is_streamed or node_map_of(version) is None:
        return []
    return [node_id for names, _ in unmapped_nodes(journal, version) for node_id in names]


def describe_unmapped(ids: list[str], version: str) -> str:
    """Say that nodes are not mapped, and what to do.

    Example:
        >>> describe_unmapped(["n1"], "0001").partition(": ")[0]
        '1 node(s) were written since all nodes were mapped and hold vectors that are not of that map'
    """
    return (
        f"{len(ids)} node(s) were written since all nodes were mapped and hold vectors that are not of that map:"
        f" {preview(ids)};"
        f" drop_copies() keeps version {version}, reapply() maps them then"
    )
