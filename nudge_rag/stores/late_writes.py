"""Two collections brought in line, record by record: before one takes the other's place, and afterwards."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from nudge_rag.common.arrays import BoolArray, FloatArray
from nudge_rag.stores.copies import CopyNotes, NodesOfCopy

__all__ = ["Record", "Records", "are_noted", "bring_noted", "switch_collections"]

# Under steady writes the last round finds what was written during the one before; each is shorter than that.
ROUNDS = 5
# So few changes are left to what is found after the switch.
FEW = 5
SKETCHES = 2
MOST_BYTES = 1 << 30
# Entries of a note: digest of the content, sketches of the vector in the copy's source, and of that in its target.
Note = tuple[str, list[float], list[float]]


@dataclass(frozen=True)
class Record:
    """One node of a collection.

    Attributes:
        id: of the node.
        vector: the vector that nudges move.
        content: all the rest, as text to be compared.
        raw: the record as the database gave it.
    """

    id: str
    vector: FloatArray
    content: str
    raw: Any


class Records(Protocol):
    """The records of collections in one database."""

    rounding: float

    def pages(self, collection: Any) -> Iterator[list[Record]]:
        """All records, page by page."""
        ...

    def fetch(self, collection: Any, ids: Sequence[str]) -> dict[str, Record]:
        """Those of the records that exist, by id."""
        ...

    def put(self, collection: Any, records: Sequence[Record], vectors: FloatArray) -> None:
        """Write records whole, with these vectors."""
        ...

    def remove(self, collection: Any, ids: Sequence[str]) -> None:
        """Delete records."""
        ...


def catch_up(records: Records, source: Any, target: Any, moved: NodesOfCopy) -> tuple[dict[str, Note], int]:
    """Make ``target`` what ``source`` is, but for the moved nodes, in rounds until hardly anything changes.

    Returns:
        Notes on what both hold, by node id, and how many nodes were brought over.
    """
    total = 0
    for _ in range(ROUNDS):
        notes, n_changed = _bring_all(records, source, target, moved)
        total += n_changed
        if n_changed <= FEW:
            break
    return notes, total


def _bring_all(records: Records, source: Any, target: Any, moved: NodesOfCopy) -> tuple[dict[str, Note], int]:
    notes: dict[str, Note] = {}
    n_changed = 0
    for page in records.pages(source):
        there = records.fetch(target, [record.id for record in page])
        wanted = _wanted(records, page, moved, there)
        held = np.stack([there[one.id].vector if one.id in there else one.vector for one in page])
        same = _same(records, held, wanted)
        stale = [
            row
            for row, one in enumerate(page)
            if one.id not in there or there[one.id].content != one.content or not same[row]
        ]
        if stale:
            records.put(target, [page[row] for row in stale], wanted[stale])
            n_changed += len(stale)
        for record, vector in zip(page, wanted, strict=True):
            notes[record.id] = _note(record, vector)
    return notes, n_changed + _remove_absent(records, source, target, notes)


def _remove_absent(records: Records, source: Any, target: Any, known: Mapping[str, Note]) -> int:
    n_removed = 0
    absent = [record.id for page in records.pages(target) for record in page if record.id not in known]
    if absent:
        added = records.fetch(source, absent)
        absent = [node_id for node_id in absent if node_id not in added]
    if absent:
        records.remove(target, absent)
        n_removed = len(absent)
    return n_removed


def bring_late(
    records: Records, source: Any, target: Any, moved: NodesOfCopy, notes: dict[str, Note]
) -> tuple[dict[str, Note], int]:
    """Bring what was written to ``source`` since ``notes`` were taken to ``target``, whose own newer writes win.

    Returns:
        Notes on what both hold now, and how many nodes were brought over.
    """
    total, notes = 0, dict(notes)
    for _ in range(ROUNDS):
        n_changed = _bring_changed(records, source, target, moved, notes)
        total += n_changed
        if not n_changed:
            break
    return notes, total


def _bring_changed(records: Records, source: Any, target: Any, moved: NodesOfCopy, notes: dict[str, Note]) -> int:
    n_changed = 0
    seen: set[str] = set()
    for page in records.pages(source):
        seen.update(record.id for record in page)
        changed = [record for record in page if not _is_noted(records, record, notes.get(record.id), 1)]
        if not changed:
            continue
        there = records.fetch(target, [record.id for record in changed])
        wanted = _wanted(records, changed, moved, there)
        rows = []
        for row, record in enumerate(changed):
            note, live = notes.get(record.id), there.get(record.id)
            untouched = live is None if note is None else live is not None and _is_noted(records, live, note, 2)
            if untouched and not (live is not None and _equal(records, live, record, wanted[row])):
                rows.append(row)
            notes[record.id] = _note(record, wanted[row])
        if rows:
            records.put(target, [changed[row] for row in rows], wanted[rows])
            n_changed += len(rows)
    gone = [node_id for node_id in notes if node_id not in seen]
    # Pages by offset skip records if others are deleted meanwhile: only what is not found by its id is gone.
    left = records.fetch(source, gone) if gone else {}
    gone = [node_id for node_id in gone if node_id not in left]
    there = records.fetch(target, gone) if gone else {}
    removed = [
        node_id for node_id in gone if node_id in there and _is_noted(records, there[node_id], notes[node_id], 2)
    ]
    for node_id in gone:
        del notes[node_id]
    if removed:
        records.remove(target, removed)
    return n_changed + len(removed)


def bring_noted(records: Records, source: Any, target: Any, moved: NodesOfCopy, notes: CopyNotes) -> int | None:
    """As `bring_late`, by the notes of an earlier call; None if there are none."""
    noted = _decode_notes(notes.read())
    if noted is None:
        return None
    known, n_changed = bring_late(records, source, target, moved, noted)
    if n_changed:
        notes.write(encode_notes(known))
    return n_changed


def are_noted(notes: CopyNotes) -> bool:
    """Whether it is known what a copy held when it ceased to be live."""
    return _decode_notes(notes.read()) is not None


def switch_collections(
    records: Records, live: Any, copy: Any, moved: NodesOfCopy, notes: CopyNotes, swap: Callable[[], None]
) -> int:
    """Let ``copy`` catch up, swap it with ``live``, and bring over what was written to ``live`` until then.

    Args:
        records: of both collections.
        live: the collection that is live.
        copy: the one that is to be.
        moved: the nodes by which they may differ.
        notes: of the copy.
        swap: makes ``copy`` the live one.

    Returns:
        How many nodes were brought over.
    """
    noted = _decode_notes(notes.read())
    if noted is None:
        known, n_caught_up = catch_up(records, live, copy, moved)
    else:
        # The copy was live once, and whoever opened it then may be writing to it now: neither is simply right.
        noted, n_late = bring_late(records, copy, live, moved.reversed(), noted)
        known, n_caught_up = bring_late(records, live, copy, moved, _from_the_other_side(noted))
        n_caught_up += n_late
    # Before the swap: whoever dies in it leaves notes by which a later call finds what came late.
    notes.write(encode_notes(known))
    swap()
    known, n_late = bring_late(records, live, copy, moved, known)
    if n_late:
        notes.write(encode_notes(known))
    return n_caught_up + n_late


def encode_notes(notes: Mapping[str, Note]) -> bytes:
    """Notes as bytes; they hold digests and sketches, no text and no vector."""
    return zlib.compress(json.dumps(notes).encode())


def _decode_notes(content: bytes | None) -> dict[str, Note] | None:
    """Notes from bytes; None if there are none, or they are damaged, so that nothing can be told from them."""
    if content is None:
        return None
    try:
        decoded = json.loads(zlib.decompressobj().decompress(content, MOST_BYTES))
        return {
            str(node_id): (str(digest), [float(part) for part in source], [float(part) for part in target])
            for node_id, (digest, source, target) in decoded.items()
        }
    except (ValueError, TypeError, AttributeError, RecursionError, zlib.error):
        return None


def _from_the_other_side(notes: Mapping[str, Note]) -> dict[str, Note]:
    return {node_id: (digest, target, source) for node_id, (digest, source, target) in notes.items()}


def _note(record: Record, target: FloatArray) -> Note:
    return _digest(record.content), _sketch(record.vector), _sketch(target)


def _is_noted(records: Records, record: Record, note: Note | None, part: int) -> bool:
    if note is None or note[0] != _digest(record.content):
        return False
    weights = np.abs(_weights(len(record.vector))).sum(axis=1)
    off = np.abs(np.subtract(_sketch(record.vector), note[part]))
    return bool((off <= records.rounding * weights).all())


def _digest(content: str) -> str:
    return hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _sketch(vector: FloatArray) -> list[float]:
    """Projections that tell two vectors apart, and not one from the same with other last bits."""
    products = _weights(len(vector)) * np.asarray(vector, dtype=np.float64)
    return [float(total) for total in products.sum(axis=1)]


def _weights(dimension: int) -> FloatArray:
    if dimension not in _WEIGHTS:
        _WEIGHTS[dimension] = np.random.default_rng(dimension).normal(size=(SKETCHES, dimension))
    return _WEIGHTS[dimension]


_WEIGHTS: dict[int, FloatArray] = {}


def _wanted(records: Records, page: Sequence[Record], moved: NodesOfCopy, there: Mapping[str, Record]) -> FloatArray:
    vectors = np.stack([record.vector for record in page])
    copied = np.full_like(vectors, np.nan)
    for row, record in enumerate(page):
        if record.id in there:
            copied[row] = there[record.id].vector
    names = [record.id for record in page]
    return moved.wanted(names, vectors, lambda one, other: _same(records, one, other), copied)


def _equal(records: Records, found: Record, record: Record, vector: FloatArray) -> bool:
    return found.content == record.content and bool(_same(records, found.vector[None], vector[None])[0])


def _same(records: Records, found: FloatArray, expected: FloatArray) -> BoolArray:
    return np.asarray((np.abs(found - expected) <= records.rounding).all(axis=1))
