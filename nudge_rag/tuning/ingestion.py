"""Map new nodes as they are embedded, if a map of all nodes is live in the store that they go to."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from nudge_rag.journal.goal import MapVectors
from nudge_rag.journal.packed_map import node_map_of
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.tuning.adapters import open_journal
from nudge_rag.tuning.looking import SECONDS_BETWEEN_LOOKS, Looker

__all__ = ["DocumentMap"]

logger = logging.getLogger(__name__)


class DocumentMap(Looker):
    """The map of all nodes that is live in a store, applied to nodes that are about to be added to it.

    The vectors that the model gave are recorded in the history first, so that `nudge_rag.rollback` restores them, the
    next `nudge_rag.tune` starts from them, and nothing maps them twice. Without a map, vectors stay as they are.
    What is live is looked at before each batch that is mapped, and otherwise once a minute.

    Args:
        open_store: opens the vector store; called at first use.
        versions: folder of its history; None for the store's own, or that which the store names.
        seconds: between two looks at what is live while no map is.

    Example:
        >>> from nudge_rag.stores import MappingStore
        >>> documents = DocumentMap(lambda: MappingStore({"n1": [1.0, 0.0]}, key="example of a document map"))
        >>> documents([[0.6, 0.8]])    # nothing was pushed
        [[0.6, 0.8]]
    """

    def __init__(
        self,
        open_store: Callable[[], EmbeddingStore],
        versions: str | Path | None = None,
        seconds: float = SECONDS_BETWEEN_LOOKS,
    ) -> None:
        super().__init__(open_store, versions, seconds)
        self._map: MapVectors | None = None

    def __call__(self, vectors: Sequence[Sequence[float]]) -> list[list[float]]:
        """Map embeddings of documents, as frameworks pass them.

        Raises:
            JournalError: the history cannot be read or written to.
            ValueError: a map is live, and the store does not keep vectors bit for bit, by which they are known again.
        """
        if not len(vectors):
            return []
        store = self._open_store()
        with self._lock:
            # A batch that is mapped is recorded, for which the history is read anyway.
            if self._is_due(time.monotonic()) or self._map is not None:
                self._begin_look()
                node_map = node_map_of(open_journal(self._open_live(), self._versions).live)
                self._map = None if node_map is None else MapVectors(node_map)
                self._end_look(time.monotonic())
            map_vectors = self._map
        if map_vectors is None:
            return [list(vector) for vector in vectors]
        if store.capabilities.rounding or not store.capabilities.keeps_norms:
            raise ValueError(
                f"this {store.name} store does not keep vectors bit for bit, so that nodes that were mapped before they"
                " were added would not be known again: add them as they are, and call nudge_rag.reapply()"
            )
        originals = store.as_stored(np.asarray(vectors))
        mapped = store.as_stored(map_vectors(originals))
        open_journal(store, self._versions).ingested.add(originals, mapped)
        found: list[list[float]] = mapped.tolist()
        return found
