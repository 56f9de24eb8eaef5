"""Restore vectors that pushes moved, on nodes that still hold the moved ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.text import preview
from nudge_rag.errors import PushError
from nudge_rag.journal.coding import Vectors
from nudge_rag.journal.journal import Journal
from nudge_rag.journal.manifest import COMMITTED, ROLLED_BACK, SUPERSEDED
from nudge_rag.journal.versions import Version
from nudge_rag.journal.writes import write_over
from nudge_rag.stores.access import read_present, same_vectors
from nudge_rag.stores.base import EmbeddingStore

__all__ = ["RollbackReceipt", "close", "describe_left_alone", "restore", "restore_away", "version_before"]


@dataclass(frozen=True)
class RollbackReceipt:
    """The result of a rollback.

    Attributes:
        restored: number of nodes whose earlier vectors are in the store again.
        version: the oldest version rolled back, None if there was none.
        changed_since: ids left alone because something else has changed their vectors since the push.
        missing: ids that are not in the store now; if they come back with the nudge, the next call undoes it.
        exact: whether every restored vector was read back and equals the one wanted: bit for bit, or to the store's own
            rounding if it has one.
        rounding: of the store; 0 if it keeps every bit.
    """

    restored: int
    version: str | None
    changed_since: tuple[str, ...] = field(default=(), repr=False)
    missing: tuple[str, ...] = field(default=(), repr=False)
    exact: bool = True
    rounding: float = 0.0

    def __str__(self) -> str:
        if self.version is None and not self.restored:
            return "Nothing was rolled back: no push is live."
        how = "to the store's rounding" if self.rounding else "bit for bit"
        before = "they were pushed" if self.version is None else f"version {self.version}"
        done = f"{self.restored:,} vectors are as they were before {before}, {how}."
        if not self.exact:
            done = f"{self.restored:,} vectors were written back, but the store did not keep them exactly."
        return " ".join([done, *describe_left_alone(self.changed_since, self.missing)])


def describe_left_alone(changed_since: Sequence[str], missing: Sequence[str]) -> list[str]:
    """Return a sentence on each kind of node that a push or rollback left alone, with at most five ids."""
    kinds = ((changed_since, "changed since and are left alone"), (missing, "are no longer in the store"))
    return [f"{len(ids):,} node(s) {what}: {preview(ids)}." for ids, what in kinds if ids]


def restore(journal: Journal, undone: Sequence[Version], *, to_originals: bool) -> RollbackReceipt:
    """Restore the vectors from before the oldest of these versions, or the originals of the newest.

    Nodes that are away are recorded, for the time when they are back; and those whose vectors from before are nudges
    that the version before knows nothing of, as they had been away when it was pushed.

    Raises:
        PushError: the store failed; a later call starts again.
    """
    wanted: dict[str, FloatArray] = {}
    originals: dict[str, FloatArray] = {}
    newest: dict[str, tuple[Version, int]] = {}
    for version in reversed(undone):
        for at, node_id in enumerate(version.ids):
            newest.setdefault(node_id, (version, at))
            # A node that was embedded again between two pushes goes back to that, and no further.
            if node_id not in wanted or version.holds(journal.store, wanted[node_id], at):
                wanted[node_id] = (version.originals if to_originals else version.before)[at]
                originals[node_id] = version.originals[at]
    try:
        receipt = _put_back(journal.store, wanted, newest, undone[0].name)
    except Exception as error:
        raise PushError(
            f"{journal.store.name} failed while vectors were restored; what is saved in {undone[-1].place} stays: call"
            f" rollback() when the store works again ({type(error).__name__}: {error})"
        ) from error
    away = ((node_id, *newest[node_id]) for node_id in receipt.missing)
    journal.away.add((node_id, version.after[at], originals[node_id]) for node_id, version, at in away)
    if not to_originals:
        left = {*receipt.missing, *receipt.changed_since}
        kept = {node_id: vector for node_id, vector in wanted.items() if node_id not in left}
        journal.away.add(_find_strays(journal, undone[0], kept, originals))
    return receipt


def version_before(journal: Journal, version: Version) -> Version | None:
    """The version that is live again if ``version`` and all later ones are undone."""
    states = (SUPERSEDED, COMMITTED)
    before = (one for one in reversed(journal.in_place) if one.state in states and one.number < version.number)
    return next(before, None)


def _find_strays(
    journal: Journal, undone: Version, vectors: Mapping[str, FloatArray], originals: Mapping[str, FloatArray]
) -> Iterator[tuple[str, FloatArray, FloatArray]]:
    """Nodes that hold a nudge again of which the version before ``undone`` knows nothing."""
    before = version_before(journal, undone)
    # One that is thinned is made again from the vectors that the next one had found.
    known = () if before is None else undone.ids if before.is_thinned else before.ids
    at = {node_id: row for row, node_id in enumerate(known)}
    for node_id, vector in vectors.items():
        if same_vectors(journal.store, vector, originals[node_id]):
            continue
        row = at.get(node_id)
        if before is None or row is None or not (before.is_thinned or before.holds(journal.store, vector, row)):
            yield node_id, vector, originals[node_id]


def restore_away(journal: Journal) -> int:
    """Undo the nudge of nodes that had been away, and wait no longer for those that are back; how many were undone.

    Raises:
        PushError: the store failed; a later call starts again.
    """
    waiting = journal.away.vectors
    if not waiting:
        return 0
    store = journal.store
    try:
        present, _ = read_present(store, list(waiting))
        back = [node_id for node_id, vector in present.items() if same_vectors(store, vector, waiting[node_id][0])]
        nudged, originals = (np.array([waiting[node_id][part] for node_id in back]) for part in (0, 1))
        written = write_over(store, back, nudged, originals.astype(store.capabilities.dtype)) if back else None
    except Exception as error:
        raise PushError(
            f"{store.name} failed while nodes that had been away were restored; a later call starts again"
            f" ({type(error).__name__}: {error})"
        ) from error
    gone = set() if written is None else {*written.missing, *written.refused}
    journal.away.drop(node_id for node_id in present if node_id not in gone)
    return 0 if written is None else len(written.kept)


def _put_back(
    store: EmbeddingStore, wanted: Mapping[str, FloatArray], newest: Mapping[str, tuple[Version, int]], name: str
) -> RollbackReceipt:
    current, missing = read_present(store, list(wanted))
    ours = []
    for node_id, vector in current.items():
        version, at = newest[node_id]
        if version.holds(store, vector, at):
            ours.append(node_id)
    changed = set(current) - set(ours)
    exact = True
    if ours:
        vectors = np.array([wanted[node_id] for node_id in ours], dtype=store.capabilities.dtype)
        written = write_over(store, ours, np.array([current[node_id] for node_id in ours]), vectors)
        exact = not written.refused
        missing = (*missing, *written.missing)
        changed |= set(written.newer)
        gone = {*written.newer, *written.missing}
        ours = [node_id for node_id in ours if node_id not in gone]
    left_alone = tuple(node_id for node_id in current if node_id in changed)
    return RollbackReceipt(len(ours), name, left_alone, missing, exact, store.capabilities.rounding)


def close(journal: Journal, undone: Sequence[Version], *, to_originals: bool) -> None:
    """Record a rollback: newest first, so that a crash in between leaves a version that is still to be rolled back."""
    before = version_before(journal, undone[0])
    if before is not None and not to_originals:
        if before.is_thinned:
            _rebuild(before, undone[0])
        elif before.manifest.get("base") is not None:
            before.write(before.load(), state=COMMITTED)
        else:
            before.set_state(COMMITTED)
    for version in reversed(undone):
        version.set_state(ROLLED_BACK)
    if to_originals:
        for version in journal.in_place:
            # Of older ones nothing is left but the manifest, and it need not be written: nothing is live. One before a
            # push that died is still committed.
            if version.state in (SUPERSEDED, COMMITTED) and not version.is_thinned:
                version.set_state(ROLLED_BACK)


def _rebuild(version: Version, next_one: Version) -> None:
    """Make a version whose vectors are not kept live again, from the vectors that the one after it had found."""
    vectors = next_one.load()
    rows = [row for row, same in enumerate(vectors.before == vectors.originals) if not same.all()]
    originals, before = vectors.originals[rows], vectors.before[rows]
    version.rebuild([next_one.ids[row] for row in rows], Vectors(originals, originals, before), COMMITTED)
