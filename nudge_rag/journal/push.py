"""Push moved vectors to a store as one transaction: originals first, one writer, everything read back."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.caller import warn_caller
from nudge_rag.common.deprecation import renamed_argument
from nudge_rag.common.text import preview
from nudge_rag.errors import JournalError, PushError
from nudge_rag.journal.coding import Vectors
from nudge_rag.journal.copies import write_all_beside, write_beside
from nudge_rag.journal.fingerprints import differing_models
from nudge_rag.journal.journal import Journal
from nudge_rag.journal.manifest import IN_PLACE, ROLLED_BACK, SIDE_BY_SIDE, VERIFIED, WRITING
from nudge_rag.journal.packed_map import NODE_MAP, unpack_adapter
from nudge_rag.journal.push_all import AllWritten, NodeIds, undo_blocks, write_blocks
from nudge_rag.journal.push_plan import PushPlan, plan_push
from nudge_rag.journal.recovery import locked_journal
from nudge_rag.journal.restore import describe_left_alone
from nudge_rag.journal.side_by_side import require_catching_up, require_copies, require_not_switched
from nudge_rag.journal.stamping import stamp_version
from nudge_rag.journal.versions import Version
from nudge_rag.journal.writes import Written, undo_writes, write_over
from nudge_rag.stores.access import reading, require_store, write_problem_of
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.stores.checks import check_replacement
from nudge_rag.stores.storages import FolderStorage, ProcessStorage

__all__ = ["PushError", "PushReceipt", "check_mode", "push_vectors"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PushReceipt:
    """The result of a push.

    Attributes:
        pushed: whether anything was written.
        written: number of vectors written.
        version: the version's name, None if nothing was pushed.
        reason: why nothing was pushed, or a description of the push.
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


@renamed_argument("root", "versions")
def push_vectors(
    store: EmbeddingStore,
    ids: Sequence[str],
    originals: FloatArray,
    vectors: FloatArray,
    *,
    versions: str | Path | None = None,
    details: Mapping[str, Any] | None = None,
    mode: str = IN_PLACE,
) -> PushReceipt:
    """Write ``vectors`` for ``ids``; nodes of an earlier push that are not among them get their originals back.

    Originals are recorded before the first write, every vector is read back after it, and one push at a time works on a
    store. A node that something else writes to in the meantime keeps that vector, and is listed. An earlier push that
    died is finished or undone first.

    With ``mode="side-by-side"`` they are written to a copy of all nodes beside the live version, which stays as it is
    until `nudge_rag.switch`; a version that waited there before is dropped.

    If ``details`` hold a map of all nodes, it is applied to all others, a block at a time: memory does not grow with
    the vectors of the store. So is a push over one that has mapped all nodes.

    Args:
        store: the vector store.
        ids: of the nodes, each once.
        originals: (len(ids), d) their vectors before any nudge.
        vectors: (len(ids), d) their moved vectors.
        versions: the folder of the history; None for the store's own.
        details: facts about the nudge to record.
        mode: ``"in-place"`` or ``"side-by-side"``.

    Raises:
        TypeError: ids or vectors of another type.
        ValueError: ids given twice, vectors that do not fit or are not finite; another mode, or a store that can
            hold no copy.
        PushError: the store failed or did not keep what was written (the message says what it holds now), or it holds a
            nudge that was made for another embedding model or dimension.
        StoreError: the store failed while it was read; nothing was written.
        LockedError: another push or rollback is under way.
        CorruptArchiveError: the record of an earlier push is damaged.
    """
    require_store(store)
    check_mode(store, mode)
    names, moved = check_replacement(ids, vectors, dimension=None, dtype=store.capabilities.dtype)
    if not names and NODE_MAP in (details or {}):
        moved = np.zeros((0, unpack_adapter((details or {})[NODE_MAP]).dimension), dtype=store.capabilities.dtype)
        originals = moved
    check_replacement(ids, originals, dimension=moved.shape[1], dtype=store.capabilities.dtype)
    _require_writes(store)
    with locked_journal(store, versions) as journal:
        require_not_switched(journal.live)
        if versions is None:
            _warn_of_working_folder(journal)
        _check_fits(journal.live, details or {}, moved.shape[1])
        live = journal.live
        if NODE_MAP in (details or {}) or (live is not None and live.is_streamed):
            own = Vectors(np.asarray(originals), np.asarray(originals), store.as_stored(moved))
            return _push_to_all(journal, names, own, details or {}, mode)
        with reading(store, "the nodes to push were read"):
            plan = plan_push(journal, names, np.asarray(originals), moved)
        written = _carry_out(journal, plan, details or {}, mode) if plan.ids else None
    changed = (*plan.changed, *(() if written is None else written[1].newer))
    missing = (*plan.missing, *(() if written is None else written[1].missing))
    if written is None or not written[1].kept:
        return _receipt(journal, None, 0, mode, changed, missing)
    return _receipt(journal, written[0], len(written[1].kept), mode, changed, missing)


