"""Vector store classes and the modules that know their databases; a module is imported when its class is met."""

from __future__ import annotations

import importlib
from typing import Any

from llama_index.retrievers.nudge.databases.base import Database

__all__ = ["DATABASES", "database_of"]

# Class names, and the module of this package that holds the DATABASE of each.
DATABASES = {
    "SimpleVectorStore": "simple",
    "ChromaVectorStore": "chroma",
    "DuckDBVectorStore": "duckdb",
    "FaissVectorStore": "faiss",
    "FaissMapVectorStore": "faiss",
    "QdrantVectorStore": "qdrant",
    "LanceDBVectorStore": "lance",
    "MilvusVectorStore": "milvus",
    "PGVectorStore": "postgres",
    "ElasticsearchStore": "elasticsearch",
    "PineconeVectorStore": "pinecone",
    "WeaviateVectorStore": "weaviate",
    "OpensearchVectorStore": "opensearch",
    "RedisVectorStore": "redis",
}


def database_of(vector_store: Any) -> Database | None:
    """Look up the module and class of the vector store, or of a class it inherits from; imports no integration."""
    for base in type(vector_store).__mro__:
        if base.__name__ in DATABASES and base.__module__.startswith("llama_index"):
            module = importlib.import_module(f"llama_index.retrievers.nudge.databases.{DATABASES[base.__name__]}")
            database: Database = module.DATABASE
            return database
    return None
