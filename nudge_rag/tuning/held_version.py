"""Find the version whose vectors an index holds in memory: its file may hold those of a later one by now."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from nudge_rag.common.arrays import FloatArray, IntArray
from nudge_rag.errors import JournalError
from nudge_rag.journal.coding import Vectors
from nudge_rag.journal.journal import Journal
from nudge_rag.journal.node_map import unpack_adapter
from nudge_rag.journal.versions import Version
from nudge_rag.solvers.linear_map.adapter import QueryAdapter
from nudge_rag.stores.access import same_vectors
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.stores.memory.held import MemoryStore

__all__ = ["ADAPTER", "NOTHING", "HeldVersion", "HeldVersions", "describe_age"]

# Its name in the details of a version, and among the arrays of a saved nudge.
ADAPTER = "adapter"
# Nodes of a version by which it is known: those that it moved, and those that an earlier one had moved.
N_MOVED, N_MOVED_BEFORE = 48, 16

Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class HeldVersion:
    """The version whose vectors are searched, and its map of queries.

    Attributes:
        name: of the version; None if the vectors are those from before any push.
        mark: tells it from another of that name.
        adapter: the map; None if it has none.
    """

    name: str | None = None
    mark: str | None = None
    adapter: QueryAdapter | None = None

    @classmethod
    def of(cls, version: Version | None) -> HeldVersion:
        """Return what is served for a version, or for none.

        Raises:
            CorruptArchiveError: its map is damaged.
        """
        if version is None:
            return NOTHING
        packed = version.manifest.get("details", {}).get(ADAPTER)
        return cls(version.name, version.mark, None if packed is None else unpack_adapter(packed))


NOTHING = HeldVersion()


@dataclass(frozen=True)
class _Nodes:
    """Some nodes of a version that tell whether a store holds its vectors."""

    ids: tuple[str, ...]
    vectors: Vectors
    n_moved: int

    @classmethod
    def of(cls, version: Version) -> _Nodes | None:
        """Choose them, evenly over the record; None if it says of no node that it was moved."""
        for block in version.parts():
            known = block.vectors
            moved = (known.after != known.before).any(axis=1)
            moved_before = ~moved & (known.after != known.originals).any(axis=1)
            rows_moved = _evenly(moved, N_MOVED)
            rows = np.concatenate([rows_moved, _evenly(moved_before, N_MOVED_BEFORE)])
            if len(rows):
                vectors = Vectors(known.originals[rows], known.before[rows], known.after[rows])
                return cls(tuple(block.ids[row] for row in rows.tolist()), vectors, len(rows_moved))
        return None

    def compare(self, store: EmbeddingStore, held: Mapping[str, FloatArray]) -> _Evidence:
        """Compare them with the vectors that a store holds in memory."""
        own = known = against = 0
        n_nodes = sum(node_id in held for node_id in self.ids)
        for row, node_id in enumerate(self.ids):
            if node_id not in held:
                continue
            parts = (self.vectors.after, self.vectors.before, self.vectors.originals)
            is_after, *is_earlier = (same_vectors(store, held[node_id], part[row]) for part in parts)
            known += is_after
            own += is_after and not any(is_earlier)
            against += any(is_earlier) and not is_after
        return _Evidence(n_nodes, own, known, against, self.n_moved == 0)


@dataclass(frozen=True)
class _Evidence:
    """Numbers of nodes that speak for a version, or against it; those that were embedded again do neither.

    Attributes:
        n_nodes: that were looked at.
        own: hold what it wrote, and no earlier version had.
        known: hold what it wrote.
        against: hold what it found, or their original.
        is_same: whether the version moved no node, so that its vectors are those of the one before.
    """

    n_nodes: int = 0
    own: int = 0
    known: int = 0
    against: int = 0
    is_same: bool = False

    @property
    def share(self) -> float:
        """Of the nodes, how many hold what the version wrote."""
        return self.known / self.n_nodes if self.n_nodes else 0.0

    @property
    def is_held(self) -> bool:
        """Whether the vectors are those of the version rather than earlier ones; some nodes may have lost theirs."""
        return self.own > 0 and self.own >= self.against


class HeldVersions:
    """Finds the version whose vectors a store holds: the live one, unless they are in memory and older than the file.

    A few nodes of each version are kept, so that its record is read once.

    Example:
        >>> from nudge_rag.stores import MappingStore
        >>> store = MappingStore({"a": [1.0, 0.0]}, key="example of held versions")
        >>> HeldVersions().find(Journal.open(store)).name is None
        True
    """

    def __init__(self) -> None:
        self._nodes: dict[str, _Nodes] = {}
        self._served = NOTHING

    def find(self, journal: Journal) -> HeldVersion:
        """Return the version of the vectors that are searched, by the history that was just read.

        Raises:
            CorruptArchiveError: a map is damaged.
        """
        self._served = self._find(journal)
        # A service may run for years of pushes.
        kept = {self._served.mark, *(version.mark for version in journal.versions)}
        self._nodes = {mark: nodes for mark, nodes in self._nodes.items() if mark in kept}
        return self._served

    def _find(self, journal: Journal) -> HeldVersion:
        live, store, candidates = journal.live, journal.store, _candidates(journal)
        # Most histories know no map: their vectors are not looked at.
        has_maps = self._served.adapter is not None or any(_has_map(version) for version in candidates)
        if not isinstance(store, MemoryStore) or not has_maps:
            return HeldVersion.of(live)
        of_live = _Evidence()
        for version in candidates:  # newest first: an older one may have written some of the same vectors
            evidence = self._ask(store, version.mark, version)
            if version is live:
                of_live = evidence
                if evidence.is_same and evidence.known > evidence.against:
                    return HeldVersion.of(live)
            if evidence.is_held:
                return HeldVersion.of(version)
        served = self._ask(store, self._served.mark)
        if served.is_held and served.share > of_live.share:  # its record is pruned, or it would have been found
            return self._served
        if live is None:
            return NOTHING
        if of_live.own or not of_live.against:
            return HeldVersion.of(live)
        return self._served if served.known and served.known >= served.against else NOTHING

    def _ask(self, store: EmbeddingStore, mark: str | None, version: Version | None = None) -> _Evidence:
        if mark is None or not isinstance(store, MemoryStore):
            return _Evidence()
        if mark not in self._nodes and version is not None:
            # A record that another process has just pruned tells nothing; one that is damaged stops a push, not this.
            with suppress(JournalError):
                nodes = _Nodes.of(version)
                if nodes is not None:
                    self._nodes[mark] = nodes
        nodes = self._nodes.get(mark)
        return _Evidence() if nodes is None else nodes.compare(store, store.vectors_in_memory(nodes.ids))


def describe_age(store_name: str, held: HeldVersion, live: Version | None) -> str:
    """Say that vectors in memory are not those of the live version, and what to do.

    Example:
        >>> describe_age("faiss", HeldVersion("0001", "0001-1c2d3e4f"), None).partition(". ")[0]
        'this faiss store holds the vectors of version 0001 in memory, and nothing is live by its history'
    """
    vectors = "from before any push" if held.name is None else f"of version {held.name}"
    what_is_live = "nothing" if live is None else f"version {live.name}"
    what_is_passed = "no map" if held.adapter is None else f"the map of version {held.name}"
    return (
        f"this {store_name} store holds the vectors {vectors} in memory, and {what_is_live} is live by its history."
        f" Queries pass {what_is_passed}, which fits these vectors: load the store again, and make its retriever or"
        " wrapped model anew. If it holds them then too, so does its file, and status() says what to do"
    )


def _candidates(journal: Journal) -> list[Version]:
    """The versions whose vectors may be in memory, newest first."""
    return [version for version in reversed(journal.versions) if version is journal.live or version.may_return]


def _has_map(version: Version) -> bool:
    return ADAPTER in version.manifest.get("details", {})


def _evenly(mask: Mask, most: int) -> IntArray:
    """At most so many of the rows that are marked, evenly over all."""
    rows = np.flatnonzero(mask)
    return rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(np.int64)]
