"""Lay a nudge over a store: the vectors that nodes would have after a push, and nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.caller import warn_caller
from nudge_rag.errors import JournalError, LostHistoryError, NudgeError
from nudge_rag.journal.journal import Journal
from nudge_rag.journal.node_map import mapped_store, untouched_store
from nudge_rag.solvers.linear_map.adapter import QueryAdapter
from nudge_rag.stores.access import read_present
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.stores.overlay import OverlayStore
from nudge_rag.tuning.adapters import OnUnreadable, open_journal

__all__ = ["Moved", "lay_over"]


class Moved(Protocol):
    """What is laid over a store: a `nudge_rag.Nudge`."""

    @property
    def ids(self) -> tuple[str, ...]:
        """(n,) ids of nodes."""

    @property
    def vectors(self) -> FloatArray:
        """(n, d) their new vectors."""

    @property
    def versions(self) -> Path | None:
        """The folder of the history; None for the store's own."""

    @property
    def node_map(self) -> QueryAdapter | None:
        """The map that all other nodes pass; None for none."""


def lay_over(
    nudge: Moved,
    store: EmbeddingStore,
    versions: str | Path | None = None,
    on_unreadable: OnUnreadable = "raise",
) -> OverlayStore:
    """Return ``store`` as a push of ``nudge`` would make it, for reading and searching.

    Nodes that are nudged now and not by this nudge have their originals. If it maps all nodes, or what is live does,
    each search streams them all.

    Args:
        nudge: what is laid over it.
        store: the store that it is laid over.
        versions: the folder of its history; None for the nudge's, the store's own, or that which the store names.
        on_unreadable: if the history cannot be read, ``"raise"``, or ``"serve"`` the nudge's own nodes with a warning;
            a nudge that maps all nodes needs it.

    Raises:
        JournalError: the history cannot be read.
        StoreError: the store failed.

    Example:
        >>> from nudge_rag import Nudge, ValidationCurve
        >>> from nudge_rag.stores import MappingStore
        >>> store = MappingStore({"n1": [1.0, 0.0], "n2": [0.0, 1.0]}, key="example of an overlay")
        >>> curve = ValidationCurve(np.array([0.1]), np.array([1.0]), "nDCG@10")
        >>> def move(node, before, after):
        ...     arrays = np.array([after]), np.array([before])
        ...     return Nudge(store, (node,), *arrays, 0.1, curve, True, "moved", "none")
        >>> receipt = move("n1", [1.0, 0.0], [0.8, 0.6]).push()
        >>> lay_over(move("n2", [0.0, 1.0], [0.6, 0.8]), store).read(["n1", "n2"]).tolist()
        [[1.0, 0.0], [0.6, 0.8]]
    """
    try:
        journal = open_journal(store, nudge.versions if versions is None else versions)
        live = journal.live
    except NudgeError as error:
        problem = f"whether other nodes are nudged now could not be read: {error}"
        refused = on_unreadable == "raise" and not isinstance(error, LostHistoryError)
        if refused or nudge.node_map is not None:
            raise JournalError(f"{problem} (on_unreadable='serve' serves this nudge's nodes alone)") from error
        warn_caller(problem)
        return OverlayStore(store, nudge.ids, nudge.vectors)
    if nudge.node_map is not None:
        return OverlayStore(mapped_store(store, journal, nudge.node_map), nudge.ids, nudge.vectors)
    if live is not None and live.is_streamed:
        return OverlayStore(untouched_store(store, journal), nudge.ids, nudge.vectors)
    return OverlayStore(store, *_nodes_as_pushed(nudge, store, journal))


def _nodes_as_pushed(nudge: Moved, store: EmbeddingStore, journal: Journal) -> tuple[tuple[str, ...], FloatArray]:
    """Ids and vectors of the nodes of a nudge, and of those that are nudged now and would get their originals back."""
    own = set(nudge.ids)
    others = [node_id for node_id in journal.nudged_ids() if node_id not in own]
    current, _ = read_present(store, others)
    if not current:
        return nudge.ids, nudge.vectors
    ids, held = list(current), np.array(list(current.values()))
    originals = journal.originals_of(ids, held)
    back = [row for row in range(len(ids)) if not np.array_equal(originals[row], held[row])]
    vectors = np.concatenate([nudge.vectors, originals[back].astype(nudge.vectors.dtype)])
    return (*nudge.ids, *(ids[row] for row in back)), vectors
