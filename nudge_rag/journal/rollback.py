"""Undo pushes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from nudge_rag.common.caller import warn_caller
from nudge_rag.common.deprecation import renamed_argument
from nudge_rag.common.text import preview
from nudge_rag.errors import NudgeError, PushError
from nudge_rag.journal.copy_recovery import undo_switch
from nudge_rag.journal.journal import FRESH, PREVIOUS, Journal
from nudge_rag.journal.manifest import LIVE, REBUILT, SUPERSEDED
from nudge_rag.journal.packed_map import node_map_of
from nudge_rag.journal.restore import (
    RollbackReceipt,
    close,
    restore,
    restore_away,
    restore_ingested,
    restore_returned,
    version_before,
)
from nudge_rag.journal.returned import IsKnown, among
from nudge_rag.journal.versions import Version
from nudge_rag.stores.base import EmbeddingStore

__all__ = ["RollbackReceipt", "rollback"]


@renamed_argument("root", "versions")
def rollback(
    store: EmbeddingStore, versions: str | Path | None = None, *, version: str | None = None
) -> RollbackReceipt:
    """Give every nudged node of ``store`` its original vector back, bit for bit.

    Works from any process that opens the same store, also after a push that did not finish. Nodes that something else
    has changed since are left alone and listed. Nodes that are not in the store are listed, and remembered: if one
    comes back with the nudge, the next call undoes it. So it does with vectors of a version that had been rolled back
    before, if a restored backup, or a process that saves a file as it once had read it, brings them back.

    A version that was made live by `nudge_rag.switch` is switched back, in one step, and waits beside again; if nodes
    have been added or changed since, which that would lose, the vectors are written back instead.

    Args:
        store: the vector store.
        versions: the folder of the history; None for the store's own.
        version: undo this push and all later ones only: the store is as it was before it.

    Raises:
        ValueError: no version of that name, or the record of what was live before it is no longer kept; the message
            names versions that can be undone. Nothing was written.
        PushError: the store failed; a later call starts again.
        StoreError: the store failed while the live vectors and a copy were compared; a later call starts again.
        LockedError: another push or rollback is under way.
        JournalError: the history is elsewhere, or cannot be read or written to.
        CorruptArchiveError: the record is damaged; nothing was written.
    """
    with Journal.open(store, versions).lock() as journal:
        first = _number_of(journal, version)
        journal.ingested.check()
        if version is not None:
            _require_way_back(journal, first)
        back = undo_switch(journal, first)
        written_by_live = _find_written(journal.live)
        if version is not None:
            # One that could not be switched back counts as pushed in place from now on.
            _require_way_back(journal, first)
        with _one_transaction(journal):
            receipt = _roll_back_in_place(journal, None if version is None else first)
            if version is None:
                receipt = replace(receipt, restored=receipt.restored + restore_away(journal))
                receipt = _undo_returned(journal, receipt, written_by_live)
            if node_map_of(journal.live) is None:
                receipt = replace(receipt, restored=receipt.restored + restore_ingested(journal))
        if back is not None:
            # Nodes that a push in place had moved before are among those of the version that was switched back.
            restored = max(receipt.restored, back.n_nodes)
            receipt = replace(receipt, restored=restored, version=receipt.version or back.name)
        receipt = replace(receipt, live=None if journal.live is None else journal.live.name)
    if receipt.changed_since or receipt.missing:
        warn_caller(
            f"left alone: {len(receipt.changed_since)} node(s) changed since the push, {len(receipt.missing)} no longer"
            f" in the store: {preview([*receipt.changed_since, *receipt.missing])}"
        )
    return receipt


@contextmanager
def _one_transaction(journal: Journal) -> Iterator[None]:
    """The journal's transaction, of which it is told if the database does not begin or commit it."""
    is_inside = False
    try:
        with journal.transaction():
            is_inside = True
            yield
            is_inside = False
    except Exception as error:
        if is_inside or isinstance(error, NudgeError | ValueError | TypeError):
            raise
        raise PushError(
            f"{journal.store.name} did not begin or commit the transaction of a rollback; what is saved in"
            f" {journal.storage.location} stays: call rollback() when the store works again"
            f" ({type(error).__name__}: {error})"
        ) from error


