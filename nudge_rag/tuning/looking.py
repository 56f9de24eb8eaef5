"""What looks from time to time at what is live in a store."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nudge_rag.journal.changes import CHANGES_HERE
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.stores.memory.held import MemoryStore

__all__ = ["SECONDS_BETWEEN_LOOKS", "Looker"]

SECONDS_BETWEEN_LOOKS = 60.0


class Looker:
    """Keeps what it found at its last look at a store; a copy, maybe in another process, looks itself.

    What this process pushes or undoes is seen at once, what another one does at the next look.

    Args:
        open_store: opens the vector store.
        versions: folder of its history; None for the store's own, or that which the store names.
        seconds: between two looks.
    """

    def __init__(self, open_store: Callable[[], EmbeddingStore], versions: str | Path | None, seconds: float) -> None:
        self._open_store, self._versions, self._seconds = open_store, versions, seconds
        self._lock = threading.Lock()
        self._looked: float | None = None
        self._in_memory: EmbeddingStore | None = None
        self._seen_changes = self._changes_at_look = 0

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the lock, the store, and when was looked last."""
        left_out = ("_lock", "_looked", "_in_memory")
        return {name: value for name, value in self.__dict__.items() if name not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin to look anew."""
        self.__dict__.update(state)
        self._lock = threading.Lock()
        self._looked = self._in_memory = None

    def _is_due(self, now: float) -> bool:
        return self._looked is None or self._seen_changes != CHANGES_HERE.number or now - self._looked >= self._seconds

    def _begin_look(self) -> None:
        """What this process changes from here on makes the next look due."""
        self._changes_at_look = CHANGES_HERE.number

    def _is_changing(self) -> bool:
        """Whether this process is changing a store, or has done so since the look began."""
        return CHANGES_HERE.n_under_way > 0 or self._changes_at_look != CHANGES_HERE.number

    def _end_look(self, now: float) -> None:
        """Note that a look has succeeded; after one that has not, the next is due."""
        self._looked, self._seen_changes = now, self._changes_at_look

    def _open_live(self) -> EmbeddingStore:
        """Open the store; one whose handle stays at a version that another process has switched away follows."""
        store = self._open_store() if self._in_memory is None else self._in_memory
        if isinstance(store, MemoryStore):
            # It knows the file as it was at the last look, and reads it again only if it has changed.
            self._in_memory = store
        follow = getattr(store, "follow_live", None)
        if follow is not None:
            follow()
        return store
