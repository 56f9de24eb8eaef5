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
    "AsyncPGVectorStore": "postgres_v2",
    "ElasticsearchStore": "elasticsearch",
    "PineconeVectorStore": "pinecone",
    "WeaviateVectorStore": "weaviate",
    "OpenSearchVectorSearch": "opensearch",
    "RedisVectorStore": "redis",
    "SQLiteVec": "sqlite_vec",
}
COMMUNITY = ("langchain_community", "langchain.vectorstores", "langchain_classic")
# Classes of langchain-community and others that another package took over.
SUCCESSORS = {
    "Chroma": "langchain_chroma.Chroma",
    "ElasticsearchStore": "langchain_elasticsearch.ElasticsearchStore",
    "ElasticVectorSearch": "langchain_elasticsearch.ElasticsearchStore",
    "Milvus": "langchain_milvus.Milvus",
    "PGVector": "langchain_postgres.PGVector",
    "Pinecone": "langchain_pinecone.PineconeVectorStore",
    "Qdrant": "langchain_qdrant.QdrantVectorStore",
    "Redis": "langchain_redis.RedisVectorStore",
    "Weaviate": "langchain_weaviate.WeaviateVectorStore",
}


def database_of(vectorstore: Any) -> Database | None:
    """Look up the module and class of the vector store, or of a class it inherits from; imports no integration.

    Raises:
        TypeError: a class that another one took the place of.
    """
    for base in type(vectorstore).__mro__:
        if not base.__module__.startswith("langchain"):
            continue
        _refuse_old(base)
        if base.__name__ in DATABASES:
            module = importlib.import_module(f"langchain_nudge.databases.{DATABASES[base.__name__]}")
            database: Database = module.DATABASE
            return database
    return None


def _refuse_old(base: type) -> None:
    successor = SUCCESSORS.get(base.__name__)
    # langchain-qdrant and others kept the old class beside the new one.
    is_old = base.__module__.startswith(COMMUNITY) or base.__name__ not in DATABASES
    if successor is not None and is_old:
        raise TypeError(f"{base.__module__}.{base.__name__} is an old class: use {successor}, on the same data")


def embeddings_of(vectorstore: Any) -> Any:
    """The embeddings that a vector store was made with, None if it has none."""
    database = database_of(vectorstore)
    return getattr(vectorstore, "embeddings" if database is None else database.embeddings, None)