def _number_of(journal: Journal, name: str | None) -> int:
    """Number of the oldest version that is to be undone; 0 for all."""
    if name is None:
        return 0
    version = next((one for one in journal.versions if one.name == name), None)
    if version is None:
        raise ValueError(f"there is no version {name!r}; there are {', '.join(one.name for one in journal.versions)}")
    return version.number


def _require_way_back(journal: Journal, first: int) -> None:
    """Raise ValueError if what was live before version ``first`` cannot be live again."""
    undone = _undone(journal, first)
    why = _why_not_alone(journal, undone[0]) if undone else None
    if why is None:
        return
    ways = [
        f"{later.name} (back to {earlier.name})"
        for earlier, later in pairwise(undone)
        if _why_not_alone(journal, later) is None
    ]
    others = f", rollback(version=...) {', '.join(ways)}" if ways else ""
    raise ValueError(
        f"version {undone[0].name} cannot be undone by itself: {why}. rollback() undoes all{others}; nothing was"
        " written"
    )


def _why_not_alone(journal: Journal, version: Version) -> str | None:
    """Say why the store cannot be as it was before ``version``; None if it can."""
    if version.is_thinned:
        return "of old versions only the manifest is kept"
    before, previous = version_before(journal, version), version.manifest.get(PREVIOUS)
    if version.manifest.get(FRESH) is True:
        return None
    if REBUILT in version.manifest:
        return "it is live again by a rollback of later ones, and what it had found itself is not kept"
    if before is None or previous not in (None, before.name):
        if before is None and _found_originals(version):
            # Recorded before there was a mark for it: nothing was nudged then.
            return None
        which = "the version before" if previous is None else f"version {previous}"
        return f"the record of {which}, which would be live again, is not kept"
    if before is not None and before.is_thinned and before.is_streamed:
        return f"version {before.name}, which would be live again, wrote all nodes, of which no record is kept"
    lost = before.manifest.get("details_lost", ()) if before.is_thinned else ()
    for kind, what in (("adapter", "map of queries"), ("node_map", "map of all nodes")):
        if kind in lost:
            return f"the {what} that belongs to version {before.name}, which would be live again, is not kept"
    return None


def _found_originals(version: Version) -> bool:
    return all(np.array_equal(block.vectors.before, block.vectors.originals) for block in version.parts())


def _undone(journal: Journal, first: int) -> list[Version]:
    return [one for one in journal.in_place if one.state in (*LIVE, SUPERSEDED) and one.number >= first]


def _find_written(live: Version | None) -> IsKnown:
    """Tell which nodes the live version wrote, also once its record is no longer there."""
    if live is None:
        return among(())
    if live.is_streamed:
        blocks = live.blocks
        blocks.knows([])  # reads the index
        return blocks.knows
    return among({*live.ids})


def _undo_returned(journal: Journal, receipt: RollbackReceipt, is_written: IsKnown) -> RollbackReceipt:
    """Undo nudges of versions that had been over before, on nodes that the live one had not written, or not as such."""
    left_alone = among({*receipt.changed_since, *receipt.missing})
    restored = restore_returned(journal, lambda asked: is_written(asked) & ~left_alone(asked))
    if not restored:
        return receipt
    changed = tuple(node_id for node_id in receipt.changed_since if node_id not in restored)
    name = receipt.version or min(restored.values(), key=int)
    return replace(receipt, restored=receipt.restored + len(restored), changed_since=changed, version=name)


def _oldest_name(version: Version) -> str:
    """Name the oldest version that a rollback to the originals undoes: the one before, if its record was pruned."""
    previous = None if version.manifest.get(FRESH) is True else version.manifest.get(PREVIOUS)
    return previous if isinstance(previous, str) else version.name


def _roll_back_in_place(journal: Journal, first: int | None) -> RollbackReceipt:
    undone, live = _undone(journal, first or 0), journal.live
    if live is None or live.name not in [one.name for one in undone]:
        return RollbackReceipt(0, None, rounding=journal.store.capabilities.rounding)
    receipt = restore(journal, [live] if first is None else undone, to_originals=first is None)
    if first is None:
        receipt = replace(receipt, version=_oldest_name(undone[0]))
    if not receipt.exact and journal.is_transactional:
        raise PushError(f"{journal.store.name} did not keep what was restored: nothing was changed")
    if receipt.exact:
        close(journal, [live] if first is None else undone, to_originals=first is None)
    return receipt
