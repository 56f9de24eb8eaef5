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
from nudge_rag.stores.chroma.store import ChromaFilter, ChromaStore
from nudge_rag.stores.duckdb import DuckDBStore
from nudge_rag.stores.elasticsearch import ElasticsearchStore
from nudge_rag.stores.faiss.store import FaissStore
from nudge_rag.stores.lance.store import LanceStore
from nudge_rag.stores.memory.langchain import InMemoryStore
from nudge_rag.stores.memory.llama_index import SimpleStore
from nudge_rag.stores.memory.mapping import MappingStore
from nudge_rag.stores.milvus.store import MilvusStore
from nudge_rag.stores.opensearch import OpenSearchStore
from nudge_rag.stores.overlay import OverlayStore
from nudge_rag.stores.pinecone.store import PineconeStore
from nudge_rag.stores.postgres.store import PgVectorStore
from nudge_rag.stores.qdrant.store import QdrantStore
from nudge_rag.stores.redis.store import RedisStore
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
