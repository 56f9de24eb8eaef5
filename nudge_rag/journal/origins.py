"""Find the history that a renamed or copied store has left behind, from the vectors that it holds."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from nudge_rag.common.archive import MANIFEST, parse_manifest
from nudge_rag.errors import JournalError, NudgeError
from nudge_rag.journal.manifest import BASE, LIVE, NAME, SWITCHED, SWITCHING
from nudge_rag.journal.versions import Version, checked
from nudge_rag.stores.access import read_present, reading, same_vectors
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.stores.history import BlobStorage, FiledStorage, NeighboringStorage

__all__ = ["RELEASED", "find_left_behind", "holds_anything", "refuse_left_behind", "refuse_pushed_in_memory"]

# In a store's own storage, for as long as it holds nothing else: that is so on purpose.
RELEASED = "released.json"
# Moved nodes that are looked at: one that has the nudge is enough.
NODES = 200


def refuse_pushed_in_memory(store: EmbeddingStore, own: BlobStorage) -> None:
    """Raise JournalError if what is in memory was pushed to before its file was named: its originals are in memory.

    Raises:
        JournalError: says how to go on.
    """
    live = _live_version(own.in_memory, None) if isinstance(own, FiledStorage) else None
    if live is not None:
        raise JournalError(
            f"version {live.name} was pushed to this {store.name} store in memory, without persist_path: roll back"
            " without persist_path first, and push again with it; nothing was written"
        )


def refuse_left_behind(store: EmbeddingStore, own: BlobStorage) -> None:
    """Raise JournalError if ``store``, which has no history yet, holds what a push recorded next to it wrote.

    Otherwise those vectors would be taken for originals.

    Raises:
        JournalError: says where the history is, and how to bring it to the store.
        StoreError: the store failed.
    """
    if not isinstance(own, NeighboringStorage) or holds_anything(own):
        return
    found = find_left_behind(store, own)
    if found is not None:
        raise JournalError(
            f"this {store.name} store holds vectors that version {found.live.name} in {found.live.storage.location}"
            f" wrote, such as that of {found.node_id!r}, and has no history with it: it was renamed or copied alone."
            f" {found.advice}"
        )


def holds_anything(own: NeighboringStorage) -> bool:
    """Whether a store's own storage holds a history, or the mark of one."""
    return not {*own.names()} <= {RELEASED}


@dataclass(frozen=True)
class LeftBehind:
    """A history that a store has left behind.

    Attributes:
        live: its live version.
        node_id: a node of the store that holds what that wrote.
        advice: a sentence on how to bring it to the store.
    """

    live: Version
    node_id: str
    advice: str


def find_left_behind(store: EmbeddingStore, own: NeighboringStorage) -> LeftBehind | None:
    """Find the history next to that of ``store`` whose nudges the store holds.

    Raises:
        StoreError: the store failed.
    """
    with reading(store, "histories next to its own were looked for"):
        neighbors = own.neighbors()
    for storage, advice in neighbors:
        live = _live_version(storage, getattr(store, "dimension", None))
        node_id = None if live is None else _nudged_node(store, live)
        if live is not None and node_id is not None:
            return LeftBehind(live, node_id, advice)
    return None


def _live_version(storage: BlobStorage, dimension: int | None) -> Version | None:
    """The newest version that may be in the store of that history; None if there is none, or if it is damaged.

    Those of another dimension are not read: no copy has it.
    """
    try:
        names = {name for name in storage.names() if re.fullmatch(rf"{NAME}/{re.escape(MANIFEST)}", name)}
        for name in sorted(names, key=lambda name: -int(name.partition("/")[0])):
            manifest = parse_manifest(f"{storage.location}/{name}", storage.read(name))
            if manifest.get("state") in (*LIVE, SWITCHING, SWITCHED) and BASE not in manifest:
                version = checked(storage, name.partition("/")[0], manifest)
                if dimension is not None and version.dimension != dimension:
                    return None
                version.load()
                return version
    except (NudgeError, KeyError, OSError):
        # It is not this store's: whoever opens that one is told.
        return None
    return None


def _nudged_node(store: EmbeddingStore, version: Version) -> str | None:
    """A node of ``store`` that holds what ``version`` wrote, if there is one."""
    block = next(iter(version.parts()), None)
    if block is None:
        return None
    after, originals = block.vectors.after, block.vectors.originals
    rows: list[int] = np.flatnonzero((after != originals).any(axis=1))[:NODES].tolist()
    with reading(store, "its nodes were compared with the history next to it"):
        present, _ = read_present(store, [block.ids[row] for row in rows])
    for row in rows:
        vector, nudged = present.get(block.ids[row]), after[row]
        if vector is not None and vector.shape == nudged.shape and same_vectors(store, vector, nudged):
            return block.ids[row]
    return None
