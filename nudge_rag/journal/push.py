"""Push moved vectors to a store as one transaction: originals first, one writer, everything read back."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.lock import locked
from nudge_rag.common.text import preview
from nudge_rag.journal.copies import require_copies, require_not_switched, write_beside
from nudge_rag.journal.manifest import IN_PLACE, ROLLED_BACK, SIDE_BY_SIDE, VERIFIED, WRITING
from nudge_rag.journal.rollback import commit, describe_left_alone, recover
from nudge_rag.journal.versions import (
    DEFAULT_VERSIONS,
    JournalError,
    PushError,
    Version,
    journal_folder,
    live_version,
    record_version,
    versions,
)
from nudge_rag.stores.access import read_present, reading, same_vectors, write_and_compare
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.stores.checks import check_replacement

__all__ = ["PushError", "PushReceipt", "check_mode", "push_vectors"]

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
    changed_since: tuple[str, ...] = field(default=(), repr=False)
    missing: tuple[str, ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        done = f"{self.written:,} vectors {self.reason}." if self.pushed else f"Nothing was pushed: {self.reason}."
        return " ".join([done, *describe_left_alone(self.changed_since, self.missing)])


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
        TypeError, ValueError: ids given twice, vectors that do not fit or are not finite; another mode, or a store that
            holds no two versions side by side.
        PushError: the store failed or did not keep what was written (the message says what it holds now), or it holds a
            nudge that was made for another embedding model or dimension.
        StoreError: the store failed while it was read; nothing was written.
        LockedError: another push or rollback is under way.
        CorruptArchiveError: the record of an earlier push is damaged.
    """
    check_mode(store, mode)
    names, moved = check_replacement(ids, vectors, dimension=None, dtype=store.capabilities.dtype)
    check_replacement(ids, originals, dimension=moved.shape[1], dtype=store.capabilities.dtype)
    journal = journal_folder(store, root)
    with locked(journal, f"a push or rollback on {journal.name}"):
        recover(store, root)
        live = live_version(store, root)
        require_not_switched(live)
        _check_fits(live, (details or {}).get("model"), moved.shape[1])
        with reading(store, "the nodes to push were read"):
            plan, changed, missing = _plan(store, names, np.asarray(originals), moved, live)
        for left, why in ((changed, "changed since they were read"), (missing, "are no longer in the store")):
            if left:
                warnings.warn(f"{len(left)} node(s) {why} and are left alone: {preview(left)}", stacklevel=4)
        if not plan.ids:
            return PushReceipt(False, 0, None, "no node is left to write", changed, missing)
        version = record_version(
            store, plan.ids, plan.originals, plan.before, plan.after, Path(root), details or {}, mode
        )
        if mode == SIDE_BY_SIDE:
            write_beside(store, version, versions(store, root))
        else:
            _write_checked(store, version)
            commit(version, live)
    where = " beside the live version, for switch() to make live" if mode == SIDE_BY_SIDE else ""
    logger.info("pushed %d vectors to %s as version %s%s", len(plan.ids), journal.name, version.name, where)
    return PushReceipt(True, len(plan.ids), version.name, f"pushed as version {version.name}{where}", changed, missing)


def check_mode(store: EmbeddingStore, mode: str) -> None:
    """Raise ValueError unless ``mode`` is one of the two, and one that ``store`` has."""
    if mode not in (IN_PLACE, SIDE_BY_SIDE):
        raise ValueError(f"mode must be {IN_PLACE!r} or {SIDE_BY_SIDE!r}, got {mode!r}")
    if mode == SIDE_BY_SIDE:
        require_copies(store)


def _check_fits(live: Version | None, model: str | None, dimension: int) -> None:
    if live is None:
        return
    made, advice = f"the store holds a nudge (version {live.name}) for", "roll back first; nothing was written"
    if live.model is not None and model is not None and live.model != model:
        raise PushError(f"{made} the embedding model {live.model!r}, this one is for {model!r}: {advice}")
    if live.dimension != dimension:
        raise PushError(f"{made} dimension {live.dimension}, this one has {dimension}: {advice}")


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
    current, gone = read_present(store, [*targets, *(node_id for node_id in live_at if node_id not in targets)])
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


def _write_checked(store: EmbeddingStore, version: Version) -> None:
    version.set_state(WRITING)
    try:
        kept = write_and_compare(store, version.ids, version.after)
    except Exception as error:
        raise PushError(f"{store.name} failed while vectors were written: {_undo(store, version)}") from error
    if not kept:
        raise PushError(f"{store.name} did not keep the vectors as they were written: {_undo(store, version)}")
    try:
        version.set_state(VERIFIED)
    except JournalError as error:
        raise PushError(f"the journal cannot be written to ({error.__cause__}): {_undo(store, version)}") from error


def _undo(store: EmbeddingStore, version: Version) -> str:
    try:
        restored = same_vectors(store, store.read(version.ids), version.before)
        if not restored:
            restored = write_and_compare(store, version.ids, version.before)
    except Exception as error:
        logger.warning("undoing version %s failed: %s", version.name, error)
        restored = False
    if not restored:
        return f"some may be there; rollback() restores the originals saved in {version.folder}"
    with contextlib.suppress(OSError):  # the next call looks again
        version.set_state(ROLLED_BACK)
    return "the vectors that were there before are back"
