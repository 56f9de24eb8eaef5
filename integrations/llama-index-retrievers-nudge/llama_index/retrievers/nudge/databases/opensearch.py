"""OpensearchVectorStore: its adapter, its filters, and its nodes by id; tried on a double only."""

from __future__ import annotations

from typing import Any

from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores import VectorStoreQuery
from llama_index.retrievers.nudge.databases.base import Database
from llama_index.retrievers.nudge.filters.lucene import query_clauses

from nudge_rag.stores import EmbeddingStore, OpenSearchStore

__all__ = ["DATABASE"]


def make_adapter(vector_store: Any) -> EmbeddingStore:
    """The adapter of an OpensearchVectorStore."""
    inner = vector_store.client
    inner._ensure_initialized()  # makes the index where it is not there yet
    return OpenSearchStore(inner._os_client, inner._index, vector_field=inner._embedding_field)


def make_filter(store: Any, query: VectorStoreQuery) -> list[Any] | None:
    """Metadata filters, as the integration translates them, node and document ids as query clauses."""
    return query_clauses(query, store.client._parse_filters(query.filters), "metadata.ref_doc_id.keyword")


def fetch_nodes(vector_store: Any, ids: list[str]) -> list[BaseNode]:
    """Nodes by id."""
    inner = vector_store.client
    body = {"query": {"ids": {"values": ids}}, "size": len(ids), "_source": ["metadata", inner._text_field]}
    nodes: list[BaseNode] = inner._to_query_result(inner._os_client.search(index=inner._index, body=body)).nodes
    return nodes


DATABASE = Database(make_adapter, make_filter, fetch_nodes)
