"""What each database's integration calls its parts: its adapter, its filters, and how its nodes are fetched by id."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llama_index.core.schema import BaseNode, TextNode
from llama_index.core.vector_stores import SimpleVectorStore, VectorStoreQuery
from llama_index.core.vector_stores.utils import build_metadata_filter_fn, metadata_dict_to_node
from llama_index.retrievers.nudge import experimental
from llama_index.retrievers.nudge.databases import redis
from llama_index.retrievers.nudge.filters.milvus import milvus_among, milvus_expression
from llama_index.retrievers.nudge.filters.sql import among, duckdb_field, lance_field, postgres_field, sql_condition

from nudge_rag.stores import (
    ChromaFilter,
    ChromaStore,
    DuckDBStore,
    EmbeddingStore,
    LanceStore,
    MilvusStore,
    PgVectorStore,
    QdrantStore,
)

__all__ = ["DATABASES", "Database", "database_of"]


@dataclass(frozen=True)
class Database:
    """How to work with one LlamaIndex vector store class.

    Attributes:
        adapter: vector store to `EmbeddingStore`.
        where: vector store, query and the retriever's ``vector_store_kwargs`` to the adapter's filter.
        nodes: vector store and ids to nodes, in any order; None where text is kept in the docstore.
        keeps_no_metadata: whether filters look into the index's docstore, which ``where`` is then given.
    """

    adapter: Callable[[Any], EmbeddingStore]
    where: Callable[..., Any]
    nodes: Callable[[Any, list[str]], list[BaseNode]] | None
    keeps_no_metadata: bool = False


def database_of(vector_store: Any) -> Database | None:
    """By the module and class of the vector store or of what it inherits from, without importing any integration."""
    for base in type(vector_store).__mro__:
        database = DATABASES.get(base.__name__)
        if database is not None and base.__module__.startswith("llama_index"):
            return database
    return None


def _get_nodes(vector_store: Any, ids: list[str]) -> list[BaseNode]:
    nodes: list[BaseNode] = vector_store.get_nodes(node_ids=ids)
    return nodes


def _simple_adapter(vector_store: Any) -> EmbeddingStore:
    from nudge_rag.stores import SimpleStore

    return SimpleStore(vector_store)


def _simple_filter(store: SimpleVectorStore, query: VectorStoreQuery, **kwargs: Any) -> Callable[[str], bool] | None:
    if kwargs:
        raise ValueError(f"SimpleVectorStore takes no vector_store_kwargs, got {sorted(kwargs)}")
    if query.filters is None and query.node_ids is None and query.doc_ids is None:
        return None
    if query.filters is not None and store.data.embedding_dict and not store.data.metadata_dict:
        raise ValueError("cannot filter a store that was persisted without metadata: build it again with metadata")
    passes = build_metadata_filter_fn(lambda node_id: store.data.metadata_dict[node_id], query.filters)
    nodes = None if query.node_ids is None else set(query.node_ids)
    documents = None if query.doc_ids is None else set(query.doc_ids)

    def where(node_id: str) -> bool:
        return (
            (nodes is None or node_id in nodes)
            and (documents is None or store.data.text_id_to_ref_doc_id.get(node_id) in documents)
            and passes(node_id)
        )

    return where


def _docstore_filter(docstore: Any, query: VectorStoreQuery, **kwargs: Any) -> Callable[[str], bool] | None:
    if kwargs:
        raise ValueError(f"the FAISS stores take no vector_store_kwargs, got {sorted(kwargs)}")
    if query.filters is None and query.node_ids is None and query.doc_ids is None:
        return None
    passes = build_metadata_filter_fn(lambda node_id: docstore.get_node(node_id).metadata, query.filters)
    nodes = None if query.node_ids is None else set(query.node_ids)
    documents = None if query.doc_ids is None else set(query.doc_ids)

    def where(node_id: str) -> bool:
        return (
            (nodes is None or node_id in nodes)
            and (documents is None or docstore.get_node(node_id).ref_doc_id in documents)
            and passes(node_id)
        )

    return where


def _faiss_adapter(vector_store: Any) -> EmbeddingStore:
    raise TypeError(f"pass the VectorStoreIndex that the {type(vector_store).__name__} belongs to")


def _chroma_filter(
    store: Any,
    query: VectorStoreQuery,
    where: dict[str, Any] | None = None,
    where_document: dict[str, Any] | None = None,
) -> ChromaFilter:
    from llama_index.vector_stores.chroma.base import _to_chroma_filter

    if query.filters is not None and where is not None:
        raise ValueError("give metadata filters as filters= or as where= in vector_store_kwargs, not both")
    parts = [where or (_to_chroma_filter(query.filters) if query.filters is not None else None)]
    if query.doc_ids is not None:
        # The integration keeps the source document's id in the metadata, and deletes by it.
        parts.append({"document_id": {"$in": list(query.doc_ids)}})
    given = [part for part in parts if part]
    combined = {"$and": given} if len(given) > 1 else next(iter(given), None)
    return ChromaFilter(where=combined, where_document=where_document, ids=query.node_ids)


def _qdrant_adapter(vector_store: Any) -> EmbeddingStore:
    vectors = vector_store.client.get_collection(vector_store.collection_name).config.params.vectors
    named = vector_store.dense_vector_name if isinstance(vectors, dict) else None
    return QdrantStore(vector_store.client, vector_store.collection_name, vector_name=named)


def _qdrant_filter(store: Any, query: VectorStoreQuery, qdrant_filters: Any = None) -> Any:
    return qdrant_filters if qdrant_filters is not None else store._build_query_filter(query)


def _sql_filter(query: VectorStoreQuery, where: str | None, field: Any, node_id: str, document_id: str) -> str | None:
    parts = [f"({where})"] if where else []
    if query.filters is not None:
        parts.append(sql_condition(query.filters, field))
    if query.node_ids is not None:
        parts.append(among(node_id, query.node_ids))
    if query.doc_ids is not None:
        parts.append(among(document_id, query.doc_ids))
    return " AND ".join(parts) or None


def _lance_filter(store: Any, query: VectorStoreQuery, where: str | None = None) -> str | None:
    return _sql_filter(query, where, lance_field, "id", f"`{store.doc_id_key}`")


def _lance_nodes(vector_store: Any, ids: list[str]) -> list[BaseNode]:
    # The integration's own get_nodes compares ids with column names (llama-index-vector-stores-lancedb 0.6).
    rows = vector_store.table.search().where(among("id", ids)).limit(None).to_list()
    return [metadata_dict_to_node(row["metadata"], text=row[vector_store.text_key]) for row in rows]


def _postgres_adapter(vector_store: Any) -> EmbeddingStore:
    scheme, _, rest = vector_store.connection_string.partition("://")
    table = vector_store._table_class.__tablename__
    vector_store._initialize()  # makes the table where it is not there yet
    return PgVectorStore(
        f"{scheme.partition('+')[0]}://{rest}", table, schema=vector_store.schema_name, id_column="node_id"
    )


def _postgres_filter(store: Any, query: VectorStoreQuery, where: str | None = None) -> str | None:
    return _sql_filter(query, where, postgres_field, "node_id", "metadata_->>'ref_doc_id'")


def _milvus_adapter(vector_store: Any) -> EmbeddingStore:
    return MilvusStore(
        vector_store.client,
        vector_store.collection_name,
        vector_field=vector_store.embedding_field,
        search_params=vector_store.search_config or None,
    )


def _milvus_filter(store: Any, query: VectorStoreQuery, string_expr: str | None = None) -> str | None:
    parts = [f"({string_expr})"] if string_expr else []
    if query.filters is not None:
        parts.append(milvus_expression(query.filters))
    if query.node_ids is not None:
        parts.append(milvus_among("id", query.node_ids))
    if query.doc_ids is not None:
        parts.append(milvus_among(store.doc_id_field, query.doc_ids))
    return " and ".join(parts) or None


def _milvus_nodes(vector_store: Any, ids: list[str]) -> list[BaseNode]:
    # The integration's own get_nodes leaves ids unquoted (llama-index-vector-stores-milvus 1.2).
    rows = vector_store.client.query(
        vector_store.collection_name,
        filter=milvus_among("id", ids),
        output_fields=vector_store.output_fields or ["*"],
        consistency_level="Strong",
    )
    return [_milvus_node(vector_store, row) for row in rows]


def _milvus_node(vector_store: Any, row: dict[str, Any]) -> BaseNode:
    text = row.get(vector_store.text_key)
    if "_node_content" in row:
        return metadata_dict_to_node(row, text=text)
    metadata = {key: row.get(key) for key in vector_store.output_fields}
    return TextNode(id_=row["id"], text=text or "", metadata=metadata)


def _duckdb_adapter(vector_store: Any) -> EmbeddingStore:
    # The integration itself leaves the name unquoted: a dot in it is a schema's.
    schema, _, table = vector_store.table_name.rpartition(".")
    return DuckDBStore(vector_store.client, table, schema=schema or None, id_column="node_id")


def _duckdb_filter(store: Any, query: VectorStoreQuery, where: str | None = None) -> str | None:
    return _sql_filter(query, where, duckdb_field, "node_id", "(metadata_->>'ref_doc_id')")


DATABASES: dict[str, Database] = {
    "SimpleVectorStore": Database(_simple_adapter, _simple_filter, None),
    "ChromaVectorStore": Database(lambda store: ChromaStore(store.client), _chroma_filter, _get_nodes),
    "DuckDBVectorStore": Database(_duckdb_adapter, _duckdb_filter, _get_nodes),
    "FaissVectorStore": Database(_faiss_adapter, _docstore_filter, None, keeps_no_metadata=True),
    "FaissMapVectorStore": Database(_faiss_adapter, _docstore_filter, None, keeps_no_metadata=True),
    "QdrantVectorStore": Database(_qdrant_adapter, _qdrant_filter, _get_nodes),
    "LanceDBVectorStore": Database(
        lambda store: LanceStore(store.table, vector_column=store.vector_column_name), _lance_filter, _lance_nodes
    ),
    "MilvusVectorStore": Database(_milvus_adapter, _milvus_filter, _milvus_nodes),
    "PGVectorStore": Database(_postgres_adapter, _postgres_filter, _get_nodes),
    "ElasticsearchStore": Database(
        experimental.elasticsearch_adapter, experimental.elasticsearch_filter, experimental.elasticsearch_nodes
    ),
    "PineconeVectorStore": Database(
        experimental.pinecone_adapter, experimental.pinecone_filter, experimental.pinecone_nodes
    ),
    "WeaviateVectorStore": Database(
        experimental.weaviate_adapter, experimental.weaviate_filter, experimental.weaviate_nodes
    ),
    "OpensearchVectorStore": Database(
        experimental.opensearch_adapter, experimental.opensearch_filter, experimental.opensearch_nodes
    ),
    "RedisVectorStore": Database(redis.adapter, redis.condition, redis.nodes),
}
