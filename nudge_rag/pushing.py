"""Push moved vectors to a store as one transaction, and undo it: originals first, one writer, everything read back."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nudge_rag.arrays import FloatArray
from nudge_rag.journal import (
    COMMITTED,
    DEFAULT_VERSIONS,
    LIVE,
    PREPARED,
    ROLLED_BACK,
    SUPERSEDED,
    VERIFIED,
    WRITING,
    Version,
    journal_folder,
    live_version,
    record_version,
    same_vectors,
    versions,
)
from nudge_rag.locks import locked
from nudge_rag.rivals import reading
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.stores.checks import check_replacement

__all__ = ["PushError", "PushReceipt", "RollbackReceipt", "push_vectors", "recover", "rollback"]

logger = logging.getLogger(__name__)


class PushError(RuntimeError):
    """Raised when a store did not take the vectors, or must not; says what state it was left in."""


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
) -> PushReceipt:
    """Write ``vectors`` for ``ids``; nodes of an earlier push that are not among them get their originals back.

    Originals are on disk before the first write, every vector is read back after it, and one push at a time works on a
    store (of those that share ``root``). An earlier push that died half-way is finished or undone first.

    Raises:
        TypeError, ValueError: ids given twice, vectors that do not fit or are not finite.
        PushError: the store failed or did not keep what was written (the message says what it holds now), or it holds a
            nudge that was made for another embedding model or dimension.
        StoreError: the store failed while it was read; nothing was written.
        LockedError: another push or rollback is under way.
        BrokenFolderError: the record of an earlier push is damaged.
    """
    names, moved = check_replacement(ids, vectors, dimension=None, dtype=store.capabilities.dtype)
    check_replacement(ids, originals, dimension=moved.shape[1], dtype=store.capabilities.dtype)
    with locked(journal_folder(store, root), f"a push or rollback on {store.key}"):
        recover(store, root)
        live = live_version(store, root)
        _check_fits(live, (details or {}).get("model"), moved.shape[1])
        with reading(store, "the nodes to push were read"):
            plan, changed, missing = _plan(store, names, np.asarray(originals), moved, live)
        for left, why in ((changed, "changed since they were read"), (missing, "are no longer in the store")):
            if left:
                warnings.warn(f"{len(left)} node(s) {why} and are left alone: {_some(left)}", stacklevel=4)
        if not plan.ids:
            return PushReceipt(False, 0, None, "no node is left to write", changed, missing)
        version = record_version(store, plan.ids, plan.originals, plan.before, plan.after, Path(root), details or {})
        _write_checked(store, version)
        _commit(version, live)
    logger.info("pushed %d vectors to %s as version %s", len(plan.ids), store.key, version.name)
    return PushReceipt(True, len(plan.ids), version.name, f"pushed as version {version.name}", changed, missing)


def rollback(
    store: EmbeddingStore, root: str | Path = DEFAULT_VERSIONS, *, version: str | None = None
) -> RollbackReceipt:
    """Give every nudged node of ``store`` its original vector back, bit for bit.

    Works from any process that opens the same store and ``root``, also after a push that did not finish. Nodes that
    something else has changed since, or deleted, are left alone and listed.

    Args:
        store: the vector store.
        root: the folder of the journal.
        version: undo this push and all later ones only: the store is as it was before it.

    Raises:
        ValueError: no version of that name.
        PushError: the store failed; a later call starts again.
        LockedError: another push or rollback is under way.
        BrokenFolderError: the record is damaged; nothing was written.
    """
    with locked(journal_folder(store, root), f"a push or rollback on {store.key}"):
        every = versions(store, root)
        first = 0 if version is None else next((one.number for one in every if one.name == version), None)
        if first is None:
            raise ValueError(f"there is no version {version!r}; there are {', '.join(one.name for one in every)}")
        undone = [one for one in every if one.state in (*LIVE, SUPERSEDED) and one.number >= first]
        live = live_version(store, root)
        if live is None or live.name not in [one.name for one in undone]:
            return RollbackReceipt(0, None, rounding=store.capabilities.rounding)
        receipt = _restore(store, [live] if version is None else undone, to_originals=version is None)
        if receipt.exact:
            _close(every, undone, to_originals=version is None)
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
        PushError: the store failed while the push was undone; the next call tries again.

    Warns:
        UserWarning: what was found, and what was done.
    """
    every = versions(store, root)
    _tidy(every)
    live = next((version for version in reversed(every) if version.state in LIVE), None)
    if live is None or live.state == COMMITTED:
        return
    before = next((one for one in reversed(every) if one.state == COMMITTED and one.number < live.number), None)
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


def _tidy(every: Sequence[Version]) -> None:
    """Bring states into line that a process left when it died between two of them; the store is as it should be."""
    live = max((one.number for one in every if one.state in LIVE), default=-1)
    committed = max((one.number for one in every if one.state == COMMITTED), default=-1)
    for one in every:
        if one.state == COMMITTED and one.number < committed:
            one.set_state(SUPERSEDED)
        elif one.state == SUPERSEDED and one.number > live:
            one.set_state(ROLLED_BACK)


def _check_fits(live: Version | None, model: str | None, dimension: int) -> None:
    if live is None:
        return
    made, advice = f"the store holds a nudge (version {live.name}) for", "roll back first; nothing was written"
    if live.model is not None and model is not None and live.model != model:
        raise PushError(f"{made} the embedding model {live.model!r}, this one is for {model!r}: {advice}")
    if live.dimension != dimension:
        raise PushError(f"{made} dimension {live.dimension}, this one has {dimension}: {advice}")


def _commit(version: Version, previous: Version | None) -> None:
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
    return RollbackReceipt(len(ours), name, changed, missing, exact, store.capabilities.rounding)


def _close(every: Sequence[Version], undone: Sequence[Version], *, to_originals: bool) -> None:
    """Record a rollback: newest first, so that a crash in between leaves a version that is still to be rolled back."""
    kept = [one for one in every if one.state in (SUPERSEDED, COMMITTED) and one.number < undone[0].number]
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
        restored = same_vectors(store, store.read(version.ids), version.before)
        if not restored:
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