def _receipt(
    journal: Journal,
    version: Version | None,
    n_written: int,
    mode: str,
    changed: tuple[str, ...],
    missing: tuple[str, ...],
) -> PushReceipt:
    for left, why in ((changed, "changed since they were read"), (missing, "are no longer in the store")):
        if left:
            warn_caller(f"{len(left)} node(s) {why} and are left alone: {preview(left)}")
    if version is None:
        return PushReceipt(False, 0, None, "no node is left to write", changed, missing)
    where = " beside the live version, for switch() to make live" if mode == SIDE_BY_SIDE else ""
    if isinstance(journal.storage, ProcessStorage):
        where += ", in the memory of this process alone"
        if not journal.storage.is_told:
            journal.storage.is_told = True
            warn_caller(
                f"this {journal.store.name} store has no file: what was pushed, and the originals, end with this"
                " process, and if its framework saves it now, the nudge cannot be undone there. If it is saved"
                " anywhere, roll back and push again with persist_path="
            )
    logger.info("pushed %d vectors to %s as version %s%s", n_written, journal.name, version.name, where)
    return PushReceipt(True, n_written, version.name, f"pushed as version {version.name}{where}", changed, missing)


def check_mode(store: EmbeddingStore, mode: str) -> None:
    """Raise ValueError unless ``mode`` is one of the two, and one that ``store`` has."""
    if mode not in (IN_PLACE, SIDE_BY_SIDE):
        raise ValueError(f"mode must be {IN_PLACE!r} or {SIDE_BY_SIDE!r}, got {mode!r}")
    if mode == SIDE_BY_SIDE:
        require_copies(store)


def _warn_of_working_folder(journal: Journal) -> None:
    """Warn if nothing but the process's working folder leads to the history of a store that outlives the process."""
    storage = journal.storage
    if isinstance(storage, FolderStorage) and journal.home.own is None and journal.store.capabilities.persistent:
        warn_caller(
            f"this {journal.store.name} store does not hold its history: it is in the folder {storage.path.resolve()},"
            " which only calls from this working folder find; elsewhere, nudges would be taken for originals. Pass a"
            " folder to every call (versions=)"
        )


def _require_writes(store: EmbeddingStore) -> None:
    problem = write_problem_of(store)
    if problem is not None:
        raise PushError(f"{problem}: nothing was written; an overlay serves the nudge")


def _check_fits(live: Version | None, details: Mapping[str, Any], dimension: int) -> None:
    if live is None:
        return
    live.load()  # before anything is said of it, a damaged record is told
    made, advice = f"the store holds a nudge (version {live.name}) for", "roll back first; nothing was written"
    differing = differing_models(live.manifest["details"], details)
    if differing is not None:
        raise PushError(f"{made} {differing}: {advice}")
    if live.dimension != dimension:
        raise PushError(f"{made} dimension {live.dimension}, this one has {dimension}: {advice}")


def _carry_out(journal: Journal, plan: PushPlan, details: Mapping[str, Any], mode: str) -> tuple[Version, Written]:
    if mode == SIDE_BY_SIDE:
        version = journal.record(plan.ids, plan.vectors, details, mode)
        # Once it is live, nothing else tells of nodes that the version before has moved and that are away.
        journal.away.add(plan.away)
        return version, write_beside(journal, version)
    if not journal.is_transactional:
        return _write_checked(journal, plan, journal.record(plan.ids, plan.vectors, details))
    try:
        with journal.transaction():
            version = journal.record(plan.ids, plan.vectors, details)
            written = write_over(journal.store, version.ids, version.before, version.after)
            if written.refused:
                raise PushError(f"{journal.store.name} did not keep the vectors as they were written")
            _finish(journal, plan, version, written)
    except (ValueError, TypeError):
        raise
    except Exception as error:
        raise PushError(
            f"{journal.store.name} failed while vectors were written ({error}): the vectors that were there before are"
            " back, the whole push was one transaction"
        ) from error
    return version, written


