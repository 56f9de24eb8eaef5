"""Mend copies and switches of a process that died, and switch back.

The caller holds the lock of the journal.
"""

from __future__ import annotations

from nudge_rag.common.caller import warn_caller
from nudge_rag.errors import PushError
from nudge_rag.journal.differences import find_differences
from nudge_rag.journal.journal import Journal
from nudge_rag.journal.late_copies import find_unnoted
from nudge_rag.journal.manifest import (
    COMMITTED,
    IN_PLACE,
    PREPARED,
    ROLLED_BACK,
    SUPERSEDED,
    SWITCHED,
    SWITCHING,
    VERIFIED,
    WRITING,
)
from nudge_rag.journal.push_all import keep_originals, wait_for_absent
from nudge_rag.journal.side_by_side import drop_copy, labels_of, require_copies
from nudge_rag.journal.swapping import find_live, swap
from nudge_rag.journal.versions import Version
from nudge_rag.stores.access import reading
from nudge_rag.stores.base import StoreError
from nudge_rag.stores.copies import CatchingUpStore

__all__ = ["record_as_in_place", "recover_copies", "undo_switch"]


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
