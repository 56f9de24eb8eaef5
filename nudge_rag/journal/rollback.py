"""Undo pushes: a rollback, and putting right what a push that died left behind."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.lock import locked
from nudge_rag.common.text import preview
from nudge_rag.journal.copies import recover_beside, undo_switch
from nudge_rag.journal.manifest import COMMITTED, LIVE, PREPARED, ROLLED_BACK, SUPERSEDED, VERIFIED
from nudge_rag.journal.versions import (
    DEFAULT_VERSIONS,
    PushError,
    Version,
    journal_folder,
    live_version,
    versions,
)
from nudge_rag.stores.access import read_present, write_and_compare
from nudge_rag.stores.base import EmbeddingStore

__all__ = ["RollbackReceipt", "commit", "describe_left_alone", "recover", "rollback"]


@dataclass(frozen=True)
class RollbackReceipt:
    """What a rollback did.

    Attributes:
        restored: number of nodes whose earlier vectors are in the store again.
        version: the oldest version rolled back, None when there was none.
        changed_since: ids left alone because something else has changed their vectors since the push.
        missing: ids no longer in the store.
        exact: whether every restored vector was read back and equals the one wanted: bit for bit, or to the store's own
            rounding where it has one.
        rounding: of the store; 0 where it keeps every bit.
    """

    restored: int
    version: str | None
    changed_since: tuple[str, ...] = field(default=(), repr=False)
    missing: tuple[str, ...] = field(default=(), repr=False)
    exact: bool = True
    rounding: float = 0.0

    def __str__(self) -> str:
        if self.version is None:
            return "Nothing was rolled back: no push is live."
        how = "to the store's rounding" if self.rounding else "bit for bit"
        done = f"{self.restored:,} vectors are as they were before version {self.version}, {how}."
        if not self.exact:
            done = f"{self.restored:,} vectors were written back, but the store did not keep them exactly."
        return " ".join([done, *describe_left_alone(self.changed_since, self.missing)])


def describe_left_alone(changed_since: Sequence[str], missing: Sequence[str]) -> list[str]:
    """Return a sentence on each kind of node that a push or rollback left alone, with at most five ids."""
    kinds = ((changed_since, "changed since and are left alone"), (missing, "are no longer in the store"))
    return [f"{len(ids):,} node(s) {what}: {preview(ids)}." for ids, what in kinds if ids]


def rollback(
    store: EmbeddingStore, root: str | Path = DEFAULT_VERSIONS, *, version: str | None = None
) -> RollbackReceipt:
    """Give every nudged node of ``store`` its original vector back, bit for bit.

    Works from any process that opens the same store and ``root``, also after a push that did not finish. Nodes that
    something else has changed since, or deleted, are left alone and listed. A version that was made live by
    `nudge_rag.switch` is switched back, in one step, and waits beside again; where nodes have been added or changed
    since, which that would lose, the vectors are written back instead.

    Args:
        store: the vector store.
        root: the folder of the journal.
        version: undo this push and all later ones only: the store is as it was before it.

    Raises:
        ValueError: no version of that name.
        PushError: the store failed; a later call starts again.
        StoreError: the store failed while two versions were compared; a later call starts again.
        LockedError: another push or rollback is under way.
        CorruptArchiveError: the record is damaged; nothing was written.
    """
    journal = journal_folder(store, root)
    with locked(journal, f"a push or rollback on {journal.name}"):
        every = versions(store, root)
        first = 0 if version is None else next((one.number for one in every if one.name == version), None)
        if first is None:
            raise ValueError(f"there is no version {version!r}; there are {', '.join(one.name for one in every)}")
        back = undo_switch(store, root, first)
        receipt = _roll_back_in_place(store, root, None if version is None else first)
        if back is not None:
            # What a push in place had moved before is among the nodes of the version that was switched back.
            restored = max(receipt.restored, len(back.ids))
            receipt = replace(receipt, restored=restored, version=receipt.version or back.name)
    if receipt.changed_since or receipt.missing:
        warnings.warn(
            f"left alone: {len(receipt.changed_since)} node(s) changed since the push, {len(receipt.missing)} no longer"
            f" in the store: {preview([*receipt.changed_since, *receipt.missing])}",
            stacklevel=2,
        )
    return receipt


def _roll_back_in_place(store: EmbeddingStore, root: str | Path, first: int | None) -> RollbackReceipt:
    every = [one for one in versions(store, root) if not one.is_beside]
    undone = [one for one in every if one.state in (*LIVE, SUPERSEDED) and (first is None or one.number >= first)]
    live = live_version(store, root)
    if live is None or live.name not in [one.name for one in undone]:
        return RollbackReceipt(0, None, rounding=store.capabilities.rounding)
    receipt = _restore(store, [live] if first is None else undone, to_originals=first is None)
    if receipt.exact:
        _close(every, undone, to_originals=first is None)
    return receipt


def recover(store: EmbeddingStore, root: str | Path) -> None:
    """Finish or undo a push that died; the caller holds the lock.

    One that had not begun to write is dropped, one that was writing is undone, one whose vectors had all been read back
    is committed.

    Raises:
        PushError: the store failed while the push was undone; the next call tries again.

    Warns:
        UserWarning: what was found, and what was done.
    """
    recover_beside(store, root)
    every = [version for version in versions(store, root) if not version.is_beside]
    _tidy(every)
    live = next((version for version in reversed(every) if version.state in LIVE), None)
    if live is None or live.state == COMMITTED:
        return
    before = next((one for one in reversed(every) if one.state == COMMITTED and one.number < live.number), None)
    if live.state == VERIFIED:
        commit(live, before)
        done = "it had written everything: it is committed now"
    elif live.state == PREPARED:
        live.set_state(ROLLED_BACK)
        done = "it had written nothing: it is dropped"
    else:
        receipt = _restore(store, [live], to_originals=False)
        if not receipt.exact:
            raise PushError(f"version {live.name} died and cannot be undone: rollback() restores the originals")
        live.set_state(ROLLED_BACK)
        done = f"it died while it wrote: {receipt.restored} node(s) have the vectors again that they had before"
    warnings.warn(f"push {live.name} to {live.folder.parent.name} had not finished; {done}", stacklevel=5)


def _tidy(every: Sequence[Version]) -> None:
    """Bring states into line that a process left when it died between two of them; the store is as it should be."""
    live = max((one.number for one in every if one.state in LIVE), default=-1)
    committed = max((one.number for one in every if one.state == COMMITTED), default=-1)
    for one in every:
        if one.state == COMMITTED and one.number < committed:
            one.set_state(SUPERSEDED)
        elif one.state == SUPERSEDED and one.number > live:
            one.set_state(ROLLED_BACK)


def commit(version: Version, previous: Version | None) -> None:
    """Record that ``version`` is the live one, in place of ``previous``."""
    version.set_state(COMMITTED)
    if previous is not None:
        previous.set_state(SUPERSEDED)


def _restore(store: EmbeddingStore, undone: Sequence[Version], *, to_originals: bool) -> RollbackReceipt:
    """Put back what was there before the oldest of these versions, or the originals of the newest."""
    wanted: dict[str, FloatArray] = {}
    newest: dict[str, tuple[Version, int]] = {}
    for version in reversed(undone):
        for at, node_id in enumerate(version.ids):
            newest.setdefault(node_id, (version, at))
            # A node that was embedded again between two pushes goes back to that, and no further.
            if node_id not in wanted or version.holds(store, wanted[node_id], at):
                wanted[node_id] = (version.originals if to_originals else version.before)[at]
    try:
        return _put_back(store, wanted, newest, undone[0].name)
    except Exception as error:
        raise PushError(
            f"{store.name} failed while vectors were restored; what is saved in {undone[-1].folder} stays: call"
            f" rollback() when the store works again ({type(error).__name__}: {error})"
        ) from error


def _put_back(
    store: EmbeddingStore, wanted: Mapping[str, FloatArray], newest: Mapping[str, tuple[Version, int]], name: str
) -> RollbackReceipt:
    current, missing = read_present(store, list(wanted))
    ours = []
    for node_id, vector in current.items():
        version, at = newest[node_id]
        if version.holds(store, vector, at):
            ours.append(node_id)
    changed = tuple(node_id for node_id in current if node_id not in set(ours))
    exact = True
    if ours:
        vectors = np.array([wanted[node_id] for node_id in ours], dtype=store.capabilities.dtype)
        exact = write_and_compare(store, ours, vectors)
    return RollbackReceipt(len(ours), name, changed, missing, exact, store.capabilities.rounding)


def _close(every: Sequence[Version], undone: Sequence[Version], *, to_originals: bool) -> None:
    """Record a rollback: newest first, so that a crash in between leaves a version that is still to be rolled back."""
    kept = [one for one in every if one.state in (SUPERSEDED, COMMITTED) and one.number < undone[0].number]
    if kept and not to_originals:
        kept[-1].set_state(COMMITTED)
    for version in reversed(undone):
        version.set_state(ROLLED_BACK)
