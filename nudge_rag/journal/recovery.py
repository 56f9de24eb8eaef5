"""Finish or undo pushes and switches of a process that died."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nudge_rag.common.caller import warn_caller
from nudge_rag.errors import PushError
from nudge_rag.journal.copy_recovery import recover_copies
from nudge_rag.journal.journal import Journal
from nudge_rag.journal.manifest import COMMITTED, LIVE, PREPARED, SUPERSEDED, VERIFIED
from nudge_rag.journal.push_all import undo_blocks
from nudge_rag.journal.versions import Version
from nudge_rag.journal.writes import undo_writes
from nudge_rag.stores.base import EmbeddingStore

__all__ = ["locked_journal", "recover"]


@contextmanager
def locked_journal(store: EmbeddingStore, versions: str | Path | None) -> Iterator[Journal]:
    """Lock the journal of ``store``, after pushes and switches that died were finished or undone.

    Raises:
        LockedError: a push or rollback is under way.
        PushError: the store failed while a push was undone; the next call tries again.
        CorruptArchiveError: a record is damaged.

    Warns:
        UserWarning: a push or switch had died; says how it was finished or undone.
    """
    with Journal.open(store, versions).lock() as journal:
        for told in recover(journal):
            warn_caller(told)
        yield journal


def recover(journal: Journal) -> list[str]:
    """Finish or undo pushes and switches that died; the caller holds the lock.

    A push that had not begun to write is dropped, one that was writing is undone, one whose vectors had all been read
    back is committed.

    Returns:
        A sentence on each push or switch that had died.

    Raises:
        PushError: the store failed while the push was undone; the next call tries again.
    """
    told = recover_copies(journal)
    _tidy(journal)
    live = next((version for version in reversed(journal.in_place) if version.state in LIVE), None)
    if live is None or live.state == COMMITTED:
        return told
    if live.state == VERIFIED:
        journal.commit(live)
        done = "it had written everything: it is committed now"
    elif live.state == PREPARED:
        journal.roll_back(live)
        done = "it had written nothing: it is dropped"
    else:
        done = f"it died while it wrote: {_undo(journal, live)} node(s) have the vectors again that they had before"
        journal.roll_back(live)
    return [*told, f"push {live.name} to {journal.name} had not finished; {done}"]


def _undo(journal: Journal, version: Version) -> int:
    """Count the nodes that hold their vector from before the push."""
    try:
        if version.is_streamed:
            restored, undone = undo_blocks(journal.store, version)
        else:
            restored, undone = undo_writes(journal.store, version.ids, version.before, version.after)
    except Exception as error:
        raise PushError(
            f"{journal.store.name} failed while vectors were restored; what is saved in {version.place} stays: call"
            f" rollback() when the store works again ({type(error).__name__}: {error})"
        ) from error
    if not undone:
        raise PushError(f"version {version.name} died and cannot be undone: rollback() restores the originals")
    return restored


def _tidy(journal: Journal) -> None:
    """Bring states into line that a process left when it died between two of them; the store is as it should be."""
    every = journal.in_place
    live = max((version.number for version in every if version.state in LIVE), default=-1)
    committed = max((version.number for version in every if version.state == COMMITTED), default=-1)
    for version in every:
        if version.state == COMMITTED and version.number < committed:
            version.set_state(SUPERSEDED)
        elif version.state == SUPERSEDED and version.number > live:
            version.retire()
