"""Undo pushes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nudge_rag.common.caller import warn_caller
from nudge_rag.common.deprecation import renamed_argument
from nudge_rag.common.text import preview
from nudge_rag.errors import PushError
from nudge_rag.journal.copies import undo_switch
from nudge_rag.journal.journal import Journal
from nudge_rag.journal.manifest import LIVE, ROLLED_BACK, SUPERSEDED
from nudge_rag.journal.restore import RollbackReceipt, close, restore, restore_away
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
    comes back with the nudge, the next call undoes it. A version that was made live by `nudge_rag.switch` is switched
    back, in one step, and waits beside again; if nodes have been added or changed since, which that would lose, the
    vectors are written back instead.

    Args:
        store: the vector store.
        versions: the folder of the history; None for the store's own.
        version: undo this push and all later ones only: the store is as it was before it.

    Raises:
        ValueError: no version of that name, or one of which only the manifest is kept.
        PushError: the store failed; a later call starts again.
        StoreError: the store failed while the live vectors and a copy were compared; a later call starts again.
        LockedError: another push or rollback is under way.
        CorruptArchiveError: the record is damaged; nothing was written.
    """
    with Journal.open(store, versions).lock() as journal:
        first = _number_of(journal, version)
        back = undo_switch(journal, first)
        with journal.transaction():
            receipt = _roll_back_in_place(journal, None if version is None else first)
            if version is None:
                receipt = replace(receipt, restored=receipt.restored + restore_away(journal))
        if back is not None:
            # Nodes that a push in place had moved before are among those of the version that was switched back.
            restored = max(receipt.restored, len(back.ids))
            receipt = replace(receipt, restored=restored, version=receipt.version or back.name)
    if receipt.changed_since or receipt.missing:
        warn_caller(
            f"left alone: {len(receipt.changed_since)} node(s) changed since the push, {len(receipt.missing)} no longer"
            f" in the store: {preview([*receipt.changed_since, *receipt.missing])}"
        )
    return receipt


def _number_of(journal: Journal, name: str | None) -> int:
    """Number of the oldest version that is to be undone; 0 for all."""
    if name is None:
        return 0
    version = next((one for one in journal.versions if one.name == name), None)
    if version is None:
        raise ValueError(f"there is no version {name!r}; there are {', '.join(one.name for one in journal.versions)}")
    if version.is_thinned and version.state != ROLLED_BACK:
        whole = [one.name for one in journal.versions if not one.is_thinned]
        raise ValueError(
            f"version {name} cannot be undone by itself: of old versions only the manifest is kept. rollback() undoes"
            f" all, rollback(version=...) {', '.join(whole) or 'none'}"
        )
    before = [one for one in journal.in_place if one.state == SUPERSEDED and one.number < version.number]
    if before and before[-1].is_thinned and "adapter" in before[-1].manifest.get("details_lost", ()):
        raise ValueError(
            f"version {name} cannot be undone by itself: the map of queries that belongs to version {before[-1].name},"
            " which would be live again, is not kept. rollback() undoes all"
        )
    return version.number


def _roll_back_in_place(journal: Journal, first: int | None) -> RollbackReceipt:
    every = journal.in_place
    undone: list[Version] = [
        one for one in every if one.state in (*LIVE, SUPERSEDED) and (first is None or one.number >= first)
    ]
    live = journal.live
    if live is None or live.name not in [one.name for one in undone]:
        return RollbackReceipt(0, None, rounding=journal.store.capabilities.rounding)
    receipt = restore(journal, [live] if first is None else undone, to_originals=first is None)
    if not receipt.exact and journal.is_transactional:
        raise PushError(f"{journal.store.name} did not keep what was restored: nothing was changed")
    if receipt.exact:
        close(journal, [live] if first is None else undone, to_originals=first is None)
    return receipt
