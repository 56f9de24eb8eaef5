"""Copies whose every vector is made of a live one, or the other way: which of the two is live, and what came late."""

from __future__ import annotations

import numpy as np

from nudge_rag.journal.differences import Differences
from nudge_rag.journal.journal import FRESH, PREVIOUS, Journal
from nudge_rag.journal.versions import Version
from nudge_rag.stores.access import read_present
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.stores.copies import DerivedNodes

__all__ = ["count_made", "find_late", "find_other_base"]

NODES_PER_STEP = 1_000


def find_other_base(journal: Journal, version: Version) -> str:
    """Say that another version is live than the one that ``version`` was made over; empty if none."""
    live = journal.live
    if FRESH not in version.manifest and PREVIOUS not in version.manifest:  # an earlier release has recorded neither
        return "" if live is None or live.number < version.number else f"{_named(live.name)} was pushed since"
    made_over = None if version.manifest.get(FRESH) is True else version.manifest.get(PREVIOUS)
    name = None if live is None else live.name
    return "" if name == made_over else f"it was made over {_named(made_over)}, and {_named(name)} is live"


def _named(version: object) -> str:
    return "no version" if version is None else f"version {version}"


def find_late(store: EmbeddingStore, copy: EmbeddingStore, moved: DerivedNodes) -> Differences:
    """Nodes of a copy of which the live vectors were not made, or that were not made of these: somebody wrote to it."""
    found = Differences()
    for names, vectors in copy.scan(NODES_PER_STEP):
        present, _ = read_present(store, names)
        found.only_copy += [name for name in names if name not in present]
        rows = [row for row, name in enumerate(names) if name in present]
        if rows:
            there = [names[row] for row in rows]
            live = np.stack([present[name] for name in there])
            if moved.to_copy:
                made = moved.is_made(vectors[rows], moved.make(there, live))
            else:
                made = moved.is_made(live, moved.make(there, vectors[rows]))
            found.changed += [name for name, same in zip(there, made, strict=True) if not same]
    return found


def count_made(journal: Journal, version: Version, copy: EmbeddingStore) -> tuple[int, int]:
    """Count live vectors that were made of those of the copy, and those of the copy that were made of live ones.

    A few nodes are looked at, or as many more as it takes to tell which of the two is live.
    """
    store, derivation = journal.store, journal.derivation(version)
    counts = [0, 0]
    for names, vectors in store.scan(NODES_PER_STEP):
        present, _ = read_present(copy, names)
        rows = [row for row, name in enumerate(names) if name in present]
        if rows:
            there, live = [names[row] for row in rows], vectors[rows]
            beside = np.stack([present[name] for name in there]).astype(live.dtype, copy=False)
            counts[0] += int(derivation.is_made(live, derivation.make(there, beside)).sum())
            counts[1] += int(derivation.is_made(beside, derivation.make(there, live)).sum())
        if counts[0] != counts[1]:
            break
    return counts[0], counts[1]
