"""What each database's integration calls its parts: its adapter, its filters, and its documents by id."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from langchain_core.documents import Document

from langchain_nudge import experimental
from langchain_nudge.databases import duckdb, redis, sqlite_vec
from nudge_rag.common.similarity import Similarity
from nudge_rag.stores import (
    ChromaStore,
    EmbeddingStore,
    FaissStore,
    InMemoryStore,
    LanceStore,
    MilvusStore,
    PgVectorStore,
    QdrantStore,
)
from nudge_rag.stores.checks import sql_text
from nudge_rag.stores.milvus.schema import among

__all__ = ["DATABASES", "Database", "database_of", "embeddings_of"]

DISTANCES: dict[str, Similarity] = {"cosine": "cosine", "inner": "dot", "l2": "l2"}
V2_OPERATORS: dict[str, Similarity] = {"<=>": "cosine", "<#>": "dot", "<->": "l2"}


@dataclass(frozen=True)
class Database:
    """How to work with one LangChain vector store class.

    Attributes:
        adapter: vector store to `EmbeddingStore`.
        where: vector store and filter, in the integration's own form, to the adapter's filter.
        documents: vector store and ids to documents with their ids, in any order.
        persist_path: whether the adapter takes the file that changes are written through to.
        embeddings: name of the attribute with the vector store's embeddings.
    """

    adapter: Callable[..., EmbeddingStore]
    where: Callable[[Any, Any], Any]
    documents: Callable[[Any, list[str]], list[Document]]
    persist_path: bool = False
    embeddings: str = "embeddings"


def database_of(vectorstore: Any) -> Database | None:
    """By the module and class of the vector store or of what it inherits from, without importing any integration."""
    for base in type(vectorstore).__mro__:
        database = DATABASES.get(base.__name__)
        if database is not None and base.__module__.startswith("langchain"):
            return database
    return None


def embeddings_of(vectorstore: Any) -> Any:
    """The embeddings that a vector store was made with, None where it has none."""
    database = database_of(vectorstore)
    return getattr(vectorstore, "embeddings" if database is None else database.embeddings, None)


def _in_memory_filter(vectorstore: Any, given: Any) -> Callable[[str], bool] | None:
    if given is None:
        return None
    if not callable(given):
        raise TypeError(f"filter for InMemoryVectorStore is a function of a Document, got {type(given).__name__}")

    def where(node_id: str) -> bool:
        entry = vectorstore.store[node_id]
        return bool(given(Document(id=entry["id"], page_content=entry["text"], metadata=entry["metadata"])))

    return where


def _get_by_ids(vectorstore: Any, ids: list[str]) -> list[Document]:
    documents: list[Document] = vectorstore.get_by_ids(ids)
    return documents


def _chroma_documents(vectorstore: Any, ids: list[str]) -> list[Document]:
    # Its get_by_ids fails on documents without metadata (langchain-chroma 1.1).
    found = vectorstore._collection.get(ids=ids, include=["documents", "metadatas"])
    rows = zip(found["ids"], found["documents"], found["metadatas"], strict=True)
    return [Document(id=node, page_content=text or "", metadata=metadata or {}) for node, text, metadata in rows]


def _qdrant_documents(vectorstore: Any, ids: list[str]) -> list[Document]:
    # Its get_by_ids gives documents without ids, those in the metadata (langchain-qdrant 1.1).
    documents = vectorstore.get_by_ids(ids)
    return [document.model_copy(update={"id": str(document.metadata["_id"])}) for document in documents]


def _lance_filter(vectorstore: Any, given: Any) -> str | None:
    """A dictionary of columns and their values, or an SQL condition."""
    if given is None or isinstance(given, str):
        return given
    if not isinstance(given, Mapping):
        raise TypeError(f"filter for LanceDB is an SQL condition or a dictionary, got {type(given).__name__}")
    for column in given:
        if not re.fullmatch(r"\w+(\.\w+)*", column):
            raise ValueError(f"{column!r} is not the name of a column, such as 'metadata.year'")
    return " AND ".join(f"{column} = {sql_text(str(value))}" for column, value in given.items()) or None


def _lance_documents(vectorstore: Any, ids: list[str]) -> list[Document]:
    among = ", ".join(map(sql_text, ids))
    rows = vectorstore.get_table().search().where(f"`{vectorstore._id_key}` IN ({among})").limit(None).to_list()
    return [
        Document(
            id=row[vectorstore._id_key], page_content=row[vectorstore._text_key], metadata=row.get("metadata") or {}
        )
        for row in rows
    ]


def _lance_adapter(vectorstore: Any) -> EmbeddingStore:
    columns = {"vector_column": vectorstore._vector_key, "id_column": vectorstore._id_key}
    return LanceStore(vectorstore.get_table(), **columns)


def _faiss_adapter(vectorstore: Any, *, persist_path: Any = None) -> EmbeddingStore:
    return FaissStore(
        vectorstore.index,
        lambda: vectorstore.index_to_docstore_id,
        persist_path=persist_path,
        held_by=(vectorstore, "index"),
    )


def _faiss_filter(vectorstore: Any, given: Any) -> Callable[[str], bool] | None:
    """A function of the metadata, or a dictionary as the integration takes it."""
    if given is None:
        return None
    if not callable(given) and not isinstance(given, dict):
        raise TypeError(f"filter for FAISS is a function of the metadata or a dictionary, got {type(given).__name__}")
    passes = given if callable(given) else vectorstore._create_filter_func(given)

    def where(node_id: str) -> bool:
        document = vectorstore.docstore.search(node_id)
        return isinstance(document, Document) and bool(passes(document.metadata))

    return where


def _faiss_documents(vectorstore: Any, ids: list[str]) -> list[Document]:
    found = {node_id: vectorstore.docstore.search(node_id) for node_id in ids}
    return [one.model_copy(update={"id": node}) for node, one in found.items() if isinstance(one, Document)]


def _conninfo(engine: Any) -> str:
    """The address of an SQLAlchemy engine in psycopg's form."""
    scheme, _, rest = engine.url.render_as_string(hide_password=False).partition("://")
    return f"{scheme.partition('+')[0]}://{rest}"