def _push_to_all(journal: Journal, ids: list[str], own: Vectors, details: Mapping[str, Any], mode: str) -> PushReceipt:
    """Push to all nodes, of which ``ids`` get vectors of their own."""
    store, live = journal.store, journal.live
    if mode == SIDE_BY_SIDE:
        require_catching_up(store)
        version = journal.record(ids, own, details, mode, streamed=True)
        n_nodes = write_all_beside(journal, version)
        return _receipt(journal, version if n_nodes else None, n_nodes, mode, (), ())
    with reading(store, "the ids of all nodes were read"):
        known = NodeIds(store)
    try:
        with journal.transaction():
            version = journal.record(ids, own, details, streamed=True)
            written = _write_all(journal, version, live, known)
    except (ValueError, TypeError, JournalError, PushError):
        raise
    except Exception as error:
        raise PushError(
            f"{store.name} failed while vectors were written ({error}): the vectors that were there before are back,"
            " the whole push was one transaction"
        ) from error
    changed, missing = tuple(written.newer), tuple(written.missing)
    return _receipt(journal, version if written.kept else None, written.kept, mode, changed, missing)


def _write_all(journal: Journal, version: Version, live: Version | None, known: NodeIds) -> AllWritten:
    store = journal.store
    version.set_state(WRITING)
    try:
        written = write_blocks(journal, version, live, known)
    except Exception as error:
        if journal.is_transactional:
            raise
        raise PushError(f"{store.name} failed while vectors were written ({error}): {_undo(store, version)}") from error
    if written.refused:
        undone = "nothing was changed" if journal.is_transactional else _undo(store, version)
        raise PushError(f"{store.name} did not keep the vectors as they were written: {undone}")
    if not written.kept:
        version.set_state(ROLLED_BACK)
        return written
    try:
        version.set_state(VERIFIED)
    except JournalError as error:
        if journal.is_transactional:
            raise
        raise PushError(f"the journal cannot be written to ({error.__cause__}): {_undo(store, version)}") from error
    if written.newer or written.missing:
        version.manifest["left_alone"] = {"changed": written.newer, "missing": written.missing}
    journal.commit(version)
    waiting = list(journal.away.vectors)
    journal.away.drop([node_id for node_id, there in zip(waiting, known.contain(waiting), strict=True) if there])
    journal.away.add(written.away)
    return written


def _write_checked(journal: Journal, plan: PushPlan, version: Version) -> tuple[Version, Written]:
    store = journal.store
    version.set_state(WRITING)
    try:
        stamp_version(store, version)
        written = write_over(store, version.ids, version.before, version.after)
    except Exception as error:
        raise PushError(f"{store.name} failed while vectors were written ({error}): {_undo(store, version)}") from error
    if written.refused:
        raise PushError(f"{store.name} did not keep the vectors as they were written: {_undo(store, version)}")
    try:
        version.set_state(VERIFIED)
    except JournalError as error:
        raise PushError(f"the journal cannot be written to ({error.__cause__}): {_undo(store, version)}") from error
    _finish(journal, plan, version, written)
    return version, written


def _finish(journal: Journal, plan: PushPlan, version: Version, written: Written) -> None:
    """Record the live vectors; those that the push left alone are kept in its record."""
    if not written.kept:
        version.set_state(ROLLED_BACK)
        return
    left = {"changed": [*plan.changed, *written.newer], "missing": [*plan.missing, *written.missing]}
    if left["changed"] or left["missing"]:
        version.manifest["left_alone"] = left
    journal.commit(version)
    at = {node_id: row for row, node_id in enumerate(version.ids)}
    fresh = [(node, version.after[at[node]], version.originals[at[node]]) for node in written.missing]
    journal.away.drop(plan.back)
    journal.away.add([*plan.away, *fresh])


def _undo(store: EmbeddingStore, version: Version) -> str:
    try:
        if version.is_streamed:
            _, undone = undo_blocks(store, version)
        else:
            _, undone = undo_writes(store, version.ids, version.before, version.after)
    except Exception as error:
        logger.warning("undoing version %s failed: %s", version.name, error)
        undone = False
    if not undone:
        return f"some may be there; rollback() restores the originals saved in {version.place}"
    with contextlib.suppress(OSError):  # the next call looks again
        version.set_state(ROLLED_BACK)
    return "the vectors that were there before are back"
