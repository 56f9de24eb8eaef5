"""LangChain's InMemoryVectorStore: a dictionary of documents with their vectors."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

from nudge_rag.stores.mapping import MappingStore, path_key, save_beside

__all__ = ["InMemoryStore"]


class _VectorsOf(MutableMapping[str, list[float]]):
    """The vectors inside a dictionary of documents; everything else in it is out of reach."""

    def __init__(self, documents: dict[str, dict[str, Any]]) -> None:
        self._documents = documents

    def __getitem__(self, node_id: str) -> list[float]:
        vector: list[float] = self._documents[node_id]["vector"]
        return vector

    def __setitem__(self, node_id: str, vector: list[float]) -> None:
        self._documents[node_id]["vector"] = vector

    def __delitem__(self, node_id: str) -> None:
        raise TypeError("nodes are not deleted through their vectors")

    def __iter__(self) -> Iterator[str]:
        return iter(self._documents)

    def __len__(self) -> int:
        return len(self._documents)


class InMemoryStore(MappingStore):
    """Adapter for ``langchain_core.vectorstores.InMemoryVectorStore``, which ranks by cosine.

    Args:
        vector_store: the store.
        persist_path: the file of its ``dump``; written, atomically, after every `replace`. Without it changes stay in
            memory.

    Raises:
        TypeError: anything but an InMemoryVectorStore.
    """

    def __init__(self, vector_store: Any, *, persist_path: str | Path | None = None) -> None:
        documents = getattr(vector_store, "store", None)
        if not isinstance(documents, dict) or not callable(getattr(vector_store, "dump", None)):
            raise TypeError(f"expected a LangChain InMemoryVectorStore, got {type(vector_store).__name__}")
        path = None if persist_path is None else Path(persist_path)
        self.vector_store = vector_store
        super().__init__(
            _VectorsOf(documents),
            name="in-memory",
            key="in-memory" if path is None else path_key("in-memory", path),
            save=None if path is None else lambda: save_beside(path, vector_store.dump),
        )

    @classmethod
    def open(cls, persist_path: str | Path, embedding: Any = None) -> InMemoryStore:
        """The store that a dumped file holds; ``embedding`` is only needed to search by text."""
        try:
            from langchain_core.vectorstores import InMemoryVectorStore
        except ImportError as error:
            raise ImportError("InMemoryStore.open needs LangChain: pip install 'nudge-rag[langchain]'") from error
        return cls(InMemoryVectorStore.load(str(persist_path), embedding), persist_path=persist_path)