def _sql_text(clause: Any) -> str:
    """An SQLAlchemy condition as SQL, its values written out as psycopg quotes them."""
    from psycopg import sql
    from sqlalchemy.dialects.postgresql import psycopg

    dialect: Any = psycopg.dialect
    compiled = clause.compile(dialect=dialect())
    values = {
        name: compiled._bind_processors[name](value) if name in compiled._bind_processors else value
        for name, value in compiled.params.items()
    }
    return str(compiled.string % {name: sql.Literal(value).as_string() for name, value in values.items()})


def _pgvector_adapter(vectorstore: Any) -> EmbeddingStore:
    engine = vectorstore._engine or getattr(vectorstore, "_async_engine", None)
    with vectorstore.session_maker() as session:
        collection = vectorstore.get_collection(session)
        if collection is None:
            raise ValueError(f"there is no collection {vectorstore.collection_name!r}")
        only = f"collection_id = '{collection.uuid}'"
    distance = vectorstore._distance_strategy
    similarity = DISTANCES[str(getattr(distance, "value", distance))]
    return PgVectorStore(_conninfo(engine), vectorstore.EmbeddingStore.__tablename__, similarity=similarity, only=only)


def _pgvector_filter(vectorstore: Any, given: Any) -> str | None:
    return _sql_text(vectorstore._create_filter_clause(given)) if given else None


def _v2(vectorstore: Any) -> Any:
    """The asynchronous store inside langchain-postgres' PGVectorStore; its name is private to the class."""
    return vectorstore._PGVectorStore__vs


