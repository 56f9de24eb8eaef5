"""What somebody wrote to a copy that he had opened while it was live, before that is dropped or switched back.

The caller holds the lock of the journal.
"""

from __future__ import annotations

import time

from nudge_rag.errors import PushError
from nudge_rag.journal.copy_notes import LabelNotes
from nudge_rag.journal.derived_copies import find_late
from nudge_rag.journal.differences import Differences, find_differences
from nudge_rag.journal.journal import Journal
from nudge_rag.journal.manifest import SWITCHED, WAS_LIVE
from nudge_rag.journal.side_by_side import labels_of, require_copies
from nudge_rag.journal.swapping import moved_nodes
from nudge_rag.journal.versions import Version
from nudge_rag.stores.access import reading
from nudge_rag.stores.copies import MovedNodes, StoreOfCollections
from nudge_rag.stores.late_writes import are_noted

__all__ = ["find_unnoted", "settle_late_writes"]

# Before a copy is dropped that somebody has written to: so long he may not write again.
SECONDS_TO_WRITE_AGAIN = 0.5


def settle_late_writes(journal: Journal, version: Version, *, force: bool = False) -> int:
    """Before a copy is dropped: bring over what somebody wrote to it who opened it while it was live.

    Returns:
        How many nodes were brought over.

    Raises:
        PushError: somebody is writing to it now; or it has nodes or vectors that the live version has not, and whose
            are newer cannot be told.
        StoreError: the store failed.
    """
    store, is_live = journal.store, version.state == SWITCHED
    if not isinstance(store, StoreOfCollections) or version.label not in labels_of(store):
        return 0
    moved, notes = moved_nodes(journal, version, is_live), LabelNotes(journal.storage, version.label)
    with reading(store, "what was written to a copy was looked for"):
        n_late = store.bring_late_writes(version.label, moved, notes)
        if n_late:
            time.sleep(SECONDS_TO_WRITE_AGAIN)
        is_written_to = bool(n_late and store.bring_late_writes(version.label, moved, notes))
    found = find_unnoted(journal, version) if n_late is None else Differences()
    if is_written_to and not force:
        raise PushError(
            f"somebody writes to the copy of version {version.name}, who opened it while it was live; what he wrote is"
            f" in the live version too, and nothing was dropped: let him open the {store.name} store again"
        )
    if found and not force:
        raise PushError(
            f"the copy of version {version.name} holds what the live version does not ({found}), and nothing is noted"
            " of who wrote it: nothing was dropped; drop_copies(store, force=True) drops it all the same"
        )
    return n_late or 0


def find_unnoted(journal: Journal, version: Version) -> Differences:
    """Find what somebody may have written to a copy that was live, if the notes of it are lost; else there is nothing.

    Raises:
        StoreError: the store failed.
    """
    store, is_live = journal.store, version.state == SWITCHED
    was_live = is_live or version.manifest.get(WAS_LIVE) is True
    if not (isinstance(store, StoreOfCollections) and was_live and version.label in labels_of(store)):
        return Differences()
    if are_noted(LabelNotes(journal.storage, version.label)):
        return Differences()
    moved = moved_nodes(journal, version, is_live)
    with reading(store, "a live version and a copy were compared"):
        copy = require_copies(store).open_copy(version.label)
        if not isinstance(moved, MovedNodes):
            return find_late(store, copy, moved)
        found = find_differences(store, copy, moved.ids, moved.live, moved.copy)
    found.only_live = []
    return found
