"""Restore vectors that pushes moved, on nodes that still hold the moved ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.memory import giving_back
from nudge_rag.common.progress import track
from nudge_rag.common.text import preview
from nudge_rag.errors import CorruptArchiveError, PushError
from nudge_rag.journal.blocks import Block
from nudge_rag.journal.journal import Journal
from nudge_rag.journal.manifest import BLOCKS, COMMITTED, SUPERSEDED
from nudge_rag.journal.node_map import node_map_of, rows_mapped_at_ingestion
from nudge_rag.journal.push_all import NodeIds
from nudge_rag.journal.rebuilding import rebuild
from nudge_rag.journal.returned import IsKnown
from nudge_rag.journal.stamping import stamp_nudges
from nudge_rag.journal.versions import Version
from nudge_rag.journal.writes import Written, write_over
from nudge_rag.stores.access import read_present, same_rows, same_vectors
from nudge_rag.stores.base import EmbeddingStore

__all__ = [
    "RollbackReceipt",
    "close",
    "describe_left_alone",
    "restore",
    "restore_away",
    "restore_ingested",
    "restore_returned",
    "version_before",
]

NODES_PER_STEP = 5_000


@dataclass(frozen=True)
class RollbackReceipt:
    """The result of a rollback.

    Attributes:
        restored: number of nodes whose earlier vectors are in the store again.
        version: the oldest version rolled back, None if there was none; if nothing was live, and nodes held vectors of
            one that had been rolled back before, that one.
        changed_since: ids left alone because something else has changed their vectors since the push.
        missing: ids that are not in the store now; if they come back with the nudge, the next call undoes it.
        exact: whether every restored vector was read back and equals the one wanted: bit for bit, or to the store's own
            rounding if it has one.
        rounding: of the store; 0 if it keeps every bit.
        live: the version that is live now, None if none is.
    """

    restored: int
    version: str | None
    changed_since: tuple[str, ...] = field(default=(), repr=False)
    missing: tuple[str, ...] = field(default=(), repr=False)
    exact: bool = True
    rounding: float = 0.0
    live: str | None = None

    def __str__(self) -> str:
        if self.version is None and not self.restored:
            live = "no push is live" if self.live is None else f"version {self.live} is live, which is older"
            return f"Nothing was rolled back: {live}."
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
    if any(version.is_streamed for version in undone):
        return restore_blocks(journal, undone, to_originals=to_originals)
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
        if not to_originals and wanted:
            before = [np.array([part[node_id] for node_id in wanted]) for part in (wanted, originals)]
            stamp_nudges(journal.store, version_before(journal, undone[0]) or undone[0], list(wanted), *before)
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


def restore_blocks(journal: Journal, undone: Sequence[Version], *, to_originals: bool) -> RollbackReceipt:
    """As `restore`, one version after the other, newest first, and of each some thousand nodes at a time.

    Raises:
        PushError: the store failed; a later call starts again.
    """
    store, several = journal.store, len(undone) > 1
    n_restored, exact = 0, True
    restored: set[str] = set()
    changed: dict[str, None] = {}
    missing: dict[str, None] = {}
    for version in reversed(undone):
        n_blocks = version.manifest.get(BLOCKS) if version.is_streamed else 1
        for block in giving_back(track(version.parts(), "rolling back", total=n_blocks), every=1):
            try:
                if not to_originals:
                    earlier = version_before(journal, version) or version
                    stamp_nudges(store, earlier, block.ids, block.vectors.before, block.vectors.originals)
                written, others = _put_block_back(store, block, to_originals=to_originals)
            except Exception as error:
                raise PushError(
                    f"{store.name} failed while vectors were restored; what is saved in {version.place} stays: call"
                    f" rollback() when the store works again ({type(error).__name__}: {error})"
                ) from error
            row_of = {node_id: row for row, node_id in enumerate(block.ids)}
            vectors = block.vectors
            away = ((name, vectors.after[row_of[name]], vectors.originals[row_of[name]]) for name in written.missing)
            journal.away.add(away)
            if not to_originals:
                kept = {name: vectors.before[row_of[name]] for name in written.kept}
                known = {name: vectors.originals[row_of[name]] for name in written.kept}
                journal.away.add(_find_strays(journal, version, kept, known))
            exact = exact and not written.refused
            if several:
                restored.update(written.kept)
            n_restored = len(restored) if several else n_restored + len(written.kept)
            changed |= dict.fromkeys([*others, *written.newer])
            missing |= dict.fromkeys(written.missing)
    rounding = store.capabilities.rounding
    return RollbackReceipt(n_restored, undone[0].name, tuple(changed), tuple(missing), exact, rounding)


def _put_block_back(store: EmbeddingStore, block: Block, *, to_originals: bool) -> tuple[Written, list[str]]:
    """Restore nodes that hold a vector that a push wrote or found; also the ids of those that hold another one."""
    present, missing = read_present(store, block.ids)
    rows = [row for row, node_id in enumerate(block.ids) if node_id in present]
    if not rows:
        return Written(missing=list(missing)), []
    now, vectors = np.stack([present[block.ids[row]] for row in rows]), block.vectors
    ours = np.zeros(len(rows), dtype=np.bool_)
    for known in (vectors.after, vectors.before, vectors.originals):
        ours |= np.array(same_rows(store, now, known[rows]), dtype=np.bool_)
    chosen = [row for row, is_ours in zip(rows, ours, strict=True) if is_ours]
    others = [block.ids[row] for row, is_ours in zip(rows, ours, strict=True) if not is_ours]
    wanted = (vectors.originals if to_originals else vectors.before)[chosen]
    names = [block.ids[row] for row in chosen]
    written = write_over(store, names, now[ours], wanted.astype(store.capabilities.dtype, copy=False))
    return replace(written, missing=[*missing, *written.missing]), others


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
    nudged = {
        node_id: vector
        for node_id, vector in vectors.items()
        if not same_vectors(journal.store, vector, originals[node_id])
    }
    names, known = list(nudged), set[str]()
    if names and before is not None and before.is_thinned:
        # One that is thinned is made again from the vectors that the next one had found.
        known = {names[row] for row in undone.find(names)[0]}
    elif names and before is not None:
        vectors_now = np.stack([nudged[name] for name in names])
        known |= {names[row] for row in rows_mapped_at_ingestion(journal, before, vectors_now)}
        rows, block = before.find(names)
        found = np.stack([nudged[names[row]] for row in rows]) if len(rows) else block.vectors.after
        for part in (block.vectors.after, block.vectors.before, block.vectors.originals):
            same = same_rows(journal.store, found, part)
            known |= {name for name, is_same in zip(block.ids, same, strict=True) if is_same}
    yield from ((name, vector, originals[name]) for name, vector in nudged.items() if name not in known)


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
        back = [node_id for node_id, vector in present.items() if journal.away.is_back(store, node_id, vector)]
        found, originals = np.array([present[node] for node in back]), np.array([waiting[node][1] for node in back])
        written = write_over(store, back, found, originals.astype(store.capabilities.dtype)) if back else None
    except Exception as error:
        raise PushError(
            f"{store.name} failed while nodes that had been away were restored; a later call starts again"
            f" ({type(error).__name__}: {error})"
        ) from error
    gone = set() if written is None else {*written.missing, *written.refused}
    journal.away.drop(node_id for node_id in present if node_id not in gone)
    return 0 if written is None else len(written.kept)


def restore_returned(journal: Journal, is_known: IsKnown | None = None) -> dict[str, str]:
    """Restore the originals of nodes that hold a nudge again whose version is over.

    Args:
        journal: of the store.
        is_known: tells nodes that were restored just now; None if there are none.

    Returns:
        Ids of the nodes that have their originals again, and the version whose vectors they held.

    Raises:
        PushError: the store failed; a later call starts again.
    """
    store = journal.store
    restored: dict[str, str] = {}
    try:
        # All are found first: what is written here is not to be looked at again.
        for part in list(journal.find_returned(is_known)):
            originals = part.originals.astype(store.capabilities.dtype, copy=False)
            written = write_over(store, part.ids, part.found, originals)
            restored |= dict.fromkeys(written.kept, part.version)
    except CorruptArchiveError:
        raise
    except Exception as error:
        raise PushError(
            f"{store.name} failed while nodes that hold a nudge again were restored; a later call starts again"
            f" ({type(error).__name__}: {error})"
        ) from error
    return restored


def restore_ingested(journal: Journal) -> int:
    """Give nodes that were mapped before they were added the vectors that their model gave; how many.

    Raises:
        PushError: the store failed; a later call starts again.
    """
    if not journal.ingested:
        return 0
    store, n_restored = journal.store, 0
    restored: list[FloatArray] = []
    try:
        for names in giving_back(NodeIds(store).parts(NODES_PER_STEP)):
            present, _ = read_present(store, names)
            if not present:
                continue
            ids, found = list(present), np.array(list(present.values()), dtype=store.capabilities.dtype)
            rows, originals = journal.ingested.originals_of(found)
            if len(rows):
                n_restored += len(write_over(store, [ids[row] for row in rows], found[rows], originals).kept)
                restored.append(found[rows])
    except Exception as error:
        raise PushError(
            f"{store.name} failed while nodes that were mapped before they were added were restored; a later call"
            f" starts again ({type(error).__name__}: {error})"
        ) from error
    # Until then a backup may bring back what a map had made, of these nodes as of all others.
    if not any(node_map_of(version) is not None and not version.is_thinned for version in journal.versions):
        journal.ingested.forget(np.concatenate(restored) if restored else np.zeros((0, 0)))
    return n_restored


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
            rebuild(before, undone[0])
        elif before.manifest.get("base") is not None:
            before.write(before.load(), state=COMMITTED)
        else:
            before.set_state(COMMITTED)
    for version in reversed(undone):
        version.retire()
    if to_originals:
        for version in journal.in_place:
            # Of older ones nothing is left but the manifest, and it need not be written: nothing is live. One before a
            # push that died is still committed.
            if version.state in (SUPERSEDED, COMMITTED) and not version.is_thinned:
                version.retire()
    journal.thin_out()
