"""The steps of a push to a copy: write it, compare it with the live version, swap the two, and mend steps that died.

The caller holds the lock of the journal.
"""

from __future__ import annotations

import contextlib
import logging
import time

import numpy as np

from nudge_rag.common.caller import warn_caller
from nudge_rag.errors import JournalError, PushError
from nudge_rag.journal.copy_notes import LabelNotes
from nudge_rag.journal.derived_copies import count_made, find_late, find_other_base
from nudge_rag.journal.differences import Differences, find_differences
from nudge_rag.journal.journal import Journal
from nudge_rag.journal.manifest import (
    COMMITTED,
    IN_PLACE,
    PREPARED,
    ROLLED_BACK,
    SUPERSEDED,
    SWITCHED,
    SWITCHING,
    VERIFIED,
    WAS_LIVE,
    WRITING,
)
from nudge_rag.journal.push_all import fill_copy, keep_originals, wait_for_absent
from nudge_rag.journal.stamping import stamp_all, stamp_version
from nudge_rag.journal.versions import Version
from nudge_rag.journal.writes import Written, write_over
from nudge_rag.stores.access import read_present, reading, require_store, same_rows, same_vectors
from nudge_rag.stores.base import EmbeddingStore, SideBySideStore, StoreError
from nudge_rag.stores.copies import CatchingUpStore, MovedNodes, NodesOfCopy, StoreOfCollections
from nudge_rag.stores.late_writes import are_noted

__all__ = [
    "drop_copy",
    "find_outdated",
    "find_unnoted",
    "labels_of",
    "record_as_in_place",
    "recover_copies",
    "require_atomic_switch",
    "require_catching_up",
    "require_copies",
    "require_not_switched",
    "settle_late_writes",
    "swap",
    "undo_switch",
    "write_all_beside",
    "write_beside",
]

logger = logging.getLogger(__name__)

# Before a copy is dropped that somebody has written to: so long he may not write again.
SECONDS_TO_WRITE_AGAIN = 0.5

STORES = (
    "SimpleVectorStore, InMemoryVectorStore, Chroma, FAISS, PostgreSQL, LanceDB, Parquet, and by an alias Milvus and"
    " Qdrant"
)


def require_copies(store: EmbeddingStore) -> SideBySideStore:
    """Return ``store``, if it can hold a copy of its vectors beside the live ones.

    Raises:
        ValueError: it does not.
    """
    require_store(store)
    if not store.capabilities.side_by_side or not isinstance(store, SideBySideStore):
        raise ValueError(
            f"this {store.name} store does not hold two versions of its vectors: use mode={IN_PLACE!r}. Side by side"
            f" works on {STORES}"
        )
    return store


def require_catching_up(store: EmbeddingStore) -> None:
    """Raise ValueError if the copies of ``store`` do not catch up with what is written to the live version."""
    if not isinstance(store, CatchingUpStore):
        raise ValueError(
            f"copies of this {store.name} store do not catch up with what is written to it, and all nodes are mapped:"
            f" use mode={IN_PLACE!r}"
        )


def require_atomic_switch(store: EmbeddingStore) -> None:
    """Raise ValueError if ``store`` swaps what is live and a copy in more steps than one."""
    if not store.capabilities.atomic_switch:
        raise ValueError(
            f"this {store.name} store cannot swap two versions in one step: while it switches, whoever opens it may"
            " find nothing; pass accept_gap=True (--accept-gap) to switch all the same"
        )


def require_not_switched(live: Version | None) -> None:
    """Raise PushError if ``live`` was made live by a switch: a push over it could not be switched back."""
    if live is not None and live.is_beside:
        raise PushError(
            f"version {live.name} was made live by switch(): undo it with rollback(), or keep it with drop_copies(),"
            " and push then; nothing was written"
        )


def write_beside(journal: Journal, version: Version) -> Written:
    """Copy all nodes, and write the moved vectors to the copy.

    What is written to the live version in the meantime is caught up with by `swap`; in a store whose copies cannot do
    that, both are compared with what they must hold.

    Returns:
        The nodes that were written, and those that somebody else has changed or deleted meanwhile.

    Raises:
        PushError: the store failed or did not keep the vectors, or was written to and cannot catch up; the copy is
            dropped.
    """
    store = journal.store
    _drop_waiting(journal)
    version.set_state(WRITING)
    found: object = None
    try:
        copy = require_copies(store).create_copy(version.label)
        if isinstance(store, CatchingUpStore):
            written = write_over(copy, version.ids, version.before, version.after)
        else:
            copy.replace(version.ids, version.after)
            written = Written(kept=list(version.ids))
            found = find_differences(store, copy, version.ids, version.before, version.after)
    except Exception as error:
        raise PushError(
            f"{store.name} failed while a copy was written ({error}): {_give_up(store, version)}"
        ) from error
    if found:
        raise PushError(f"the copy is not what it should be ({found}): {_give_up(store, version)}; push again")
    if written.refused:
        raise PushError(f"{store.name} did not keep the vectors as they were written: {_give_up(store, version)}")
    if not written.kept:
        _give_up(store, version)
        return written
    _commit(store, version)
    return written


