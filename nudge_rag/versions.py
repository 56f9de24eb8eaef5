"""Push moved vectors to a store, originals first; roll back to them bit for bit, from any process.

Layout: ``<versions>/<store key>/<number>/{manifest.json, arrays.npz}``. The arrays hold, for every node of the push,
its original vector, the one that was there before, and the one written.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from nudge_rag.arrays import FloatArray
from nudge_rag.folders import MANIFEST, BrokenFolderError, read_folder, write_folder, write_manifest
from nudge_rag.stores.base import EmbeddingStore

__all__ = ["DEFAULT_VERSIONS", "PushError", "PushReceipt", "RollbackReceipt", "Version", "nudged_ids"]
__all__ += ["original_vectors", "push_vectors", "rollback", "versions"]

logger = logging.getLogger(__name__)

DEFAULT_VERSIONS = "nudge-versions"
PREPARED, COMMITTED, SUPERSEDED, ROLLED_BACK = "prepared", "committed", "superseded", "rolled back"
LIVE = (PREPARED, COMMITTED)


class PushError(RuntimeError):
    """Raised when a store did not take the vectors; says what state it was left in."""


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
        restored: number of nodes whose original vectors are in the store again.
        version: the version rolled back, None when there was none.
        changed_since: ids left alone because something else has changed their vectors since the push.
        missing: ids no longer in the store.
        exact: whether every restored vector was read back and equals its original: bit for bit, or to the store's own
            rounding where it has one (``rounding``).
        rounding: of the store; 0 where it keeps every bit.
    """

    restored: int
    version: str | None
    changed_since: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    exact: bool = True
    rounding: float = 0.0


@dataclass(frozen=True)
class Version:
    """One push: where it is recorded, its manifest, and per node the original, previous and written vectors."""

    folder: Path
    manifest: dict[str, Any]
    ids: tuple[str, ...]
    originals: FloatArray
    before: FloatArray
    after: FloatArray

    @property
    def name(self) -> str:
        """Folder name, such as ``0001``."""
        return self.folder.name

    @property
    def state(self) -> str:
        """``prepared``, ``committed``, ``superseded`` or ``rolled back``."""
        return str(self.manifest["state"])

    def set_state(self, state: str) -> None:
        """Record ``state`` in the manifest."""
        self.manifest["state"] = state
        write_manifest(self.folder, self.manifest)


def versions(store: EmbeddingStore, root: str | Path = DEFAULT_VERSIONS) -> list[Version]:
    """All recorded pushes to ``store``, oldest first. Raises BrokenFolderError where a record is damaged."""
    folder = Path(root) / store.key
    if not folder.is_dir():
        return []
    return [_load(part) for part in sorted(folder.iterdir()) if (part / MANIFEST).exists()]


def original_vectors(
    store: EmbeddingStore, ids: Sequence[str], vectors: FloatArray, root: str | Path = DEFAULT_VERSIONS
) -> FloatArray:
    """``vectors`` as read from ``store``, with those that a live push wrote replaced by their originals.

    A vector that differs from what was pushed (embedded again, edited) is its own original.
    """
    live = _live(store, root)
    if live is None:
        return vectors
    rows = {node_id: row for row, node_id in enumerate(ids)}
    found = [(rows[node_id], at) for at, node_id in enumerate(live.ids) if node_id in rows]
    originals = np.array(vectors)
    for row, at in found:
        if _is_ours(store, vectors[row], live, at):
            originals[row] = live.originals[at]
    return originals


