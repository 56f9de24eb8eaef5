"""Vectors written over those that are expected, and read back: whose vectors are there afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.stores.access import read_present, replace_vectors_if, same_rows, same_vectors
from nudge_rag.stores.base import EmbeddingStore

__all__ = ["Written", "undo_writes", "write_over"]

# A store that scales or rounds vectors leaves their direction nearly as it was.
SAME_DIRECTION = 0.99


@dataclass(frozen=True)
class Written:
    """The outcome of a write of vectors.

    Attributes:
        kept: ids that hold the vector written.
        newer: ids that something else has written to in the meantime; their vectors are left alone.
        missing: ids that are no longer in the store.
        refused: ids for which the store did not keep the vector written.
    """

    kept: list[str] = field(default_factory=list)
    newer: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def write_over(store: EmbeddingStore, ids: Sequence[str], expected: FloatArray, vectors: FloatArray) -> Written:
    """Write ``vectors`` to the nodes that still hold ``expected``, and read all of them back.

    A store keeps no vector exactly, or it keeps them all: if one is as it was written, others that are not were written
    by somebody else.
    """
    left = set(replace_vectors_if(store, ids, expected, vectors))
    present, _ = read_present(store, ids)
    written = Written(missing=[node_id for node_id in ids if node_id not in present])
    differing = []
    for row, node_id in enumerate(ids):
        if node_id not in present:
            continue
        if same_vectors(store, present[node_id], vectors[row]):
            written.kept.append(node_id)
        elif node_id in left:
            written.newer.append(node_id)
        else:
            differing.append(row)
    for row in differing:
        refused = not written.kept and _not_kept(store, present[ids[row]], expected[row], vectors[row])
        (written.refused if refused else written.newer).append(ids[row])
    return written


def undo_writes(store: EmbeddingStore, ids: Sequence[str], before: FloatArray, after: FloatArray) -> tuple[int, bool]:
    """Restore ``before`` on nodes that hold ``after``, scaled or rounded by the store or not.

    Returns:
        How many nodes hold ``before`` now, and whether no node holds ``after`` any more.
    """
    present, _ = read_present(store, ids)
    rows = [row for row, node_id in enumerate(ids) if node_id in present]
    now = np.array([present[ids[row]] for row in rows]) if rows else before[:0]
    back = [
        place
        for place, row in enumerate(rows)
        if not same_vectors(store, now[place], before[row]) and _is_like(now[place], after[row])
    ]
    if back:
        names, wanted = [ids[rows[place]] for place in back], before[[rows[place] for place in back]]
        replace_vectors_if(store, names, now[back], wanted)
        present, _ = read_present(store, ids)
        rows = [row for row, node_id in enumerate(ids) if node_id in present]
        now = np.array([present[ids[row]] for row in rows]) if rows else before[:0]
    restored = same_rows(store, now, before[rows])
    left = any(
        not same and same_vectors(store, now[place], after[row])
        for place, (row, same) in enumerate(zip(rows, restored, strict=True))
    )
    return sum(restored), not left


def _not_kept(store: EmbeddingStore, found: FloatArray, expected: FloatArray, wanted: FloatArray) -> bool:
    return same_vectors(store, found, expected) or _is_like(found, wanted)


def _is_like(found: FloatArray, wanted: FloatArray) -> bool:
    """Whether ``found`` is ``wanted``, as it is or as a store scales or rounds it."""
    if found.tobytes() == wanted.tobytes():
        return True
    lengths = float(np.linalg.norm(found)) * float(np.linalg.norm(wanted))
    return lengths > 0 and float(np.dot(found, wanted)) / lengths > SAME_DIRECTION
