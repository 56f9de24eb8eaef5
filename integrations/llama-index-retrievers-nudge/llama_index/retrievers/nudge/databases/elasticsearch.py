"""ElasticsearchStore: its adapter, its filters, and its nodes by id; tried on a double only."""

from __future__ import annotations

import weakref
from typing import Any

from llama_index.core.schema import BaseNode
from llama_index.retrievers.nudge.databases.base import Database, Request
from llama_index.retrievers.nudge.filters.lucene import clause_of, query_clauses

from nudge_rag.stores import ElasticsearchStore, EmbeddingStore

__all__ = ["DATABASE"]


# The integration's client is asynchronous; nodes are fetched from any thread, with or without an event loop.
_synchronous: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


def _client(vector_store: Any) -> Any:
    from nudge_rag.stores.elasticsearch import synchronous

    asynchronous = vector_store.client
    if asynchronous not in _synchronous:
        _synchronous[asynchronous] = synchronous(asynchronous)
    return _synchronous[asynchronous]


class Elasticsearch(Database):
    """An index, with texts and metadata."""

    searches_itself = False
    options = carried_options = frozenset({"es_filter", "metadata_keyword_suffix"})

    def make_adapter(self, vector_store: Any) -> EmbeddingStore:
        """The adapter of an ElasticsearchStore; the integration stores vectors with its default strategy only."""
        return ElasticsearchStore(
            _client(vector_store), vector_store.index_name, vector_field=vector_store.vector_field
        )

    def make_filter(self, request: Request) -> list[Any] | None:
        """Metadata filters, node and document ids and ``es_filter`` as query clauses."""
        query, options = request.query, request.options
        given = list(options.get("es_filter") or [])
        if query.filters is not None:
            given.append(clause_of(query.filters, options.get("metadata_keyword_suffix", ".keyword")))
        return query_clauses(query, given, "metadata.ref_doc_id")

    def fetch_nodes(self, vector_store: Any, ids: list[str]) -> list[BaseNode]:
        """Nodes by id."""
        from llama_index.vector_stores.elasticsearch.utils import convert_es_hit_to_node

        fields = ["metadata", vector_store.text_field]
        answer = _client(vector_store).search(
            index=vector_store.index_name, query={"ids": {"values": ids}}, size=len(ids), source_includes=fields
        )
        return [convert_es_hit_to_node(hit, vector_store.text_field) for hit in answer["hits"]["hits"]]


DATABASE = Elasticsearch()
