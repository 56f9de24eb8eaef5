"""QdrantVectorStore: its adapter and its filters."""

from __future__ import annotations

from typing import Any

from llama_index.core.vector_stores import VectorStoreQuery
from llama_index.retrievers.nudge.databases.base import Database, get_nodes

from nudge_rag.stores import EmbeddingStore, QdrantStore

__all__ = ["DATABASE"]


def make_adapter(vector_store: Any) -> EmbeddingStore:
    vectors = vector_store.client.get_collection(vector_store.collection_name).config.params.vectors
    named = vector_store.dense_vector_name if isinstance(vectors, dict) else None
    return QdrantStore(vector_store.client, vector_store.collection_name, vector_name=named)


def make_filter(store: Any, query: VectorStoreQuery, qdrant_filters: Any = None) -> Any:
    return qdrant_filters if qdrant_filters is not None else store._build_query_filter(query)


DATABASE = Database(make_adapter, make_filter, get_nodes)
