"""A map of all nodes that belongs to a version: as it is recorded, and what it makes of a store's nodes."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nudge_rag.common.archive import CorruptArchiveError
from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.text import preview
from nudge_rag.journal.journal import Journal
from nudge_rag.journal.versions import Version
from nudge_rag.solvers.linear_map.adapter import QueryAdapter, usable_rows
from nudge_rag.stores.access import reading
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.stores.mapped import MappedStore

__all__ = [
    "MOST_NUMBERS",
    "NODE_MAP",
    "MappedNodes",
    "describe_unmapped",
    "map_all_nodes",
    "mapped_store",
    "node_map_of",
    "pack_adapter",
    "require_small",
    "unmapped_ids",
    "unmapped_nodes",
    "unpack_adapter",
]

# Its name in the details of a version, and among the arrays of a saved nudge.
NODE_MAP = "node_map"
# Nodes times dimension, beyond which a push of all nodes is refused: it holds 16 to 30 copies in memory, 2 to 4 GB.
MOST_NUMBERS = 30_000_000
NODES_PER_STEP = 5_000


@dataclass(frozen=True)
class MappedNodes:
    """Nodes with their vectors before and after a map.

    Attributes:
        ids: of the nodes.
        originals: (n, d) before any nudge.
        vectors: (n, d) mapped, and nudged where they are.
    """

    ids: list[str]
    originals: FloatArray
    vectors: FloatArray


def pack_adapter(adapter: QueryAdapter) -> dict[str, Any]:
    """Return the adapter in the types of JSON: its dimension, and float32 numbers as base64.

    Example:
        >>> adapter = unpack_adapter(pack_adapter(QueryAdapter(np.eye(2))))
        >>> adapter.change.tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    numbers = np.ascontiguousarray(adapter.change, dtype="<f4")
    return {"dimension": adapter.dimension, "float32": base64.b64encode(numbers.tobytes()).decode("ascii")}


def unpack_adapter(packed: Mapping[str, Any]) -> QueryAdapter:
    """Read what `pack_adapter` wrote.

    Raises:
        CorruptArchiveError: it is something else, or damaged.
    """
    try:
        dimension = int(packed["dimension"])
        numbers = np.frombuffer(base64.b64decode(packed["float32"], validate=True), dtype="<f4")
        return QueryAdapter(numbers.reshape(dimension, dimension).astype(np.float32))
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise CorruptArchiveError(f"the adapter in the record of a push is damaged: {error}") from error


def node_map_of(version: Version | None) -> QueryAdapter | None:
    """Return the map that all nodes of ``version`` passed; None if it has none.

    Raises:
        CorruptArchiveError: it is damaged.
    """
    packed = None if version is None else version.manifest.get("details", {}).get(NODE_MAP)
    return None if packed is None else unpack_adapter(packed)


def require_small(store: EmbeddingStore, dimension: int) -> None:
    """Raise ValueError if ``store`` holds more than a push of all nodes, with their originals, can hold in memory."""
    count = store.count()
    if count * dimension > MOST_NUMBERS:
        raise ValueError(
            f"{store.name} holds {count:,} nodes of dimension {dimension}, and a map of all nodes is written for at"
            f" most {MOST_NUMBERS // dimension:,} of them: use reach='queries', which maps queries instead"
        )


def mapped_store(store: EmbeddingStore, journal: Journal, node_map: QueryAdapter) -> MappedStore:
    """Return a view of ``store`` in which all nodes are mapped, from their originals on."""
    return MappedStore(store, lambda names, found: node_map.apply_to_usable(journal.originals_of(names, found)))


def map_all_nodes(journal: Journal, node_map: QueryAdapter, nudged: MappedNodes) -> MappedNodes:
    """Map the original of every node of the store, but for those of ``nudged``, which are as they are there.

    Vectors that have no direction to map (zero, or not finite) stay as they are and are left out.

    Raises:
        ValueError: the store is too large.
        StoreError: it failed while it was read.
    """
    store, known = journal.store, set(nudged.ids)
    with reading(store, "all nodes were mapped"):
        require_small(store, node_map.dimension)
        parts = [nudged]
        for names, found in store.scan(NODES_PER_STEP):
            originals = journal.originals_of(names, found)
            usable = usable_rows(originals)
            rows = [row for row, name in enumerate(names) if usable[row] and name not in known]
            if rows:
                own = originals[rows]
                parts.append(MappedNodes([names[row] for row in rows], own, node_map.apply_to_nodes(own)))
    return _joined(parts)


def unmapped_nodes(journal: Journal, live: Version, node_map: QueryAdapter) -> MappedNodes:
    """Map the nodes that were added to the store, or embedded again, since all others were mapped by ``live``.

    Raises:
        ValueError: the store has grown too large.
        StoreError: it failed while it was read.
    """
    nothing = np.zeros((0, node_map.dimension), dtype=journal.store.capabilities.dtype)
    parts = [MappedNodes([], nothing, nothing)]
    with reading(journal.store, "new nodes were looked for"):
        require_small(journal.store, node_map.dimension)
        for names, own in _unmapped(journal, live):
            parts.append(MappedNodes(names, own, node_map.apply_to_nodes(own)))
    return _joined(parts)


def _unmapped(journal: Journal, live: Version) -> Iterator[tuple[list[str], FloatArray]]:
    """Ids and originals of the nodes that ``live`` did not write, a batch at a time."""
    at = {node_id: place for place, node_id in enumerate(live.ids)}
    for names, found in journal.store.scan(NODES_PER_STEP):
        originals = journal.originals_of(names, found)
        usable = usable_rows(originals)
        rows = [
            row
            for row, name in enumerate(names)
            if usable[row] and (name not in at or not live.holds(journal.store, found[row], at[name]))
        ]
        if rows:
            yield [names[row] for row in rows], originals[rows]


def unmapped_ids(journal: Journal, version: Version) -> list[str]:
    """Ids of the nodes that ``version`` did not map although it has mapped all others; none without a map."""
    if node_map_of(version) is None:
        return []
    with reading(journal.store, "new nodes were looked for"):
        return [node_id for names, _ in _unmapped(journal, version) for node_id in names]


def describe_unmapped(ids: list[str], version: str) -> str:
    """Say that nodes are not mapped, and what to do.

    Example:
        >>> describe_unmapped(["n1"], "0001").partition(": ")[0]
        '1 node(s) were written since all nodes were mapped and hold unmapped vectors'
    """
    return (
        f"{len(ids)} node(s) were written since all nodes were mapped and hold unmapped vectors: {preview(ids)};"
        f" drop_copies() keeps version {version}, reapply() maps them then"
    )


def _joined(parts: list[MappedNodes]) -> MappedNodes:
    ids = [node_id for part in parts for node_id in part.ids]
    originals, vectors = (np.concatenate([getattr(part, name) for part in parts]) for name in ("originals", "vectors"))
    return MappedNodes(ids, originals, vectors)
