"""Write a copy beside the live version.

The caller holds the lock of the journal.
"""

from __future__ import annotations

import contextlib
import logging

from nudge_rag.errors import JournalError, PushError
from nudge_rag.journal.differences import find_differences
from nudge_rag.journal.journal import Journal
from nudge_rag.journal.late_copies import settle_late_writes
from nudge_rag.journal.manifest import COMMITTED, ROLLED_BACK, VERIFIED, WRITING
from nudge_rag.journal.push_all import fill_copy
from nudge_rag.journal.side_by_side import drop_copy, require_copies
from nudge_rag.journal.versions import Version
from nudge_rag.journal.writes import Written, write_over
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.stores.copies import CatchingUpStore

__all__ = ["write_all_beside", "write_beside"]

logger = logging.getLogger(__name__)


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
