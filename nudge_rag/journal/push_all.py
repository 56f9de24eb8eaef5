"""Push to all nodes of a store, a block at a time: memory does not grow with the vectors of the store.

The caller holds the lock of the journal.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from nudge_rag.common.arrays import BoolArray, FloatArray
from nudge_rag.common.memory import giving_back
from nudge_rag.common.progress import counting, track
from nudge_rag.errors import PushError, UnknownIdError
from nudge_rag.journal.blocks import IdIndex, hash_ids, nodes_per_block
from nudge_rag.journal.coding import Vectors
from nudge_rag.journal.goal import Goal, MapVectors, goal_of
from nudge_rag.journal.journal import Journal
from nudge_rag.journal.manifest import BLOCKS
from nudge_rag.journal.stamping import stamp_nudges
from nudge_rag.journal.versions import Version
from nudge_rag.journal.writes import undo_writes, write_over
from nudge_rag.stores.access import read_present, replace_vectors_if
from nudge_rag.stores.base import EmbeddingStore, SideBySideStore
from nudge_rag.stores.copies import DerivingStore
from nudge_rag.stores.lake.mapping import MappableStore
from nudge_rag.stores.stamps import StampedStore

__all__ = [
    "AllWritten",
    "NodeIds",
    "add_blocks",
    "fill_copy",
    "keep_originals",
    "undo_blocks",
    "wait_for_absent",
    "write_blocks",
]

IDS_PER_PART = 5_000
# How often a file is written in a push to all nodes of it, however many they are.
WRITES_OF_A_FILE = 8


class NodeIds:
    """The ids of all nodes of a store, packed: some 10 to 20 bytes each, and 16 to know them again.

    They are read before anything is written: few databases promise what a scan gives of nodes that change meanwhile.

    Args:
        store: the store.
    """

    def __init__(self, store: EmbeddingStore) -> None:
        self._parts: list[bytes] = []
        hashes = []
        for names, _ in giving_back(store.scan(IDS_PER_PART)):
            self._parts.append(zlib.compress(json.dumps(names).encode(), 1))
            hashes.append(hash_ids(names))
        self._index = IdIndex(np.concatenate(hashes) if hashes else np.zeros(0, dtype=np.uint64))

    def __len__(self) -> int:
        return len(self._index)

    def parts(self, size: int) -> Iterator[list[str]]:
        """All ids, ``size`` at a time, and what is left."""
        names: list[str] = []
        for packed in self._parts:
            names += json.loads(zlib.decompress(packed))
            whole = len(names) - len(names) % size
            yield from (names[first : first + size] for first in range(0, whole, size))
            names = names[whole:]
        if names:
            yield names

    def contain(self, ids: Sequence[str]) -> BoolArray:
        """Say for each id whether it is among them."""
        return np.asarray(self._index.places(ids) >= 0)


@dataclass
class AllWritten:
    """The outcome of a push to all nodes.

    Attributes:
        kept: number of nodes that hold the vector written.
        newer: ids that something else has written to in the meantime, or since they were tuned.
        missing: ids that are no longer in the store.
        refused: ids for which the store did not keep the vector written.
        away: nodes that a push moved and that are not in the store: id, nudged vector, original.
    """

    kept: int = 0
    newer: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    away: list[tuple[str, FloatArray, FloatArray]] = field(default_factory=list)


def write_blocks(journal: Journal, version: Version, live: Version | None, ids: NodeIds) -> AllWritten:
    """Write to all nodes in place: of each block the record first, then its vectors, which are read back.

    Args:
        journal: of the store.
        version: the push.
        live: what was live before it: nodes that it moved are written from their originals on.
        ids: of all nodes.
    """
    goal = goal_of(journal.store, version)
    done = AllWritten()
    size = _nodes_per_write(journal.store, version, len(ids))
    parts = track(ids.parts(size), "mapping all nodes", total=-(-len(ids) // size))
    for names in giving_back(parts, every=1):
        present, _ = read_present(journal.store, names)
        block_ids, vectors, changed = _plan_block(journal, goal, live, present)
        done.newer += changed
        if not block_ids:
            continue
        version.blocks.add(block_ids, vectors)
        stamp_nudges(journal.store, version, block_ids, vectors.after, vectors.originals)
        written = write_over(journal.store, block_ids, vectors.before, vectors.after)
        done.kept += len(written.kept)
        done.newer += written.newer
        done.refused += written.refused
        done.away += _rows_of(block_ids, vectors, written.missing)
        if written.refused:
            return done
    done.missing += [name for name, known in zip(goal.ids, ids.contain(goal.ids), strict=True) if not known]
    done.away += _moved_before(live, ids)
    n_blocks, n_nodes = version.blocks.finish()
    version.manifest |= {BLOCKS: n_blocks, "n_nodes": n_nodes}
    return done


def add_blocks(journal: Journal, version: Version, ids: Sequence[str]) -> tuple[str, ...]:
    """Write to nodes that came after a push to all others that is live, and record them with it; ids that were written.

    Raises:
        PushError: the store did not keep what was written; the record says what was there before.
    """
    goal, size = goal_of(journal.store, version), _nodes_per_write(journal.store, version, len(ids))
    kept: list[str] = []
    for first in range(0, len(ids), size):
        present, _ = read_present(journal.store, ids[first : first + size])
        block_ids, vectors, _ = _plan_block(journal, goal, version, present)
        if not block_ids:
            continue
        version.blocks.add(block_ids, vectors)
        stamp_nudges(journal.store, version, block_ids, vectors.after, vectors.originals)
        written = write_over(journal.store, block_ids, vectors.before, vectors.after)
        if written.refused:
            raise PushError(f"{journal.store.name} did not keep the vectors as they were written: look at status()")
        kept += written.kept
    n_blocks, n_nodes = version.blocks.finish()
    version.manifest |= {BLOCKS: n_blocks, "n_nodes": n_nodes}
    version.set_state(version.state)
    return tuple(kept)


def _nodes_per_write(store: EmbeddingStore, version: Version, n_nodes: int) -> int:
    """Number of nodes in a block; of a store in memory, whose file is written whole, a share of all of them."""
    size = nodes_per_block(version.dimension)
    return max(size, -(-n_nodes // WRITES_OF_A_FILE)) if isinstance(store, StampedStore) else size


def _plan_block(
    journal: Journal, goal: Goal, live: Version | None, present: dict[str, FloatArray]
) -> tuple[list[str], Vectors, list[str]]:
    """Ids and vectors of the nodes that are to be written, and ids of those whose nudge is for another vector."""
    names = list(present)
    dtype = np.dtype(journal.store.capabilities.dtype)
    found = np.array([present[name] for name in names], dtype=dtype).reshape(len(names), -1)
    originals = journal.originals_before(names, found, live) if names else found
    wanted, changed = goal.reach(names, originals)
    is_written = _differ(found, originals) | _differ(wanted, originals)
    is_written[[row for row, name in enumerate(names) if name in goal.rows]] = True
    is_written[changed] &= goal.node_map is not None
    rows = np.flatnonzero(is_written)
    vectors = Vectors(originals[rows], found[rows], wanted[rows].astype(dtype, copy=False))
    return [names[row] for row in rows], vectors, [names[row] for row in changed]


def _differ(one: FloatArray, other: FloatArray) -> BoolArray:
    """Rows that are not the same bit for bit."""
    if not one.size:
        return np.zeros(len(one), dtype=np.bool_)
    bits = [np.ascontiguousarray(part).view(np.uint8).reshape(len(part), -1) for part in (one, other)]
    return np.asarray((bits[0] != bits[1]).any(axis=1))


def _rows_of(ids: Sequence[str], vectors: Vectors, chosen: Sequence[str]) -> list[tuple[str, FloatArray, FloatArray]]:
    row_of = {node_id: row for row, node_id in enumerate(ids)} if chosen else {}
    return [(name, vectors.after[row_of[name]], vectors.originals[row_of[name]]) for name in chosen]


def _moved_before(live: Version | None, ids: NodeIds) -> Iterator[tuple[str, FloatArray, FloatArray]]:
    """Nodes that the version before had moved and that are not in the store."""
    if live is None:
        return
    for block in live.parts():
        gone = np.flatnonzero(~ids.contain(block.ids))
        for row in gone:
            yield block.ids[row], block.vectors.after[row].copy(), block.vectors.originals[row].copy()


def undo_blocks(store: EmbeddingStore, version: Version) -> tuple[int, bool]:
    """Restore what was there before a push that died or failed.

    Returns:
        How many nodes hold their vectors from before now, and whether no node holds one of the push any more.
    """
    total, done = 0, True
    for block in giving_back(version.blocks, every=1):
        restored, undone = undo_writes(store, block.ids, block.vectors.before, block.vectors.after)
        total, done = total + restored, done and undone
    return total, done


def fill_copy(journal: Journal, version: Version) -> int:
    """Make a copy of all nodes with the vectors of a push beside the live version; gives the number of nodes.

    A store of fragments has them rewritten one by one, on its executor if it has one.
    """
    store, derivation = journal.store, journal.derivation(version)
    goal = derivation.goal
    if isinstance(store, MappableStore) and _is_untouched(journal) and goal.node_map:
        copy = store.map_to_copy(MapVectors(goal.node_map), version.label)
        present, _ = read_present(store, goal.ids)
        names = list(present)
        if names:
            copy.replace(names, derivation.make(names, np.stack(list(present.values()))))
        return copy.count()
    with counting("mapping all nodes into a copy", total=store.count()) as advance:

        def make(names: Sequence[str], vectors: FloatArray) -> FloatArray:
            made = derivation.make(names, vectors)
            advance(len(names))
            return made

        if isinstance(store, DerivingStore):
            return store.derive_copy(version.label, make)
        if not isinstance(store, SideBySideStore):
            raise TypeError(f"this {store.name} store holds no copies")
        return _fill_by_scan(journal, store.create_copy(version.label), version, make)


def _fill_by_scan(
    journal: Journal,
    copy: EmbeddingStore,
    version: Version,
    make: Callable[[Sequence[str], FloatArray], FloatArray],
) -> int:
    total = 0
    size = _nodes_per_write(journal.store, version, journal.store.count())
    for names, vectors in giving_back(journal.store.scan(size), every=1):
        made = make(names, vectors)
        rows = np.flatnonzero(_differ(made, vectors))
        total += len(names)
        _write_to_copy(copy, [names[row] for row in rows], vectors[rows], made[rows])
    return total


def _is_untouched(journal: Journal) -> bool:
    """Whether every vector of the store is an original."""
    return journal.live is None and not journal.away.vectors and not any(True for _ in journal.find_returned())


def _write_to_copy(copy: EmbeddingStore, names: list[str], before: FloatArray, vectors: FloatArray) -> None:
    if not names:
        return
    try:
        copy.replace(names, vectors)
    except UnknownIdError:
        # Added since the copy was made, or deleted by now: the copy catches up when it is switched to.
        replace_vectors_if(copy, names, before, vectors)


def keep_originals(journal: Journal, version: Version) -> None:
    """Record, block by block, what a switch made live, with the vectors from before that only the copy holds.

    Nodes that have been deleted since are recorded as away.

    Raises:
        JournalError: the copy is gone.
    """
    derivation = journal.derivation(version)
    version.blocks.drop()
    for names, vectors in giving_back(journal.store.scan(nodes_per_block(version.dimension)), every=1):
        rows, known = derivation.look_up(names, vectors)
        if len(rows):
            version.blocks.add([names[row] for row in rows], known)
    n_blocks, n_nodes = version.blocks.finish()
    version.manifest |= {BLOCKS: n_blocks, "n_nodes": n_nodes}
    wait_for_absent(journal, version)


def wait_for_absent(journal: Journal, version: Version) -> None:
    """Record nodes that were deleted while a version that mapped all nodes beside was live: only its copy knows them.

    Raises:
        JournalError: the copy is gone, or the history cannot be written to.
        StoreError: the store failed.
    """
    absent = journal.derivation(version).find_absent(nodes_per_block(version.dimension))
    journal.away.add(row for part in giving_back(absent, every=1) for row in zip(*part, strict=True))
