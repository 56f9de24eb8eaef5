"""Stamp the vectors that a push writes, and refuse stores whose stamped vectors have no history any more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nudge_rag.common.archive import MANIFEST
from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.text import preview, printable
from nudge_rag.errors import LostHistoryError
from nudge_rag.journal.versions import Version
from nudge_rag.stores.access import reading
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.stores.history import BlobStorage
from nudge_rag.stores.location import hide, secrets_in
from nudge_rag.stores.memory.files import SUFFIX
from nudge_rag.stores.stamps import StampedStore
from nudge_rag.stores.storages import FolderStorage

__all__ = ["refuse_lost_history", "stamp_all", "stamp_nudges", "stamp_version"]

# Characters of a place in a message: more than the path of any folder.
LONGEST_SHOWN = 4096


def stamp_nudges(
    store: EmbeddingStore, storage: BlobStorage, ids: Sequence[str], vectors: FloatArray, originals: FloatArray
) -> None:
    """Stamp vectors that are about to be written, in a store that keeps stamps, unless they are originals.

    Args:
        store: the store.
        storage: of the history that records them.
        ids: of the nodes.
        vectors: (len(ids), d) what is written.
        originals: (len(ids), d) their vectors before any nudge.
    """
    if not isinstance(store, StampedStore) or not len(ids):
        return
    moved = (np.asarray(vectors) != np.asarray(originals)).any(axis=1)
    rows: list[int] = np.flatnonzero(moved).tolist()
    if rows:
        as_written = np.asarray(vectors)[rows].astype(store.capabilities.dtype, copy=False)
        store.stamp_nudges([ids[row] for row in rows], as_written, _place(storage))


def stamp_version(store: EmbeddingStore, version: Version) -> None:
    """Stamp what a version writes, or has written and is live again."""
    if isinstance(store, StampedStore):
        for block in version.parts():
            stamp_nudges(store, version.storage, block.ids, block.vectors.after, block.vectors.originals)


def stamp_all(store: EmbeddingStore, version: Version, copy: EmbeddingStore) -> None:
    """Stamp all vectors of a copy that is about to be live, of which none are recorded."""
    if isinstance(store, StampedStore):
        for names, vectors in copy.scan():
            store.stamp_nudges(names, np.asarray(vectors), _place(version.storage))


def refuse_lost_history(store: EmbeddingStore) -> None:
    """Raise LostHistoryError if a store without a history holds what a push wrote: it would be taken for originals.

    Raises:
        LostHistoryError: says where the history was, and how to go on.
        StoreError: the store failed.
    """
    if not isinstance(store, StampedStore):
        return
    with reading(store, "vectors that pushes wrote were looked for"):
        stamps = store.find_stamped()
    if not stamps.nodes:
        return
    folder = _folder_with_versions(stamps.history)
    raise LostHistoryError(
        f"{len(stamps.nodes)} node(s) of this {store.name} store hold vectors that a push wrote, such as"
        f" {preview(list(stamps.nodes)[:1])}, and it has no history: the push was recorded in {_shown(stamps.history)}."
        f" {_way_back(folder)}",
        folder,
    )


def _place(storage: BlobStorage) -> str:
    return str(storage.path.resolve()) if isinstance(storage, FolderStorage) else storage.location


def _shown(history: str) -> str:
    """A place as a file says it: anybody may have written that."""
    hidden = printable(hide(history, secrets_in(history)))
    return hidden if len(hidden) <= LONGEST_SHOWN else f"{hidden[:LONGEST_SHOWN]}..."


def _folder_with_versions(history: str) -> Path | None:
    """The folder that a file names as that of its history; None if it holds none."""
    folder = Path(history)
    try:
        return folder if folder.is_absolute() and any(folder.glob(f"*/{MANIFEST}")) else None
    except (OSError, ValueError):  # it cannot be the name of a folder
        return None


def _way_back(folder: Path | None) -> str:
    """How the history in ``folder`` comes to the store, or what to do without one."""
    if folder is None:
        return (
            "Bring that back, or call nudge_rag.take_over(store, FOLDER) with the place where it is now. If that is"
            " lost, embed these nodes again; or call nudge_rag.take_over(store, force=True), which takes the vectors"
            " that are there for their own"
        )
    if folder.suffix != SUFFIX:
        return f"Pass versions={str(folder.parent)!r}"
    file = folder.with_suffix("")
    if not file.is_file():
        return f"Bring it to the store with nudge_rag.take_over(store, {str(folder)!r})"
    return (
        f"If this is the store in {file}, pass persist_path={str(file)!r}; if it is a copy, call"
        " nudge_rag.take_over(store, origin) with the adapter of that"
    )
