"""Stores whose vectors are searched in the memory of this process, whatever their file holds by now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from nudge_rag.common.arrays import FloatArray

__all__ = ["MemoryStore"]


@runtime_checkable
class MemoryStore(Protocol):
    """A store in memory, whose file other processes may write to."""

    def vectors_in_memory(self, ids: Sequence[str]) -> dict[str, FloatArray]:
        """Return the vectors of those of ``ids`` that are in memory, without a look at the file."""
        ...