def write_all_beside(journal: Journal, version: Version) -> int:
    """Make a copy with the vectors of a push to all nodes; gives their number.

    The copy is compared with the live version when it is switched to. What is written until then is caught up with, and
    mapped.

    Raises:
        PushError: the store failed; the copy is dropped.
    """
    store = journal.store
    _drop_waiting(journal)
    version.set_state(WRITING)
    try:
        n_nodes = fill_copy(journal, version)
    except Exception as error:
        raise PushError(
            f"{store.name} failed while a copy was written ({error}): {_give_up(store, version)}"
        ) from error
    if not n_nodes:
        _give_up(store, version)
        return 0
    version.manifest["n_nodes"] = n_nodes
    _commit(store, version)
    return n_nodes


def _drop_waiting(journal: Journal) -> None:
    for waiting in journal.versions:
        if waiting.is_beside and waiting.state == COMMITTED:
            settle_late_writes(journal, waiting)
            drop_copy(journal.store, waiting)
            waiting.retire()


def _commit(store: EmbeddingStore, version: Version) -> None:
    """Record that the copy of a version is ready."""
    try:
        version.set_state(VERIFIED)
    except JournalError as error:
        raise PushError(f"the journal cannot be written to ({error.__cause__}): {_give_up(store, version)}") from error
    version.set_state(COMMITTED)


def _give_up(store: EmbeddingStore, version: Version) -> str:
    try:
        drop_copy(store, version)
    except Exception as error:
        logger.warning("dropping the copy %s failed: %s", version.label, error)
        return "the live version is as it was; the next push drops the copy"
    with contextlib.suppress(OSError):  # the next call looks again
        version.set_state(ROLLED_BACK)
    return "the live version is as it was, the copy is dropped"


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
            n_caught_up = store.catch_up_and_switch(version.label, _moved(journal, version, state == COMMITTED), notes)
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


def _moved(journal: Journal, version: Version, is_live: bool) -> NodesOfCopy:
    """The nodes by which the live version and the copy differ, while the version is live or waits."""
    if version.is_derived:
        return journal.derivation(version).nodes(is_live=is_live)
    moved = MovedNodes(version.ids, version.before, version.after)
    return moved.reversed() if is_live else moved


