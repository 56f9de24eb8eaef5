"""`Fragment`: a part of a store's nodes that any process can read; `FragmentedStore`: a store made of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from typing import Any, Protocol, runtime_checkable

from nudge_rag.common.arrays import FloatArray
from nudge_rag.stores.base import EmbeddingStore

__all__ = ["Fragment", "FragmentedStore", "StoreFragment"]


class Fragment(Protocol):
    """A part of a store's nodes. It can be pickled, and is read alone: by another process, or on another machine."""

    @property
    def rows(self) -> int:
        """Number of rows; at least as many as nodes."""
        ...

    def batches(self, batch_size: int) -> Iterator[tuple[list[str], FloatArray]]:
        """Read its nodes in their order, in batches of at most ``batch_size``: ids and vectors."""
        ...


@runtime_checkable
class FragmentedStore(Protocol):
    """A store whose nodes lie in fragments.

    Attributes:
        executor: what reads the fragments; None for this process.
    """

    executor: Executor | None

    def fragments(self, where: Any = None) -> Sequence[Fragment]:
        """Fragments of the store as it is now, in the order of `scan`; a later write does not change them."""
        ...


class StoreFragment:
    """All nodes of a store that has no fragments, as one that this process reads.

    Args:
        store: the store.
    """

    def __init__(self, store: EmbeddingStore) -> None:
        self._store = store

    @property
    def rows(self) -> int:
        """Number of nodes."""
        return self._store.count()

    def batches(self, batch_size: int) -> Iterator[tuple[list[str], FloatArray]]:
        """All nodes, as the store scans them."""
        return self._store.scan(batch_size)
