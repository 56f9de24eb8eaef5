"""The nodes that one request lets through, as a store that is searched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from llama_index.retrievers.nudge.databases.base import Database, Request

from nudge_rag.common.arrays import FloatArray
from nudge_rag.stores import Capabilities, SearchResult

__all__ = ["FilteredStore"]


class FilteredStore:
    """The nodes that one request lets through, as an `EmbeddingStore` that only searches."""

    def __init__(self, database: Database, request: Request) -> None:
        self._database = database
        self._request = request
        self._store = request.open_adapter()

    @property
    def name(self) -> str:
        """The word for the database."""
        return self._store.name

    @property
    def key(self) -> str:
        """The key of the whole store."""
        return self._store.key

    @property
    def capabilities(self) -> Capabilities:
        """What the whole store can do."""
        return self._store.capabilities

    def count(self) -> int:
        """Number of nodes in the whole store."""
        return self._store.count()

    def read(self, ids: Sequence[str]) -> FloatArray:
        """Vectors of nodes of the whole store, in the order asked."""
        return self._store.read(ids)

    def scan(self, batch_size: int = 1000) -> Iterator[tuple[list[str], FloatArray]]:
        """All nodes of the whole store."""
        return self._store.scan(batch_size)

    def search(self, queries: FloatArray, k: int, *, where: Any = None) -> SearchResult:
        """The k best nodes of the request's query, among those that it lets through."""
        return self._database.search(self._request, k)

    def matching(self, ids: Sequence[str], where: Any) -> set[str]:
        """Return those of ``ids`` that the request lets through."""
        return self._database.match(self._request, list(ids))

    def as_stored(self, vectors: FloatArray) -> FloatArray:
        """``vectors`` as the whole store would keep them."""
        return self._store.as_stored(vectors)

    def replace(self, ids: Sequence[str], vectors: FloatArray) -> NoReturn:
        """Refuse: a search writes nothing."""
        raise TypeError("a search writes nothing")
