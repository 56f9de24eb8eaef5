"""Push moved vectors to a store as one transaction, and undo it: originals first, one writer, everything read back."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nudge_rag.arrays import FloatArray
from nudge_rag.journal import (
    COMMITTED,
    DEFAULT_VERSIONS,
    IN_PLACE,
    LIVE,
    PREPARED,
    ROLLED_BACK,
    SIDE_BY_SIDE,
    SUPERSEDED,
    VERIFIED,
    WRITING,
    PushError,
    Version,
    live_version,
    record_version,
    same_vectors,
    versions,
)
from nudge_rag.locks import locked
from nudge_rag.side_by_side import needs_side_by_side, recover_beside, refuse_while_switched, undo_switch, write_beside
from nudge_rag.stores.base import EmbeddingStore

__all__ = ["PushError", "PushReceipt", "RollbackReceipt", "check_mode", "push_vectors", "recover", "rollback"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PushReceipt:
    """What a push did.

    Attributes:
        pushed: whether anything was written.
        written: number of vectors written.
        version: the version's name, None when nothing was pushed.
        reason: why nothing was pushed, or what was pushed.
        changed_since: ids left alone because their vectors changed since they were read.
        missing: ids left alone because they are no longer in the store.
    """

    pushed: bool
    written: int
    version: str | None
    reason: str
    changed_since: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


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
    changed_since: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    exact: bool = True
    rounding: float = 0.0


def push_vectors(
    store: EmbeddingStore,
    ids: Sequence[str],
    originals: FloatArray,
    vectors: FloatArray,
    *,
    root: str | Path = DEFAULT_VERSIONS,
    details: Mapping[str, Any] | None = None,
    mode: str = IN_PLACE,
) -> PushReceipt:
    """Write ``vectors`` for ``ids``; nodes of an earlier push that are not among them get their originals back.

    Originals are on disk before the first write, every vector is read back after it, and one push at a time works on a
    store (of those that share ``root``). An earlier push that died half-way is finished or undone first.

    With ``mode="side-by-side"`` they are written to a copy of all nodes beside the live version, which stays as it is
    until `nudge_rag.switch`; a version that waited there before is dropped.

    Raises:
        ValueError: another mode, or a store that holds no two versions side by side.
        PushError: the store failed or did not keep what was written (the message says what it holds now), or it holds a
            nudge that was made for another embedding model.
        LockedError: another push or rollback is under way.
        BrokenFolderError: the record of an earlier push is damaged.
    """
    check_mode(store, mode)
    with locked(Path(root) / store.key, f"a push or rollback on {store.key}"):
        recover(store, root)
        live = live_version(store, root)
        refuse_while_switched(live)
        _check_model(live, (details or {}).get("model"))
        plan, changed, missing = _plan(store, ids, originals, vectors, live)
        for left, why in ((changed, "changed since they were read"), (missing, "are no longer in the store")):
            if left:
                warnings.warn(f"{len(left)} node(s) {why} and are left alone: {_some(left)}", stacklevel=4)
        if not plan.ids:
            return PushReceipt(False, 0, None, "no node is left to write", changed, missing)
        version = record_version(
            store, plan.ids, plan.originals, plan.before, plan.after, Path(root), details or {}, mode
        )
        if mode == SIDE_BY_SIDE:
            write_beside(store, version, versions(store, root))
        else:
            _write_checked(store, version)
            _commit(version, live)
    where = "beside the live version, for switch() to make live" if mode == SIDE_BY_SIDE else ""
    logger.info("pushed %d vectors to %s as version %s %s", len(plan.ids), store.key, version.name, where)
    reason = f"pushed as version {version.name} {where}".rstrip()
    return PushReceipt(True, len(plan.ids), version.name, reason, changed, missing)


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
        LockedError: another push or rollback is under way.
        BrokenFolderError: the record is damaged; nothing was written.
    """
    with locked(Path(root) / store.key, f"a push or rollback on {store.key}"):
        names = [one.name for one in versions(store, root)]
        if version is not None and version not in names:
            raise ValueError(f"there is no version {version!r}; there are {', '.join(names)}")
        back = undo_switch(store, root, version)
        receipt = _roll_back_in_place(store, root, version)
        if back is not None:
            # What a push in place had moved before is among the nodes of the version that was switched back.
            restored = max(receipt.restored, len(back.ids))
            receipt = replace(receipt, restored=restored, version=receipt.version or back.name)
    if receipt.changed_since or receipt.missing:
        warnings.warn(
            f"left alone: {len(receipt.changed_since)} node(s) changed since the push, {len(receipt.missing)} no longer"
            f" in the store: {_some([*receipt.changed_since, *receipt.missing])}",
            stacklevel=2,
        )
    return receipt


def recover(store: EmbeddingStore, root: str | Path) -> None:
    """Finish or undo a push that died; the caller holds the lock.

    One that had not begun to write is dropped, one that was writing is undone, one whose vectors had all been read back
    is committed.

    Raises:
        PushError: the store failed while the push was undone.

    Warns:
        UserWarning: what was found, and what was done.
    """
    recover_beside(store, root)
    every = [version for version in versions(store, root) if not version.is_beside]
    live = next((version for version in reversed(every) if version.is_live), None)
    if live is None or live.state == COMMITTED:
        return
    before = next((one for one in reversed(every) if one.state == COMMITTED and one.name < live.name), None)
    if live.state == VERIFIED:
        _commit(live, before)
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
    warnings.warn(f"push {live.name} to {store.key} had not finished; {done}", stacklevel=5)