def _pgvector_v2_adapter(vectorstore: Any) -> EmbeddingStore:
    inner = _v2(vectorstore)
    return PgVectorStore(
        _conninfo(inner.engine),
        inner.table_name,
        schema=inner.schema_name,
        id_column=inner.id_column,
        vector_column=inner.embedding_column,
        similarity=V2_OPERATORS[inner.distance_strategy.operator],
    )


def _pgvector_v2_filter(vectorstore: Any, given: Any) -> str | None:
    from sqlalchemy import text

    if not given:
        return None
    clause, values = _v2(vectorstore)._create_filter_clause(given)
    return _sql_text(text(clause).bindparams(**values))


def _milvus_adapter(vectorstore: Any) -> EmbeddingStore:
    field, given = vectorstore._vector_field, (vectorstore.search_params or {}).get("params")
    defaults = [entry["params"] for entry in vectorstore.default_search_params.values()]
    return MilvusStore(
        vectorstore.client,
        vectorstore.collection_name,
        vector_field=field if isinstance(field, str) else None,
        # Its own defaults find no more than 10 with HNSW: the server's fit k.
        search_params=None if given in defaults else given,
    )


def _milvus_filter(vectorstore: Any, given: Any) -> str | None:
    if given is not None and not isinstance(given, str):
        raise TypeError(f"filter for Milvus is an expression, such as 'year > 2020', got {type(given).__name__}")
    return given


def _milvus_documents(vectorstore: Any, ids: list[str]) -> list[Document]:
    key = vectorstore._primary_field
    keys: list[Any] = [int(node_id) for node_id in ids] if vectorstore.auto_id else ids  # auto_id makes them integers
    fields = ["*"] if vectorstore.enable_dynamic_field else vectorstore._remove_forbidden_fields(vectorstore.fields[:])
    rows = vectorstore.client.query(
        vectorstore.collection_name,
        filter=among(key, keys),
        output_fields=fields,
        consistency_level="Strong",
    )
    return [vectorstore._parse_document(dict(row)).model_copy(update={"id": str(row[key])}) for row in rows]


DATABASES: dict[str, Database] = {
    "InMemoryVectorStore": Database(InMemoryStore, _in_memory_filter, _get_by_ids),
    "Chroma": Database(lambda store: ChromaStore(store._collection), lambda _, given: given, _chroma_documents),
    "QdrantVectorStore": Database(
        lambda store: QdrantStore(store.client, store.collection_name, vector_name=store.vector_name or None),
        lambda _, given: given,
        _qdrant_documents,
    ),
    "DuckDB": Database(duckdb.adapter, duckdb.condition, duckdb.documents),
    "FAISS": Database(_faiss_adapter, _faiss_filter, _faiss_documents, persist_path=True),
    "LanceDB": Database(_lance_adapter, _lance_filter, _lance_documents),
    "Milvus": Database(_milvus_adapter, _milvus_filter, _milvus_documents),
    "PGVector": Database(_pgvector_adapter, _pgvector_filter, _get_by_ids),
    "PGVectorStore": Database(_pgvector_v2_adapter, _pgvector_v2_filter, _get_by_ids),
    "ElasticsearchStore": Database(
        experimental.elasticsearch_adapter, lambda _, given: given, experimental.elasticsearch_documents
    ),
    "PineconeVectorStore": Database(
        experimental.pinecone_adapter, lambda _, given: given, experimental.pinecone_documents
    ),
    "WeaviateVectorStore": Database(
        experimental.weaviate_adapter, lambda _, given: given, experimental.weaviate_documents
    ),
    "OpenSearchVectorSearch": Database(
        experimental.opensearch_adapter, lambda _, given: given, experimental.opensearch_documents
    ),
    "RedisVectorStore": Database(redis.adapter, redis.condition, _get_by_ids),
    "SQLiteVec": Database(sqlite_vec.adapter, sqlite_vec.condition, sqlite_vec.documents, embeddings="_embedding"),
}
