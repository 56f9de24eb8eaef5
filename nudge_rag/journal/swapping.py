"""Swap the live version and a copy, and find out from the vectors which of the two is live.

The caller holds the lock of the journal.
"""

from __future__ import annotations

import numpy as np

from nudge_rag.errors import PushError
from nudge_rag.journal.copy_notes import LabelNotes
from nudge_rag.journal.derived_copies import count_made, find_other_base
from nudge_rag.journal.differences import Differences
from nudge_rag.journal.journal import Journal
from nudge_rag.journal.manifest import COMMITTED, SWITCHED, SWITCHING, WAS_LIVE
from nudge_rag.journal.side_by_side import require_copies
from nudge_rag.journal.stamping import stamp_all, stamp_version
from nudge_rag.journal.versions import Version
from nudge_rag.stores.access import read_present, same_rows, same_vectors
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.stores.copies import CatchingUpStore, MovedNodes, NodesOfCopy, StoreOfCollections
from nudge_rag.stores.late_writes import are_noted

__all__ = ["find_live", "find_outdated", "moved_nodes", "swap"]


def swap(journal: Journal, version: Version, state: str) -> int:
    """Swap the live version and the copy of ``version``, which is then ``state`` (switched, or committed again).

    Returns:
        How many nodes the copy had to catch up with first.

    Raises:
        PushError: the store failed; the journal says which of the two is live.
    """
    store, n_caught_up = journal.store, 0
    if state == SWITCHED:
        version.manifest[WAS_LIVE] = True
    version.set_state(SWITCHING)
    try:
        _stamp_what_is_live_then(journal, version, state)
        if isinstance(store, CatchingUpStore):
            notes = LabelNotes(journal.storage, version.label)
            n_caught_up = store.catch_up_and_switch(
                version.label, moved_nodes(journal, version, state == COMMITTED), notes
            )
        else:
            require_copies(store).switch(version.label)
    except Exception as error:
        if find_live(journal, version) != state:
            raise PushError(f"{store.name} did not switch: {error}") from error
    else:
        version.set_state(state)
    return n_caught_up


def _stamp_what_is_live_then(journal: Journal, version: Version, state: str) -> None:
    """Stamp the nudges that are live once `swap` has swapped, in a store that keeps stamps."""
    if state != SWITCHED:
        if journal.beneath is not None:
            stamp_version(journal.store, journal.beneath)
    elif version.is_derived:
        stamp_all(journal.store, version, require_copies(journal.store).open_copy(version.label))
    else:
        stamp_version(journal.store, version)


def moved_nodes(journal: Journal, version: Version, is_live: bool) -> NodesOfCopy:
    """The nodes by which the live version and the copy differ, while the version is live or waits."""
    if version.is_derived:
        return journal.derivation(version).nodes(is_live=is_live)
    moved = MovedNodes(version.ids, version.before, version.after)
    return moved.reversed() if is_live else moved


def find_outdated(journal: Journal, version: Version) -> str:
    """Say why a version that waits is no longer one of the vectors that are live; empty if it is.

    Vectors that others have written since are caught up with. But those of a push or rollback of our own would undo
    this version node by node, or two versions would be live at once, and if no node has the vector that it was made
    from, nothing of it is left.
    """
    if version.is_derived:
        return find_other_base(journal, version)
    store = journal.store
    present, _ = read_present(store, version.ids)
    rows = [row for row, node_id in enumerate(version.ids) if node_id in present]
    now = np.array([present[version.ids[row]] for row in rows]) if rows else version.before[:0]
    same = same_rows(store, now, version.before[rows])
    changed = [place for place, unchanged in enumerate(same) if not unchanged]
    if not changed:
        return find_other_base(journal, version)
    live = journal.live
    theirs = {} if live is None or live.number < version.number else dict(zip(live.ids, live.after, strict=True))
    ours = [
        place
        for place in changed
        if same_vectors(store, now[place], version.originals[rows[place]])
        or (version.ids[rows[place]] in theirs and same_vectors(store, now[place], theirs[version.ids[rows[place]]]))
    ]
    outdated = changed if len(changed) == len(rows) else ours
    if outdated:
        return str(Differences(changed=[version.ids[rows[place]] for place in outdated]))
    return find_other_base(journal, version)


def find_live(journal: Journal, version: Version) -> str:
    """Find out from the vectors whether the version or its copy is live, record it, and return the state.

    If no node that moved tells the two apart any more, nothing of the push is live: it counts as not switched.

    Raises:
        PushError: the store failed.
    """
    store = journal.store
    try:
        if version.is_derived:
            copies = require_copies(store)
            is_there = version.label in copies.copy_labels()
            nudged, original = count_made(journal, version, copies.open_copy(version.label)) if is_there else (0, 0)
        else:
            nudged, original = _votes(store, version)
            if nudged == original:
                copy = require_copies(store)
                if version.label in copy.copy_labels():
                    original, nudged = _votes(copy.open_copy(version.label), version)
    except Exception as error:
        raise PushError(
            f"{store.name} failed while it was asked whether version {version.name} is live ({error}): a later call"
            " asks again"
        ) from error
    state = SWITCHED if nudged > original else COMMITTED
    # Notes are written before the two are swapped: without any, it has never been live.
    notes = LabelNotes(journal.storage, version.label)
    if state == COMMITTED and isinstance(store, StoreOfCollections) and not are_noted(notes):
        version.manifest.pop(WAS_LIVE, None)
    version.set_state(state)
    return version.state


def _votes(store: EmbeddingStore, version: Version) -> tuple[int, int]:
    """Count the nodes that hold the push's vector, and those that hold the one from before; others have no say."""
    rows = np.flatnonzero([not same for same in same_rows(store, version.before, version.after)])
    present, _ = read_present(store, [version.ids[row] for row in rows])
    telling = [row for row in rows if version.ids[row] in present]
    vectors = [present[version.ids[row]] for row in telling]
    counts = [
        sum(same_vectors(store, vector, known[row]) for row, vector in zip(telling, vectors, strict=True))
        for known in (version.after, version.before)
    ]
    return counts[0], counts[1]
