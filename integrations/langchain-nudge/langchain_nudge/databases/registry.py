"""Vector store classes and the modules that know their databases; a module is imported when its class is met."""

from __future__ import annotations

import importlib
from typing import Any

from langchain_nudge.databases.base import Database

__all__ = ["DATABASES", "database_of", "embeddings_of"]

# Class names, and the module of this package that holds the DATABASE of each.
DATABASES = {
    "InMemoryVectorStore": "in_memory",
    "Chroma": "chroma",
    "QdrantVectorStore": "qdrant",
    "DuckDB": "duckdb",
    "FAISS": "faiss",
    "LanceDB": "lance",
    "Milvus": "milvus",
    "PGVector": "postgres",
    "PGVectorStore": "postgres_v2",
    "ElasticsearchStore": "elasticsearch",
    "PineconeVectorStore": "pinecone",
    "WeaviateVectorStore": "weaviate",
    "OpenSearchVectorSearch": "opensearch",
    "RedisVectorStore": "redis",
    "SQLiteVec": "sqlite_vec",
}


def database_of(vectorstore: Any) -> Database | None:
    """Look up the module and class of the vector store, or of what it inherits from; imports no integration."""
    for base in type(vectorstore).__mro__:
        if base.__name__ in DATABASES and base.__module__.startswith("langchain"):
            module = importlib.import_module(f"langchain_nudge.databases.{DATABASES[base.__name__]}")
            database: Database = module.DATABASE
            return database
    return None


def embeddings_of(vectorstore: Any) -> Any:
    """The embeddings that a vector store was made with, None where it has none."""
    database = database_of(vectorstore)
    return getattr(vectorstore, "embeddings" if database is None else database.embeddings, None)
