"""MilvusVectorStore: its adapter, its filters, and its nodes by id."""

from __future__ import annotations

from typing import Any

from llama_index.core.schema import BaseNode, TextNode
from llama_index.core.vector_stores import VectorStoreQuery
from llama_index.core.vector_stores.utils import metadata_dict_to_node
from llama_index.retrievers.nudge.databases.base import Database
from llama_index.retrievers.nudge.filters.milvus import milvus_among, milvus_expression

from nudge_rag.stores import EmbeddingStore, MilvusStore

__all__ = ["DATABASE"]


def make_adapter(vector_store: Any) -> EmbeddingStore:
    return MilvusStore(
        vector_store.client,
        vector_store.collection_name,
        vector_field=vector_store.embedding_field,
        search_params=vector_store.search_config or None,
    )


def make_filter(store: Any, query: VectorStoreQuery, string_expr: str | None = None) -> str | None:
    parts = [f"({string_expr})"] if string_expr else []
    if query.filters is not None:
        parts.append(milvus_expression(query.filters))
    if query.node_ids is not None:
        parts.append(milvus_among("id", query.node_ids))
    if query.doc_ids is not None:
        parts.append(milvus_among(store.doc_id_field, query.doc_ids))
    return " and ".join(parts) or None


def fetch_nodes(vector_store: Any, ids: list[str]) -> list[BaseNode]:
    # The integration's own get_nodes leaves ids unquoted (llama-index-vector-stores-milvus 1.2).
    rows = vector_store.client.query(
        vector_store.collection_name,
        filter=milvus_among("id", ids),
        output_fields=vector_store.output_fields or ["*"],
        consistency_level="Strong",
    )
    return [_node(vector_store, row) for row in rows]


def _node(vector_store: Any, row: dict[str, Any]) -> BaseNode:
    text = row.get(vector_store.text_key)
    if "_node_content" in row:
        return metadata_dict_to_node(row, text=text)
    metadata = {key: row.get(key) for key in vector_store.output_fields}
    return TextNode(id_=row["id"], text=text or "", metadata=metadata)


DATABASE = Database(make_adapter, make_filter, fetch_nodes)
