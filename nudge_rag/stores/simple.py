"""LlamaIndex's SimpleVectorStore: a dictionary in memory, persisted as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nudge_rag.stores.mapping import MappingStore, path_key, save_beside

__all__ = ["SimpleStore"]


class SimpleStore(MappingStore):
    """Adapter for ``llama_index.core.vector_stores.SimpleVectorStore``, which ranks by cosine.

    Args:
        vector_store: the store.
        persist_path: its JSON file; written, atomically, after every `replace`, so that other processes find it.
            Without it changes stay in memory, as with the framework's own store.

    Raises:
        TypeError: anything but a SimpleVectorStore.
    """

    def __init__(self, vector_store: Any, *, persist_path: str | Path | None = None) -> None:
        table = getattr(getattr(vector_store, "data", None), "embedding_dict", None)
        if not isinstance(table, dict):
            raise TypeError(f"expected a LlamaIndex SimpleVectorStore, got {type(vector_store).__name__}")
        path = None if persist_path is None else Path(persist_path)
        self.vector_store = vector_store
        super().__init__(
            table,
            name="simple",
            key=None if path is None else path_key("simple", path),
            save=None if path is None else lambda: save_beside(path, vector_store.persist),
        )

    @classmethod
    def open(cls, persist_path: str | Path) -> SimpleStore:
        """The store that a JSON file holds, without an index."""
        try:
            from llama_index.core.vector_stores import SimpleVectorStore
        except ImportError as error:
            raise ImportError("SimpleStore.open needs LlamaIndex: pip install 'nudge-rag[llama-index]'") from error
        return cls(SimpleVectorStore.from_persist_path(str(persist_path)), persist_path=persist_path)
