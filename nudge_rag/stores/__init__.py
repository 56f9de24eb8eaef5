"""Vector stores: the `EmbeddingStore` protocol and one adapter per database."""

from nudge_rag.stores.base import (
    Capabilities,
    EmbeddingStore,
    SearchResult,
    SideBySideStore,
    Similarity,
    StoreError,
    UnknownIdError,
)
from nudge_rag.stores.chroma import ChromaFilter, ChromaStore
from nudge_rag.stores.duckdb import DuckDBStore
from nudge_rag.stores.elasticsearch import ElasticsearchStore
from nudge_rag.stores.faiss import FaissStore
from nudge_rag.stores.in_memory import InMemoryStore
from nudge_rag.stores.lance import LanceStore
from nudge_rag.stores.mapping import MappingStore
from nudge_rag.stores.milvus import MilvusStore
from nudge_rag.stores.opensearch import OpenSearchStore
from nudge_rag.stores.overlay import OverlayStore
from nudge_rag.stores.pinecone import PineconeStore
from nudge_rag.stores.postgres import PgVectorStore
from nudge_rag.stores.qdrant import QdrantStore
from nudge_rag.stores.redis import RedisStore
from nudge_rag.stores.simple import SimpleStore
from nudge_rag.stores.sqlite_vec import SQLiteVecStore
from nudge_rag.stores.weaviate import WeaviateStore

__all__ = [
    "Capabilities",
    "ChromaFilter",
    "ChromaStore",
    "DuckDBStore",
    "ElasticsearchStore",
    "EmbeddingStore",
    "FaissStore",
    "InMemoryStore",
    "LanceStore",
    "MappingStore",
    "MilvusStore",
    "OpenSearchStore",
    "OverlayStore",
    "PgVectorStore",
    "PineconeStore",
    "QdrantStore",
    "RedisStore",
    "SQLiteVecStore",
    "SearchResult",
    "SideBySideStore",
    "Similarity",
    "SimpleStore",
    "StoreError",
    "UnknownIdError",
    "WeaviateStore",
]
