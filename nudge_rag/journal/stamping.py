"""Stamp the vectors that a push writes, and refuse stores whose history knows nothing of the stamped ones any more."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from nudge_rag.common.archive import MANIFEST
from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.text import preview, printable
from nudge_rag.errors import LostHistoryError
from nudge_rag.journal.manifest import NAME
from nudge_rag.journal.versions import Version
from nudge_rag.stores.access import read_present, reading
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.stores.history import BlobStorage
from nudge_rag.stores.location import hide, secrets_in
from nudge_rag.stores.memory.files import SUFFIX
from nudge_rag.stores.stamps import StampedStore, Stamps, push_of
from nudge_rag.stores.storages import FolderStorage

__all__ = [
    "find_unrecorded",
    "refuse_lost_history",
    "refuse_older_history",
    "stamp_all",
    "stamp_nudges",
    "stamp_version",
    "stamps_in",
]

# Ids of nodes, and what they hold, to what they held before any push that is recorded.
OriginalsOf = Callable[[Sequence[str], FloatArray], FloatArray]

# Characters of a place in a message: more than the path of any folder.
LONGEST_SHOWN = 4096


def stamp_nudges(
    store: EmbeddingStore, version: Version, ids: Sequence[str], vectors: FloatArray, originals: FloatArray
) -> None:
    """Stamp vectors that are about to be written, in a store that keeps stamps, unless they are originals.

    Args:
        store: the store.
        version: what records them.
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
        store.stamp_nudges([ids[row] for row in rows], as_written, _place(version.storage), version.mark)


def stamp_version(store: EmbeddingStore, version: Version) -> None:
    """Stamp what a version writes, or has written and is live again."""
    if isinstance(store, StampedStore):
        for block in version.parts():
            stamp_nudges(store, version, block.ids, block.vectors.after, block.vectors.originals)


def stamp_all(store: EmbeddingStore, version: Version, copy: EmbeddingStore) -> None:
    """Stamp all vectors of a copy that is about to be live, of which none are recorded."""
    if isinstance(store, StampedStore):
        for names, vectors in copy.scan():
            store.stamp_nudges(names, np.asarray(vectors), _place(version.storage), version.mark)


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


def stamps_in(store: EmbeddingStore) -> Stamps:
    """Return the stamps of a store that keeps them; of any other, none.

    Raises:
        StoreError: the store failed.
    """
    if not isinstance(store, StampedStore):
        return Stamps()
    with reading(store, "vectors that pushes wrote were looked for"):
        return store.all_stamps()


def find_unrecorded(
    store: EmbeddingStore, stamps: Stamps, versions: Sequence[Version], originals_of: OriginalsOf
) -> dict[str, str]:
    """Find nodes that hold what a push wrote, and of whose originals nothing is recorded, or no longer.

    Args:
        store: the store.
        stamps: as `stamps_in` gave them before the history was read: their pushes had been recorded by then.
        versions: all that are recorded.
        originals_of: gives the vectors before any of these.

    Returns:
        Node id to the mark of the push that wrote its vector.

    Raises:
        CorruptArchiveError: a record is damaged.
        JournalError: it cannot be read.
        StoreError: the store failed.
    """
    doubtful = _not_of_live(stamps, versions) if isinstance(store, StampedStore) else set()
    if not isinstance(store, StampedStore) or not doubtful:
        return {}
    with reading(store, "vectors that pushes wrote were looked for"):
        held = {
            node_id: push_of(known[-1])
            for node_id, known in store.find_stamped().nodes.items()
            if known and all(push_of(stamp) in doubtful for stamp in known)
        }
        present, _ = read_present(store, list(held))
    if not present:
        return {}
    ids, vectors = list(present), np.array(list(present.values()))
    # Not unknown are nodes that had been away, or those of a push that died over a vector that stayed as it was.
    is_unknown = (originals_of(ids, vectors) == vectors).all(axis=1)
    return {node_id: held[node_id] for node_id, unknown in zip(ids, is_unknown, strict=True) if unknown}


def refuse_older_history(
    store: EmbeddingStore,
    storage: BlobStorage,
    stamps: Stamps,
    versions: Sequence[Version],
    originals_of: OriginalsOf,
) -> None:
    """Raise LostHistoryError if a store holds what a push wrote that its history cannot undo.

    The history is that of an older backup, or the file is: of early pushes it keeps nothing but the names.

    Args:
        store: the store.
        storage: of the history.
        stamps: as for `find_unrecorded`.
        versions: all that are recorded.
        originals_of: gives the vectors before any of these.

    Raises:
        LostHistoryError: says what the history knows, and how to go on.
        CorruptArchiveError: a record is damaged.
        StoreError: the store failed.
    """
    unknown = find_unrecorded(store, stamps, versions, originals_of)
    if not unknown:
        return
    # What is newer than the history is told first: a newer one may have the rest as well.
    highest = max((version.number for version in versions), default=0)
    marks = {version.name: version.mark for version in versions}
    newer = {node: push for node, push in unknown.items() if _is_newer(push, highest, marks)}
    told = newer or unknown
    names = sorted({push.partition("-")[0] for push in told.values()}, key=int)
    elsewhere = "" if stamps.history == _place(storage) else f" That push was recorded in {_shown(stamps.history)}."
    if newer:
        known = f"the newest it knows is {versions[-1].name if versions else 'none'}"
        if names[-1] in marks:
            known = f"its version {names[-1]} is another"
        what = f"does not know that push: {known}, as in an older backup"
        way = "Bring the newer history back, or the file that belongs to this one"
    else:
        what = "keeps no vectors of so old a push: the file seems to be of an older backup"
        way = "Bring the newer file back, or a history as old as this one"
    raise LostHistoryError(
        f"{len(told)} node(s) of this {store.name} store hold vectors that version {' or '.join(names)} wrote, such"
        f" as {preview(list(told)[:1])}, and its history in {storage.location} {what}.{elsewhere} {way}. If it is lost,"
        " embed these nodes again; or call nudge_rag.take_over(store, force=True), which takes the vectors that are"
        " there for their own"
    )


def _not_of_live(stamps: Stamps, versions: Sequence[Version]) -> set[str]:
    """Marks of pushes that are not the live one, which knows what it wrote."""
    live = next((version.mark for version in reversed(versions) if version.is_live), None)
    seen = {push_of(stamp) for stamps_of_node in stamps.nodes.values() for stamp in stamps_of_node}
    return {push for push in seen if push and push != live and re.fullmatch(NAME, push.partition("-")[0])}


def _is_newer(push: str, highest: int, marks: Mapping[str, str]) -> bool:
    """Whether a push came after all that are recorded under these marks, or in the place of one."""
    name, _, told_by = push.partition("-")
    # A name is given again if all records were pruned.
    is_another = bool(told_by) and "-" in marks.get(name, "") and marks[name] != push
    return int(name) > highest or is_another


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
        f" nudge_rag.take_over(store, {str(folder)!r}), which leaves that one as it is"
    )