def find_outdated(journal: Journal, version: Version) -> str:
    """Say why a version that waits is no longer one of the vectors that are live; empty if it is.

    Vectors that others have written since are caught up with. But those of a push or rollback of our own would undo
    this version node by node, and if no node has the vector that it was made from, nothing of it is left.
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
        return ""
    live = journal.live
    theirs = {} if live is None or live.number < version.number else dict(zip(live.ids, live.after, strict=True))
    ours = [
        place
        for place in changed
        if same_vectors(store, now[place], version.originals[rows[place]])
        or (version.ids[rows[place]] in theirs and same_vectors(store, now[place], theirs[version.ids[rows[place]]]))
    ]
    outdated = changed if len(changed) == len(rows) else ours
    return str(Differences(changed=[version.ids[rows[place]] for place in outdated])) if outdated else ""


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
    moved, notes = _moved(journal, version, is_live), LabelNotes(journal.storage, version.label)
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
    moved = _moved(journal, version, is_live)
    with reading(store, "a live version and a copy were compared"):
        copy = require_copies(store).open_copy(version.label)
        if not isinstance(moved, MovedNodes):
            return find_late(store, copy, moved)
        found = find_differences(store, copy, moved.ids, moved.live, moved.copy)
    found.only_live = []
    return found


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


def recover_copies(journal: Journal) -> list[str]:
    """Mend pushes that died: drop a copy that is not complete, record a switch as the store shows it.

    Returns:
        A sentence on each push that was mended.
    """
    told = []
    for version in journal.versions:
        if version.is_beside and version.state != ROLLED_BACK:
            done = _mend(journal, version)
            if done:
                told.append(f"push {version.name} beside {journal.name} had not finished; {done}")
    return told


def _mend(journal: Journal, version: Version) -> str:
    store = journal.store
    if version.state in (PREPARED, WRITING):
        drop_copy(store, version)
        version.set_state(ROLLED_BACK)
        return "its copy was not complete: it is dropped"
    if version.state == VERIFIED:
        version.set_state(COMMITTED)
        return "it had written everything: it is ready beside the live version"
    done = []
    if version.state == SWITCHING:
        labels_of(store)  # if it mends its own parts of a switch first, for the vectors to be read
        live = "it" if find_live(journal, version) == SWITCHED else "the version before"
        done.append(f"it died while it was switched: the store shows that {live} is live")
    if version.label not in labels_of(store):
        if version.state == SWITCHED and version.is_derived:
            done.append("its copy, which alone held the vectors from before, is no longer there: repair() says more")
        elif version.state == SWITCHED:
            record_as_in_place(journal, version)
            done.append("the version before is no longer beside it: it is kept as a push in place")
        else:
            version.retire()
            done.append("its copy is no longer there: nothing waits to be switched to")
    return "; ".join(done)


def undo_switch(journal: Journal, first: int) -> Version | None:
    """Switch back if a version with that number or a later one is live by a switch, and return it.

    If that would lose nodes, the version is made one that was pushed in place, for the caller to roll back as such.

    Raises:
        PushError: the store failed; a later call starts again.
        StoreError: likewise, while it was read.

    Warns:
        UserWarning: it is not switched back, and why.
    """
    for told in recover_copies(journal):
        warn_caller(told)
    live = next((one for one in journal.versions if one.is_beside and one.state == SWITCHED), None)
    if live is None or live.number < first:
        return None
    store = journal.store
    why: object = None
    if not isinstance(store, CatchingUpStore):
        with reading(store, "its versions were compared"):
            copy = require_copies(store).open_copy(live.label)
            why = find_differences(store, copy, live.ids, live.after, live.before)
    else:
        why = find_unnoted(journal, live)
    if live.is_derived:
        wait_for_absent(journal, live)
    if not why:
        try:
            swap(journal, live, COMMITTED)
        except PushError as error:
            if not isinstance(error.__cause__, StoreError):
                # A lost connection is no reason to write vectors back: a switch back, in one step, can do so later.
                raise
            # The database itself found that something would be lost; the version is still live.
            why = error
        else:
            _wait_for_absent(journal, live)
            return live
    record_as_in_place(journal, live)
    warn_caller(f"version {live.name} cannot be switched back without a loss ({why}): vectors are written back instead")
    return None


def _wait_for_absent(journal: Journal, version: Version) -> None:
    """Record nodes of a version that was switched back and that are away: they may be brought back as they were."""
    if version.is_derived:
        return
    with reading(journal.store, "nodes that are away were looked for"):
        present = journal.store.matching(version.ids, None)
    gone = [row for row, node_id in enumerate(version.ids) if node_id not in present]
    journal.away.add((version.ids[row], version.after[row], version.originals[row]) for row in gone)


def record_as_in_place(journal: Journal, version: Version) -> None:
    """Record a switched version as one that was pushed in place: rollback writes its originals back.

    Raises:
        JournalError: the originals are in its copy alone, and that is gone.
    """
    if version.is_derived:
        keep_originals(journal, version)
    version.manifest["mode"] = IN_PLACE
    version.set_state(COMMITTED)
    for one in journal.in_place:
        if one.number < version.number and one.state == COMMITTED:
            one.set_state(SUPERSEDED)


def labels_of(store: EmbeddingStore) -> list[str]:
    """List the labels of the versions beside the live one.

    Raises:
        StoreError: the store fails.
    """
    with reading(store, "the versions beside it were listed"):
        return require_copies(store).copy_labels()


def drop_copy(store: EmbeddingStore, version: Version) -> None:
    """Remove the version of that label, if it is still there.

    Raises:
        PushError: the store failed; the journal is as it was, and a later call drops the copy.
        StoreError: the store failed before anything was removed.
    """
    if version.label not in labels_of(store):
        return
    try:
        require_copies(store).drop_copy(version.label)
    except (ValueError, TypeError, StoreError):
        raise
    except Exception as error:
        raise PushError(
            f"{store.name} failed while the copy of version {version.name} was dropped ({error}): a later call drops it"
        ) from error