def check_mode(store: EmbeddingStore, mode: str) -> None:
    """Raise ValueError unless ``mode`` is one of the two, and one that ``store`` has."""
    if mode not in (IN_PLACE, SIDE_BY_SIDE):
        raise ValueError(f"mode must be {IN_PLACE!r} or {SIDE_BY_SIDE!r}, got {mode!r}")
    if mode == SIDE_BY_SIDE:
        needs_side_by_side(store)


def _check_model(live: Version | None, model: str | None) -> None:
    if live is not None and live.model is not None and model is not None and live.model != model:
        raise PushError(
            f"the store holds a nudge (version {live.name}) for the embedding model {live.model!r}, this one is for"
            f" {model!r}: roll back first; nothing was written"
        )


def _commit(version: Version, previous: Version | None) -> None:
    version.set_state(COMMITTED)
    if previous is not None:
        previous.set_state(SUPERSEDED)


def _roll_back_in_place(store: EmbeddingStore, root: str | Path, version: str | None) -> RollbackReceipt:
    every = [one for one in versions(store, root) if not one.is_beside]
    undone = [one for one in every if one.state in (*LIVE, SUPERSEDED) and (version is None or one.name >= version)]
    live = live_version(store, root)
    if live is None or live.name not in [one.name for one in undone]:
        return RollbackReceipt(0, None, rounding=store.capabilities.rounding)
    receipt = _restore(store, [live] if version is None else undone, to_originals=version is None)
    if receipt.exact:
        _close(every, undone, to_originals=version is None)
    return receipt


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
    current, missing = _read_present(store, list(wanted))
    ours = []
    for node_id, vector in current.items():
        version, at = newest[node_id]
        if version.holds(store, vector, at):
            ours.append(node_id)
    changed = tuple(node_id for node_id in current if node_id not in set(ours))
    exact = True
    if ours:
        vectors = np.array([wanted[node_id] for node_id in ours], dtype=store.capabilities.dtype)
        store.replace(ours, vectors)
        exact = same_vectors(store, store.read(ours), vectors)
    return RollbackReceipt(len(ours), undone[0].name, changed, missing, exact, store.capabilities.rounding)


def _close(every: Sequence[Version], undone: Sequence[Version], *, to_originals: bool) -> None:
    """Record a rollback: newest first, so that a crash in between leaves a version that is still to be rolled back."""
    names = [version.name for version in undone]
    kept = [one for one in every if one.state == SUPERSEDED and one.name < names[0]]
    if kept and not to_originals:
        kept[-1].set_state(COMMITTED)
    for version in reversed(undone):
        version.set_state(ROLLED_BACK)


@dataclass(frozen=True)
class _Plan:
    ids: list[str]
    originals: FloatArray
    before: FloatArray
    after: FloatArray


def _plan(
    store: EmbeddingStore, ids: Sequence[str], originals: FloatArray, vectors: FloatArray, live: Version | None
) -> tuple[_Plan, tuple[str, ...], tuple[str, ...]]:
    dtype = np.dtype(store.capabilities.dtype)
    targets = {n: (o, v) for n, o, v in zip(ids, originals.astype(dtype), store.as_stored(vectors), strict=True)}
    live_at = {} if live is None else {node_id: at for at, node_id in enumerate(live.ids)}
    current, gone = _read_present(store, [*targets, *(node_id for node_id in live_at if node_id not in targets)])
    rows, changed = [], []
    for node_id, now in current.items():
        at = live_at.get(node_id)
        ours = live is not None and at is not None and live.holds(store, now, at)
        original = live.originals[at] if ours and live is not None and at is not None else now
        wanted = targets.get(node_id)
        if wanted is None:
            # Nudged by the push before this one and by this one no longer: back to its original.
            if ours:
                rows.append((node_id, original, now, original))
        elif same_vectors(store, original, wanted[0]):
            rows.append((node_id, original, now, wanted[1]))
        else:
            changed.append(node_id)
    missing = tuple(node_id for node_id in gone if node_id in targets)
    parts = [np.array([row[part] for row in rows], dtype=dtype) for part in (1, 2, 3)]
    return _Plan([row[0] for row in rows], *parts), tuple(changed), missing


def _read_present(store: EmbeddingStore, ids: Sequence[str]) -> tuple[dict[str, FloatArray], tuple[str, ...]]:
    present = store.matching(ids, None)
    found = [node_id for node_id in ids if node_id in present]
    return dict(zip(found, store.read(found), strict=True)), tuple(n for n in ids if n not in present)


def _write_checked(store: EmbeddingStore, version: Version) -> None:
    version.set_state(WRITING)
    try:
        store.replace(version.ids, version.after)
        kept = same_vectors(store, store.read(version.ids), version.after)
    except Exception as error:
        raise PushError(f"{store.name} failed while vectors were written: {_undo(store, version)}") from error
    if not kept:
        raise PushError(f"{store.name} did not keep the vectors as they were written: {_undo(store, version)}")
    version.set_state(VERIFIED)


def _undo(store: EmbeddingStore, version: Version) -> str:
    try:
        store.replace(version.ids, version.before)
        restored = same_vectors(store, store.read(version.ids), version.before)
    except Exception as error:
        logger.warning("undoing version %s failed: %s", version.name, error)
        restored = False
    if not restored:
        return f"some may be there; rollback() restores the originals saved in {version.folder}"
    version.set_state(ROLLED_BACK)
    return "the vectors that were there before are back"


def _some(ids: Sequence[str]) -> str:
    return ", ".join(repr(node_id) for node_id in ids[:5]) + (" ..." if len(ids) > 5 else "")
