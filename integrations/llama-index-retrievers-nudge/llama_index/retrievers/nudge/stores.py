"""From a LlamaIndex index or vector store to the adapter of its database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from llama_index.core import VectorStoreIndex
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.retrievers.nudge.databases import DATABASES, database_of

from nudge_rag.stores import EmbeddingStore, FaissStore, SimpleStore

__all__ = ["embedding_store", "vector_store_of"]


def vector_store_of(index_or_store: Any) -> Any:
    """The vector store inside an index; anything else as it is."""
    return index_or_store.vector_store if isinstance(index_or_store, VectorStoreIndex) else index_or_store


def embedding_store(index_or_store: Any, *, persist_path: str | Path | None = None) -> EmbeddingStore:
    """The `nudge_rag.stores.EmbeddingStore` of a `VectorStoreIndex` or of its vector store.

    Args:
        index_or_store: an index, a vector store, or an `EmbeddingStore`, which is returned as it is.
        persist_path: for SimpleVectorStore and the FAISS stores, the file that changes are written through to.

    Raises:
        TypeError: a store that is not supported, with the list of those that are.
        ValueError: ``persist_path`` for a store that keeps itself.
    """
    store = vector_store_of(index_or_store)
    if isinstance(store, SimpleVectorStore):
        return SimpleStore(store, persist_path=persist_path)
    if type(store).__name__ == "FaissMapVectorStore":
        return FaissStore(store.client, lambda: store._faiss_id_to_node_id_map, persist_path=persist_path)
    if type(store).__name__ == "FaissVectorStore":
        return FaissStore(store.client, _ids_by_position(index_or_store), persist_path=persist_path)
    if persist_path is not None:
        raise ValueError(f"persist_path is for SimpleVectorStore and FAISS; {type(store).__name__} keeps its own data")
    if isinstance(store, EmbeddingStore):
        return store
    database = database_of(store)
    if database is not None:
        return database.adapter(store)
    raise TypeError(
        f"{type(store).__name__} is not supported; supported are {', '.join(DATABASES)}. For another store, implement"
        " the nudge_rag.stores.EmbeddingStore protocol and pass that"
    )


def _ids_by_position(index: Any) -> Callable[[], dict[int, str]]:
    """A FaissVectorStore knows positions only; the node ids are in the index that it belongs to."""
    if not isinstance(index, VectorStoreIndex):
        raise TypeError("a FaissVectorStore holds no node ids: pass the VectorStoreIndex that it belongs to")
    return lambda: {int(position): node_id for position, node_id in index.index_struct.nodes_dict.items()}
