"""The parts of the integrations whose databases cannot be run in the tests: adapters and documents by id."""

from __future__ import annotations

from typing import Any

from langchain_core.documents import Document

from nudge_rag.common.similarity import Similarity
from nudge_rag.stores import ElasticsearchStore, EmbeddingStore, OpenSearchStore, PineconeStore, WeaviateStore

__all__ = [
    "elasticsearch_adapter",
    "elasticsearch_documents",
    "opensearch_adapter",
    "opensearch_documents",
    "pinecone_adapter",
    "pinecone_documents",
    "weaviate_adapter",
    "weaviate_documents",
]

ELASTIC_DISTANCES: dict[str, Similarity] = {
    "COSINE": "cosine",
    "DOT_PRODUCT": "dot",
    "EUCLIDEAN_DISTANCE": "l2",
    "MAX_INNER_PRODUCT": "dot",
}


def elasticsearch_adapter(vectorstore: Any) -> EmbeddingStore:
    """The adapter of an ElasticsearchStore with a strategy of dense vectors."""
    inner = vectorstore._store
    strategy = inner.retrieval_strategy
    exact = type(strategy).__name__ == "DenseVectorScriptScoreStrategy"
    similarity = ELASTIC_DISTANCES[strategy.distance.name] if exact else None
    return ElasticsearchStore(
        inner.client, inner.index, vector_field=inner.vector_field, similarity=similarity, exact=exact
    )


def elasticsearch_documents(vectorstore: Any, ids: list[str]) -> list[Document]:
    """Documents by id, as the integration's searches give them, and with their ids."""
    inner = vectorstore._store
    answer = inner.client.search(
        index=inner.index,
        query={"ids": {"values": ids}},
        size=len(ids),
        source_includes=[inner.text_field, "metadata"],
    )
    return [_hit_document(hit, inner.text_field) for hit in answer["hits"]["hits"]]


def opensearch_adapter(vectorstore: Any) -> EmbeddingStore:
    """The adapter of an OpenSearchVectorSearch whose index has one field of vectors."""
    return OpenSearchStore(vectorstore.client, vectorstore.index_name)


def opensearch_documents(vectorstore: Any, ids: list[str]) -> list[Document]:
    """Documents by id, as the integration's searches give them, and with their ids."""
    # The integration takes other names for these fields with each search only; these are its defaults.
    body = {"query": {"ids": {"values": ids}}, "size": len(ids), "_source": ["text", "metadata"]}
    answer = vectorstore.client.search(index=vectorstore.index_name, body=body)
    return [_hit_document(hit, "text") for hit in answer["hits"]["hits"]]


def _hit_document(hit: Any, text_field: str) -> Document:
    source = hit["_source"]
    return Document(id=hit["_id"], page_content=source[text_field], metadata=source.get("metadata") or {})


def pinecone_adapter(vectorstore: Any) -> EmbeddingStore:
    """The adapter of a PineconeVectorStore and its namespace."""
    return PineconeStore(vectorstore.index, namespace=vectorstore._namespace)


def pinecone_documents(vectorstore: Any, ids: list[str]) -> list[Document]:
    """Documents by id."""
    found: dict[str, Any] = {}
    for first in range(0, len(ids), 100):
        found |= vectorstore.index.fetch(ids=ids[first : first + 100], namespace=vectorstore._namespace or "").vectors
    documents = []
    for node_id, record in found.items():
        metadata = dict(record.metadata)
        documents.append(Document(id=node_id, page_content=metadata.pop(vectorstore._text_key), metadata=metadata))
    return documents


def weaviate_adapter(vectorstore: Any) -> EmbeddingStore:
    """The adapter of a WeaviateVectorStore without tenants."""
    if vectorstore._multi_tenancy_enabled:
        raise ValueError("the collection has tenants: pass WeaviateStore(collection.with_tenant(...)) for one of them")
    return WeaviateStore(vectorstore._collection)


def weaviate_documents(vectorstore: Any, ids: list[str]) -> list[Document]:
    """Documents by id, and with their ids."""
    documents = []
    for one in vectorstore._collection.query.fetch_objects_by_ids(ids, limit=len(ids)).objects:
        properties = dict(one.properties)
        text = properties.pop(vectorstore._text_key)
        documents.append(Document(id=str(one.uuid), page_content=text, metadata=properties))
    return documents
