"""The map of queries that belongs to what is live in a store: written with a push, found by retrievers."""

from __future__ import annotations

import base64
import binascii
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nudge_rag.common.archive import CorruptArchiveError
from nudge_rag.common.caller import warn_caller
from nudge_rag.errors import NudgeError
from nudge_rag.journal.journal import Journal
from nudge_rag.solvers.linear_map.adapter import QueryAdapter
from nudge_rag.stores.base import EmbeddingStore

__all__ = ["ADAPTER", "LiveAdapter", "live_adapter", "map_query", "pack_adapter", "unpack_adapter"]

# A push by another process is noticed after so long.
SECONDS_BETWEEN_LOOKS = 60.0
# Its name in the details of a version, and among the arrays of a saved nudge.
ADAPTER = "adapter"


def pack_adapter(adapter: QueryAdapter) -> dict[str, Any]:
    """Return the adapter in the types of JSON: its dimension, and float32 numbers as base64.

    Example:
        >>> adapter = unpack_adapter(pack_adapter(QueryAdapter(np.eye(2))))
        >>> adapter.change.tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    numbers = np.ascontiguousarray(adapter.change, dtype="<f4")
    return {"dimension": adapter.dimension, "float32": base64.b64encode(numbers.tobytes()).decode("ascii")}


def unpack_adapter(packed: Mapping[str, Any]) -> QueryAdapter:
    """Read what `pack_adapter` wrote.

    Raises:
        CorruptArchiveError: it is something else, or damaged.
    """
    try:
        dimension = int(packed["dimension"])
        numbers = np.frombuffer(base64.b64decode(packed["float32"], validate=True), dtype="<f4")
        return QueryAdapter(numbers.reshape(dimension, dimension).astype(np.float32))
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise CorruptArchiveError(f"the adapter in the record of a push is damaged: {error}") from error


def live_adapter(store: EmbeddingStore, versions: str | Path | None = None) -> QueryAdapter | None:
    """Return the map that queries of ``store`` have to pass; None if what is live has none.

    Args:
        store: the vector store.
        versions: folder of its history; None for the store's own.

    Raises:
        CorruptArchiveError: the history or its adapter is damaged.
        JournalError: the history is elsewhere, or cannot be read.
        StoreError: the store failed.
    """
    live = Journal.open(store, versions).live
    packed = None if live is None else live.manifest.get("details", {}).get(ADAPTER)
    return None if packed is None else unpack_adapter(packed)


def map_query(adapter: QueryAdapter | None, vector: Sequence[float]) -> list[float]:
    """Map one query embedding, as frameworks pass it; as it is if there is no map, or no direction to map.

    Example:
        >>> map_query(QueryAdapter(np.array([[0.0, 1.0], [0.0, 0.0]])), [0.0, 1.0])
        [0.7071067811865475, 0.7071067811865475]
    """
    query = np.asarray(vector, dtype=np.float64)
    if adapter is None or not query.any():
        return list(vector)
    mapped: list[float] = adapter(query[None])[0].tolist()
    return mapped


class LiveAdapter:
    """The map that belongs to what is live in a store, looked up at first use and once a minute from then on.

    If the history cannot be read, queries stay as they are, and a warning says so once.

    Args:
        open_store: opens the vector store; called at first use.
        versions: folder of its history; None for the store's own.
        seconds: between two looks at the history.

    Example:
        >>> from nudge_rag.stores import MappingStore
        >>> adapter = LiveAdapter(lambda: MappingStore({"n1": [1.0, 0.0]}, key="example"))
        >>> adapter.map_query([0.6, 0.8])    # nothing was pushed
        [0.6, 0.8]
    """

    def __init__(
        self,
        open_store: Callable[[], EmbeddingStore],
        versions: str | Path | None = None,
        seconds: float = SECONDS_BETWEEN_LOOKS,
    ) -> None:
        self._open_store, self._versions, self._seconds = open_store, versions, seconds
        self._lock = threading.Lock()
        self._adapter: QueryAdapter | None = None
        self._looked: float | None = None
        self._warned = False

    def find(self) -> QueryAdapter | None:
        """Return the map; None if what is live has none."""
        with self._lock:
            now = time.monotonic()
            if self._looked is None or now - self._looked >= self._seconds:
                self._adapter, self._looked = self._look(), now
            return self._adapter

    def map_query(self, vector: Sequence[float]) -> list[float]:
        """Map one query embedding; as it is if what is live has no map."""
        return map_query(self.find(), vector)

    def _look(self) -> QueryAdapter | None:
        try:
            return live_adapter(self._open_store(), self._versions)
        except NudgeError as error:
            if not self._warned:
                warn_caller(f"whether queries must pass a map of the live nudge could not be read: {error}")
            self._warned = True
            return self._adapter
