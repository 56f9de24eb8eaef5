"""Vector stores: the `EmbeddingStore` protocol and one adapter per database.

An adapter is imported when it is asked for: ``import nudge_rag`` loads none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nudge_rag.stores.base import (
    Capabilities,
    EmbeddingStore,
    SearchResult,
    SideBySideStore,
    Similarity,
    StoreError,
    UnknownIdError,
)
from nudge_rag.stores.catalog import RECORDS, load

if TYPE_CHECKING:
    from nudge_rag.stores.adapter import StoreAdapter
    from nudge_rag.stores.chroma.store import ChromaFilter, ChromaStore
    from nudge_rag.stores.duckdb.store import DuckDBStore
    from nudge_rag.stores.elasticsearch import ElasticsearchStore
    from nudge_rag.stores.faiss.store import FaissStore
    from nudge_rag.stores.lake.mapping import map_nodes
    from nudge_rag.stores.lake.scanning import scan
    from nudge_rag.stores.lance.store import LanceStore
    from nudge_rag.stores.memory.langchain import InMemoryStore
    from nudge_rag.stores.memory.llama_index import SimpleStore
    from nudge_rag.stores.memory.mapping import MappingStore
    from nudge_rag.stores.milvus.store import MilvusStore
    from nudge_rag.stores.opensearch import OpenSearchStore
    from nudge_rag.stores.overlay import OverlayStore
    from nudge_rag.stores.parquet.store import ParquetStore
    from nudge_rag.stores.pinecone.store import PineconeStore
    from nudge_rag.stores.postgres.store import PgVectorStore
    from nudge_rag.stores.qdrant.store import QdrantStore
    from nudge_rag.stores.redis.store import RedisStore
    from nudge_rag.stores.sqlite_vec.store import SQLiteVecStore
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
    "ParquetStore",
    "PgVectorStore",
    "PineconeStore",
    "QdrantStore",
    "RedisStore",
    "SQLiteVecStore",
    "SearchResult",
    "SideBySideStore",
    "Similarity",
    "SimpleStore",
    "StoreAdapter",
    "StoreError",
    "UnknownIdError",
    "WeaviateStore",
    "map_nodes",
    "scan",
]

_PLACES = {record.class_name: record.adapter for record in RECORDS} | {
    "ChromaFilter": "nudge_rag.stores.chroma.store:ChromaFilter",
    "MappingStore": "nudge_rag.stores.memory.mapping:MappingStore",
    "OverlayStore": "nudge_rag.stores.overlay:OverlayStore",
    "StoreAdapter": "nudge_rag.stores.adapter:StoreAdapter",
    "map_nodes": "nudge_rag.stores.lake.mapping:map_nodes",
    "scan": "nudge_rag.stores.lake.scanning:scan",
}


if not TYPE_CHECKING:  # else a checker would accept any name

    def __getattr__(name: str) -> Any:
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = load(_PLACES[name])
        return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
