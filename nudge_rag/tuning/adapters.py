"""The map of queries that belongs to what is live in a store: written with a push, found by retrievers."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nudge_rag.common.archive import CorruptArchiveError
from nudge_rag.journal.journal import Journal
from nudge_rag.solvers.linear_map.adapter import QueryAdapter
from nudge_rag.stores.base import EmbeddingStore

__all__ = ["ADAPTER", "live_adapter", "pack_adapter", "unpack_adapter"]

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
