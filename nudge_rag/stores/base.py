"""The protocol that every vector store meets: one adapter per database implements it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from nudge_rag.common.arrays import Float64Array, FloatArray
from nudge_rag.common.similarity import Similarity
from nudge_rag.errors import StoreError, UnknownIdError

__all__ = [
    "Capabilities",
    "EmbeddingStore",
    "SearchResult",
    "SideBySideStore",
    "Similarity",
    "StoreError",
    "UnknownIdError",
]


@dataclass(frozen=True)
class Capabilities:
    """Describes what a store can do, as data.

    Attributes:
        similarity: how the store ranks; scores are larger-is-better for all three (l2 is minus the squared distance).
        dtype: the dtype that ``read`` returns and that the store keeps, bit for bit but for ``rounding``.
        keeps_norms: whether a vector that is not unit length is stored as it is.
        exact_search: whether ``search`` is exact rather than approximate.
        batch_search: whether one call to the database answers many queries.
        filters: whether ``search`` takes a ``where``.
        persistent: whether another process can open the same store.
        rounding: how far a number may be off when it is read back, if the store does not keep vectors bit for bit.
        side_by_side: whether the store can hold a second version of all vectors (it is a `SideBySideStore`).
        atomic_switch: whether it swaps the two in one step, so that no reader ever sees a mixture.
        experimental: whether the adapter was only checked against the client's signatures, not against the database.
    """

    similarity: Similarity
    dtype: str = "float32"
    keeps_norms: bool = True
    exact_search: bool = True
    batch_search: bool = True
    filters: bool = True
    persistent: bool = False
    rounding: float = 0.0
    side_by_side: bool = False
    atomic_switch: bool = False
    experimental: bool = False


@dataclass(frozen=True)
class SearchResult:
    """Nearest nodes of each query, best first.

    Attributes:
        ids: one list of node ids per query; shorter than k if the store (or the filter) holds fewer nodes.
        scores: one float64 array per query, same lengths, larger is better, in the store's own similarity.
    """

    ids: list[list[str]]
    scores: list[Float64Array]


@runtime_checkable
class EmbeddingStore(Protocol):
    """A vector store seen as a table of embeddings.

    Implementations never change text or metadata and never call an embedding model.
    """

    @property
    def name(self) -> str:
        """The database's name, such as ``chroma``."""
        ...

    @property
    def key(self) -> str:
        """A string that names this store among all stores, fit for a folder name."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """Describe what the store can do."""
        ...

    def count(self) -> int:
        """Number of nodes."""
        ...

    def read(self, ids: Sequence[str]) -> FloatArray:
        """Read the vectors of ``ids``, shape (len(ids), d), in the order asked.

        Raises:
            UnknownIdError: an id is not in the store.
        """
        ...

    def scan(self, batch_size: int = 1000) -> Iterator[tuple[list[str], FloatArray]]:
        """All nodes, in batches of at most ``batch_size``: ids and vectors."""
        ...

    def search(self, queries: FloatArray, k: int, *, where: Any = None) -> SearchResult:
        """Search the k best nodes of each row of ``queries``; ``where`` is a filter in the store's own form."""
        ...

    def matching(self, ids: Sequence[str], where: Any) -> set[str]:
        """Return those of ``ids`` that pass the filter ``where``, or all that exist if it is None."""
        ...

    def as_stored(self, vectors: FloatArray) -> FloatArray:
        """``vectors`` as they will be read back after `replace`: in the store's dtype, with its rounding."""
        ...

    def replace(self, ids: Sequence[str], vectors: FloatArray) -> None:
        """Overwrite the vectors of ``ids``; text and metadata stay. Checks everything before it writes anything."""
        ...


@runtime_checkable
class SideBySideStore(Protocol):
    """A store that can hold copies of all its vectors beside the live ones, and make one of them live.

    A copy is complete (every node, with text, metadata and vector as they are now), and is not seen by anyone who reads
    or searches the store as usual.
    """

    def create_copy(self, label: str) -> EmbeddingStore:
        """Copy every node to a copy ``label``; a leftover of that label is replaced. Returns its adapter."""
        ...

    def open_copy(self, label: str) -> EmbeddingStore:
        """Return the adapter of the copy ``label``.

        Raises:
            ValueError: there is none.
        """
        ...

    def copy_labels(self) -> list[str]:
        """Labels of the copies."""
        ...

    def switch(self, label: str) -> None:
        """Swap what is live and the copy ``label``, in one step: the same call again undoes it."""
        ...

    def drop_copy(self, label: str) -> None:
        """Remove the copy ``label``.

        Raises:
            ValueError: there is none.
        """
        ...