def nudged_ids(store: EmbeddingStore, root: str | Path = DEFAULT_VERSIONS) -> tuple[str, ...]:
    """Ids of the nodes that a live push wrote."""
    live = _live(store, root)
    return () if live is None else live.ids


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

    Originals are on disk before the first write, and every vector is read back after it.

    Raises:
        PushError: the store failed or did not keep what was written; the message says what it holds now.
        BrokenFolderError: the record of an earlier push is damaged.
    """
    live = _live(store, root)
    plan, changed, missing = _plan(store, ids, originals, vectors, live)
    for left, why in ((changed, "changed since they were read"), (missing, "are no longer in the store")):
        if left:
            warnings.warn(f"{len(left)} node(s) {why} and are left alone: {_some(left)}", stacklevel=3)
    if not plan.ids:
        return PushReceipt(False, 0, None, "no node is left to write", changed, missing)
    version = _record(store, plan, Path(root), details or {})
    _write_checked(store, version)
    version.set_state(COMMITTED)
    if live is not None:
        live.set_state(SUPERSEDED)
    logger.info("pushed %d vectors to %s as version %s", len(plan.ids), store.key, version.name)
    return PushReceipt(True, len(plan.ids), version.name, f"pushed as version {version.name}", changed, missing)


def rollback(store: EmbeddingStore, root: str | Path = DEFAULT_VERSIONS) -> RollbackReceipt:
    """Give every nudged node of ``store`` its original vector back, bit for bit.

    Works from any process that opens the same store and ``root``, also after a push that did not finish. Nodes that
    something else has changed since, or deleted, are left alone and listed.

    Raises:
        BrokenFolderError: the record is damaged; nothing was written.
    """
    live = _live(store, root)
    if live is None:
        return RollbackReceipt(0, None)
    current, missing = _read_present(store, live.ids)
    at_of = {node_id: at for at, node_id in enumerate(live.ids)}
    ours = [node_id for node_id, vector in current.items() if _is_ours(store, vector, live, at_of[node_id])]
    changed = tuple(node_id for node_id in current if node_id not in set(ours))
    originals = live.originals[[at_of[node_id] for node_id in ours]]
    exact = True
    if ours:
        store.replace(ours, originals)
        exact = _same(store, store.read(ours), originals)
    if changed or missing:
        warnings.warn(
            f"left alone: {len(changed)} node(s) changed since the push, {len(missing)} no longer in the store:"
            f" {_some([*changed, *missing])}",
            stacklevel=2,
        )
    if exact:
        live.set_state(ROLLED_BACK)
    return RollbackReceipt(len(ours), live.name, changed, missing, exact, store.capabilities.rounding)


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
        ours = live is not None and at is not None and _is_ours(store, now, live, at)
        original = live.originals[at] if ours and live is not None and at is not None else now
        wanted = targets.get(node_id)
        if wanted is None:
            # Nudged by the push before this one and by this one no longer: back to its original.
            if ours:
                rows.append((node_id, original, now, original))
        elif _same(store, original, wanted[0]):
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


def _is_ours(store: EmbeddingStore, vector: FloatArray, version: Version, at: int) -> bool:
    """Whether a node holds what this push wrote or found (a push that died half-way leaves both)."""
    return any(_same(store, vector, known[at]) for known in (version.after, version.before, version.originals))


def _same(store: EmbeddingStore, found: FloatArray, expected: FloatArray) -> bool:
    """Equal bit for bit, or to within the rounding that the store makes known."""
    if not store.capabilities.rounding:
        return found.tobytes() == expected.tobytes()
    return found.shape == expected.shape and bool((np.abs(found - expected) <= store.capabilities.rounding).all())


def _record(store: EmbeddingStore, plan: _Plan, root: Path, details: Mapping[str, Any]) -> Version:
    folder = root / store.key
    taken = [int(part.name) for part in folder.iterdir() if part.name.isdigit()] if folder.is_dir() else []
    folder = folder / f"{max(taken, default=0) + 1:04d}"
    manifest = {
        "state": PREPARED,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "store": {"name": store.name, "key": store.key, "similarity": store.capabilities.similarity},
        "dimension": int(plan.after.shape[1]),
        "details": dict(details),
        "ids": plan.ids,
    }
    write_folder(folder, manifest, {"originals": plan.originals, "before": plan.before, "after": plan.after})
    return _load(folder)


def _write_checked(store: EmbeddingStore, version: Version) -> None:
    try:
        store.replace(version.ids, version.after)
        kept = _same(store, store.read(version.ids), version.after)
    except Exception as error:
        raise PushError(f"{store.name} failed while vectors were written: {_undo(store, version)}") from error
    if not kept:
        raise PushError(f"{store.name} did not keep the vectors as they were written: {_undo(store, version)}")


def _undo(store: EmbeddingStore, version: Version) -> str:
    try:
        store.replace(version.ids, version.before)
        restored = _same(store, store.read(version.ids), version.before)
    except Exception as error:
        logger.warning("undoing version %s failed: %s", version.name, error)
        restored = False
    if not restored:
        return f"some may be there; rollback() restores the originals saved in {version.folder}"
    version.set_state(ROLLED_BACK)
    return "the vectors that were there before are back"


def _live(store: EmbeddingStore, root: str | Path) -> Version | None:
    return next((version for version in reversed(versions(store, root)) if version.state in LIVE), None)


def _load(folder: Path) -> Version:
    manifest, arrays = read_folder(folder)
    try:
        ids = tuple(manifest["ids"])
        parts = arrays["originals"], arrays["before"], arrays["after"]
        state = manifest["state"]
    except (KeyError, TypeError) as error:
        raise BrokenFolderError(f"{folder} is not the record of a push: {error}") from error
    if state not in (*LIVE, SUPERSEDED, ROLLED_BACK) or any(part.shape[:1] != (len(ids),) for part in parts):
        raise BrokenFolderError(f"{folder} is not the record of a push: its parts do not agree")
    return Version(folder, manifest, ids, *parts)


def _some(ids: Sequence[str]) -> str:
    return ", ".join(repr(node_id) for node_id in ids[:5]) + (" ..." if len(ids) > 5 else "")
