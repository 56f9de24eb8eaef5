"""Which history tells a retriever what is live, and what it does if that cannot be read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nudge_rag.tuning.adapters import OnUnreadable

__all__ = ["History"]


@dataclass(frozen=True)
class History:
    """Where the live nudge and its map are looked up.

    Attributes:
        versions: folder of the history; None for the store's own, or that which the store names.
        on_unreadable: what is done if it cannot be read.
        maps_queries: whether queries pass the map of the nudge here; False if they have passed it already.
        persist_path: the file of a store that does not say it itself; the history lies beside it.
    """

    versions: str | Path | None = None
    on_unreadable: OnUnreadable = "raise"
    maps_queries: bool = True
    persist_path: str | Path | None = None
