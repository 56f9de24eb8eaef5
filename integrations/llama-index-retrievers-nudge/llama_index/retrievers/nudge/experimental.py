"""The parts of the integrations whose databases cannot be run in the tests: adapters, filters and nodes by id."""

from __future__ import annotations

import weakref
from typing import Any

from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores import VectorStoreQuery
from llama_index.core.vector_stores.utils import metadata_dict_to_node
from llama_index.retrievers.nudge.filters.lucene import clause_of

from nudge_rag.stores import ElasticsearchStore, EmbeddingStore, OpenSearchStore, PineconeStore, WeaviateStore

__all__ = [
    "elasticsearch_adapter",
    "elasticsearch_filter",
    "elasticsearch_nodes",
    "opensearch_adapter",
    "opensearch_filter",
    "opensearch_nodes",
    "pinecone_adapter",
    "pinecone_filter",
    "pinecone_nodes",
    "weaviate_adapter",
    "weaviate_filter",
    "weaviate_nodes",
]

_pinecone_stores: weakref.WeakKeyDictionary[Any, dict[str, PineconeStore]] = weakref.WeakKeyDictionary()
# The integration's client is asynchronous; nodes are fetched from any thread, with or without an event loop.
_synchronous: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


def _elasticsearch_client(vector_store: Any) -> Any:
    from nudge_rag.stores.elasticsearch import synchronous

    asynchronous = vector_store.client
    if asynchronous not in _synchronous:
        _synchronous[asynchronous] = synchronous(asynchronous)
    return _synchronous[asynchronous]


def elasticsearch_adapter(vector_store: Any) -> EmbeddingStore:
    """The adapter of an ElasticsearchStore; the integration stores vectors with its default strategy only."""
    return ElasticsearchStore(
        _elasticsearch_client(vector_store), vector_store.index_name, vector_field=vector_store.vector_field
    )


def _query_clauses(query: VectorStoreQuery, given: list[Any], document_field: str) -> list[Any] | None:
    clauses = list(given)
    if query.node_ids is not None:
        clauses.append({"ids": {"values": list(query.node_ids)}})
    if query.doc_ids is not None:
        clauses.append({"terms": {document_field: list(query.doc_ids)}})
    return clauses or None


def elasticsearch_filter(
    store: Any,
    query: VectorStoreQuery,
    es_filter: list[dict[str, Any]] | None = None,
    metadata_keyword_suffix: str = ".keyword",
) -> list[Any] | None:
    """Metadata filters, node and document ids and ``es_filter`` as query clauses."""
    given = list(es_filter or [])
    if query.filters is not None:
        given.append(clause_of(query.filters, metadata_keyword_suffix))
    return _query_clauses(query, given, "metadata.ref_doc_id")


def elasticsearch_nodes(vector_store: Any, ids: list[str]) -> list[BaseNode]:
    """Nodes by id."""
    from llama_index.vector_stores.elasticsearch.utils import convert_es_hit_to_node

    fields = ["metadata", vector_store.text_field]
    answer = _elasticsearch_client(vector_store).search(
        index=vector_store.index_name, query={"ids": {"values": ids}}, size=len(ids), source_includes=fields
    )
    return [convert_es_hit_to_node(hit, vector_store.text_field) for hit in answer["hits"]["hits"]]


def opensearch_adapter(vector_store: Any) -> EmbeddingStore:
    """The adapter of an OpensearchVectorStore."""
    inner = vector_store.client
    inner._ensure_initialized()  # makes the index where it is not there yet
    return OpenSearchStore(inner._os_client, inner._index, vector_field=inner._embedding_field)


def opensearch_filter(store: Any, query: VectorStoreQuery) -> list[Any] | None:
    """Metadata filters, as the integration translates them, node and document ids as query clauses."""
    return _query_clauses(query, store.client._parse_filters(query.filters), "metadata.ref_doc_id.keyword")


def opensearch_nodes(vector_store: Any, ids: list[str]) -> list[BaseNode]:
    """Nodes by id."""
    inner = vector_store.client
    body = {"query": {"ids": {"values": ids}}, "size": len(ids), "_source": ["metadata", inner._text_field]}
    nodes: list[BaseNode] = inner._to_query_result(inner._os_client.search(index=inner._index, body=body)).nodes
    return nodes


def pinecone_adapter(vector_store: Any) -> PineconeStore:
    """The adapter of a PineconeVectorStore; kept, because it lists every record to know its node's id."""
    stores = _pinecone_stores.setdefault(vector_store.client, {})
    namespace = vector_store.namespace or ""
    if namespace not in stores:
        # The integration puts the source document's id and a # before the node's id.
        stores[namespace] = PineconeStore(
            vector_store.client, namespace=namespace, node_id_of=lambda record: record.rpartition("#")[2]
        )
    return stores[namespace]


def pinecone_filter(
    store: Any, query: VectorStoreQuery, pinecone_query_filters: dict[str, Any] | None = None
) -> dict[str, Any] | None:
    """Metadata filters, as the integration translates them, and document ids. Pinecone cannot filter by node id."""
    from llama_index.vector_stores.pinecone.base import _to_pinecone_filter

    if query.node_ids is not None:
        raise ValueError("Pinecone searches have no filter by node id")
    parts = [pinecone_query_filters or {}]
    if query.filters is not None:
        parts.append(_to_pinecone_filter(query.filters))
    if query.doc_ids is not None:
        parts.append({"ref_doc_id": {"$in": list(query.doc_ids)}})
    given = [part for part in parts if part]
    return {"$and": given} if len(given) > 1 else next(iter(given), None)


def pinecone_nodes(vector_store: Any, ids: list[str]) -> list[BaseNode]:
    """Nodes by id, as their metadata holds them."""
    records = pinecone_adapter(vector_store).records(ids)
    return [metadata_dict_to_node(record.metadata) for record in records.values()]


def _weaviate_collection(vector_store: Any) -> Any:
    return vector_store.client.collections.get(vector_store.index_name)


def weaviate_adapter(vector_store: Any) -> EmbeddingStore:
    """The adapter of a WeaviateVectorStore with a synchronous client."""
    return WeaviateStore(_weaviate_collection(vector_store))


def weaviate_filter(store: Any, query: VectorStoreQuery, filter: Any = None) -> Any:
    """Metadata filters, as the integration translates them, node and document ids, and a ``filter`` of Weaviate's."""
    from llama_index.vector_stores.weaviate.base import _to_weaviate_filter
    from weaviate.classes.query import Filter

    parts = [] if filter is None else [filter]
    if query.filters is not None and query.filters.filters:
        parts.append(_to_weaviate_filter(query.filters, store._get_property_types()))
    if query.node_ids is not None:
        parts.append(Filter.by_id().contains_any(list(query.node_ids)))
    if query.doc_ids is not None:
        parts.append(Filter.by_property("ref_doc_id").contains_any(list(query.doc_ids)))
    return Filter.all_of(parts) if len(parts) > 1 else next(iter(parts), None)


def weaviate_nodes(vector_store: Any, ids: list[str]) -> list[BaseNode]:
    """Nodes by id, as the integration makes them."""
    from llama_index.vector_stores.weaviate.utils import to_node

    answer = _weaviate_collection(vector_store).query.fetch_objects_by_ids(ids, limit=len(ids))
    return [to_node(vars(one), text_key=vector_store.text_key) for one in answer.objects]
