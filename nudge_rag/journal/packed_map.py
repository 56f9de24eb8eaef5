"""A linear map in the record of a push: of the queries, or of all nodes."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import numpy as np

from nudge_rag.common.archive import CorruptArchiveError
from nudge_rag.journal.versions import Version
from nudge_rag.solvers.linear_map.adapter import QueryAdapter

__all__ = ["NODE_MAP", "node_map_of", "pack_adapter", "unpack_adapter"]

# Its name in the details of a version, and among the arrays of a saved nudge.
NODE_MAP = "node_map"


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


def node_map_of(version: Version | None) -> QueryAdapter | None:
    """Return the map that all nodes of ``version`` passed; None if it has none.

    Raises:
        CorruptArchiveError: it is damaged.
    """
    packed = None if version is None else version.manifest.get("details", {}).get(NODE_MAP)
    return None if packed is None else unpack_adapter(packed)
