"""Copy the one version of another store that a copy of it holds, with its originals: the other keeps what it has."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from nudge_rag.common.text import preview
from nudge_rag.errors import JournalError
from nudge_rag.journal.away import AwayNodes
from nudge_rag.journal.blocks import BlockRecord
from nudge_rag.journal.ingested import FOLDER as INGESTED
from nudge_rag.journal.journal import FRESH, PREVIOUS, Journal
from nudge_rag.journal.manifest import COMMITTED, LIVE, SUPERSEDED, SWITCHED
from nudge_rag.journal.ownership import Home
from nudge_rag.journal.store_record import ELSEWHERE
from nudge_rag.journal.versions import Version, writing_to
from nudge_rag.journal.witnesses import release
from nudge_rag.stores.access import read_present, reading, same_vectors
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.stores.history import BlobStorage

__all__ = ["copy_from_file", "copy_from_origin", "copy_what_is_here", "forget_mark", "is_held", "write_one"]


def copy_from_origin(store: EmbeddingStore, own: BlobStorage, origin: EmbeddingStore) -> tuple[str, ...]:
    """Copy the live version of the store that this one was copied from."""
    journal = Journal.open(origin)
    # Where both are in one file, they have one lock: the origin's is given back before the other is taken.
    with journal.lock():
        live = journal.live
        if live is not None:
            live.load()
    if live is None or not is_held(store, live, moved=True):
        what = "nothing is pushed to it" if live is None else f"no node holds what its version {live.name} wrote"
        raise JournalError(f"this {store.name} store is no copy of {origin.key}: {what}; nothing was taken over")
    write_one(store, own, live, journal.home.identity(), f"{origin.name} {origin.key}")
    return (live.name,)


def copy_from_file(store: EmbeddingStore, own: BlobStorage, journal: Journal, *, force: bool) -> tuple[str, ...]:
    """Copy the newest version of another file of which this store holds a node."""
    taken = copy_what_is_here(store, own, journal, force=force)
    if not taken and not force:
        raise JournalError(
            f"{journal.storage.location} is the history of another store: no node of this {store.name} store holds what"
            " it wrote; nothing was taken over"
        )
    return taken


def copy_what_is_here(store: EmbeddingStore, own: BlobStorage, journal: Journal, *, force: bool) -> tuple[str, ...]:
    """Copy the newest version of which this store holds a node, and take the mark away."""
    states = (*LIVE, SUPERSEDED, SWITCHED)
    kept = [one for one in reversed(journal.versions) if one.state in states and not one.is_thinned]
    found = next((one for one in kept if is_held(store, one, moved=True)), None)
    unknown = _unexplained(store, kept, found)
    if (unknown or not kept) and not force:
        which = f"{len(unknown)} node(s) ({preview(unknown)})" if unknown else "nodes"
        raise JournalError(
            f"{journal.storage.location} has gone on with another copy of this {store.name} store, and no longer has"
            f" the originals of {which} that this one may hold nudged: embed them again, then call"
            " nudge_rag.take_over(store, versions, force=True), which takes the vectors that are there for their own"
        )
    if found is not None:
        identity = journal.home.identity()
        write_one(store, own, found, identity, str(journal.storage.location))
    forget_mark(own)
    return () if found is None else (found.name,)


def _unexplained(store: EmbeddingStore, kept: Sequence[Version], found: Version | None) -> list[str]:
    """Nodes that versions have moved whose vectors are neither their originals nor what ``found`` wrote."""
    originals = {node_id: version.originals[row] for version in kept for row, node_id in enumerate(version.ids)}
    written = {} if found is None else dict(zip(found.ids, found.after, strict=True))
    with reading(store, "its nodes were compared with the history"):
        present, _ = read_present(store, list(originals))
    return [
        node_id
        for node_id, vector in present.items()
        if not same_vectors(store, vector, originals[node_id].astype(vector.dtype))
        and not (node_id in written and same_vectors(store, vector, written[node_id].astype(vector.dtype)))
    ]


def write_one(store: EmbeddingStore, own: BlobStorage, version: Version, identity: str | None, origin: str) -> None:
    """Record ``version`` as the only one of this store, pushed in place: copies beside it did not come along.

    With it come the nodes that the origin waits for, and those that were mapped before they were added: they may be in
    this store, or come back to it.
    """
    names = version.storage.names()
    away = AwayNodes.read(version.storage, names)
    dropped = ["mode", "label", "base", "thinned", "arrays", "arrays_sha256", "before_like", PREVIOUS]
    dropped += [] if version.is_streamed else ["n_nodes"]
    manifest = {name: value for name, value in version.manifest.items() if name not in dropped}
    manifest |= {"state": COMMITTED, FRESH: True, "ids": list(version.ids)}
    with own.lock():
        Home(own, own, store.key).describe(store, origin, identity)
        with writing_to(own, "written to"):
            for blob in names:
                folder, _, part = blob.rpartition("/")
                is_block = version.is_streamed and folder == version.name and BlockRecord.owns(part)
                if is_block or folder == INGESTED:
                    with suppress(KeyError):  # a rollback of the origin has just undone these nodes
                        own.write(blob, version.storage.read(blob))
        Version(own, version.name, manifest).write(version.load())
        # Last: with nodes that are away, and no version, the store would seem to have its history.
        AwayNodes(own).add((node_id, *vectors) for node_id, vectors in away.vectors.items())


def forget_mark(own: BlobStorage) -> None:
    """Take the mark of a folder away from a store's own storage.

    Raises:
        JournalError: the history cannot be written to.
    """
    with own.lock(), writing_to(own, "written to"):
        release(own)
        own.delete(ELSEWHERE)


def is_held(store: EmbeddingStore, version: Version, *, moved: bool) -> bool:
    """Whether a node of ``store`` holds what ``version`` wrote; with ``moved``, only those count that it has moved."""
    for block in version.parts():
        after = block.vectors.after
        rows = np.flatnonzero((after != block.vectors.originals).any(axis=1)) if moved else range(len(block.ids))
        with reading(store, "its nodes were compared with the history"):
            present, _ = read_present(store, [block.ids[row] for row in rows])
        for row in rows:
            vector = present.get(block.ids[row])
            if vector is not None and vector.shape == after[row].shape and same_vectors(store, vector, after[row]):
                return True
    return False
