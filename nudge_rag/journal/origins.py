"""Find the history that a renamed or copied store has left behind, from the vectors that it holds."""

from __future__ import annotations

import re

import numpy as np

from nudge_rag.common.archive import MANIFEST, parse_manifest
from nudge_rag.errors import JournalError, NudgeError
from nudge_rag.journal.manifest import BASE, LIVE, NAME, SWITCHED, SWITCHING
from nudge_rag.journal.versions import Version, checked
from nudge_rag.stores.access import read_present, reading, same_vectors
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.stores.history import BlobStorage, NeighboringStorage

__all__ = ["refuse_left_behind"]

# Moved nodes that are looked at: one that has the nudge is enough.
NODES = 200


def refuse_left_behind(store: EmbeddingStore, own: BlobStorage) -> None:
    """Raise JournalError if ``store``, which has no history yet, holds what a push recorded next to it wrote.

    Otherwise those vectors would be taken for originals.

    Raises:
        JournalError: says where the history is, and how to bring it to the store.
        StoreError: the store failed.
    """
    if not isinstance(own, NeighboringStorage) or own.names():
        return
    with reading(store, "histories next to its own were looked for"):
        neighbors = own.neighbors()
    for storage, advice in neighbors:
        live = _live_version(storage, getattr(store, "dimension", None))
        node_id = None if live is None else _nudged_node(store, live)
        if live is not None and node_id is not None:
            raise JournalError(
                f"this {store.name} store holds vectors that version {live.name} in {storage.location} wrote, such as"
                f" that of {node_id!r}, and has no history with it: it was renamed or copied alone. {advice}"
            )


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
    rows: list[int] = np.flatnonzero((version.after != version.originals).any(axis=1))[:NODES].tolist()
    with reading(store, "its nodes were compared with the history next to it"):
        present, _ = read_present(store, [version.ids[row] for row in rows])
    for row in rows:
        vector, nudged = present.get(version.ids[row]), version.after[row]
        if vector is not None and vector.shape == nudged.shape and same_vectors(store, vector, nudged):
            return version.ids[row]
    return None
