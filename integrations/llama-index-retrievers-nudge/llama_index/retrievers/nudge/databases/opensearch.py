"""OpensearchVectorStore: its adapter, its filters, and its nodes by id; tried on a double only."""

from __future__ import annotations

from typing import Any

from llama_index.core.schema import BaseNode
from llama_index.retrievers.nudge.databases.base import Database, Request
from llama_index.retrievers.nudge.filters.lucene import query_clauses

from nudge_rag.stores import EmbeddingStore, OpenSearchStore

__all__ = ["DATABASE"]


class OpenSearch(Database):
    """An index, with texts and metadata."""

    searches_itself = False

    def make_adapter(self, vector_store: Any) -> EmbeddingStore:
        """The adapter of an OpensearchVectorStore."""
        inner = vector_store.client
        inner._ensure_initialized()  # makes the index if it is not there yet
        return OpenSearchStore(inner._os_client, inner._index, vector_field=inner._embedding_field)

    def make_filter(self, request: Request) -> list[Any] | None:
        """Metadata filters, as the integration translates them, node and document ids as query clauses."""
        return query_clauses(
            request.query,
            request.vector_store.client._parse_filters(request.query.filters),
            "metadata.ref_doc_id.keyword",
        )

    def fetch_nodes(self, vector_store: Any, ids: list[str]) -> list[BaseNode]:
        """Nodes by id."""
        inner = vector_store.client
        body = {"query": {"ids": {"values": ids}}, "size": len(ids), "_source": ["metadata", inner._text_field]}
        nodes: list[BaseNode] = inner._to_query_result(inner._os_client.search(index=inner._index, body=body)).nodes
        return nodes


DATABASE = OpenSearch()
