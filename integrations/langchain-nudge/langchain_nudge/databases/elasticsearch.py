"""ElasticsearchStore: its adapter and its documents by id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.documents import Document

from langchain_nudge.databases.base import Database
from langchain_nudge.databases.hits import hit_document
from nudge_rag.common.similarity import Similarity
from nudge_rag.stores import ElasticsearchStore, EmbeddingStore

__all__ = ["DATABASE"]

DISTANCES: dict[str, Similarity] = {
    "COSINE": "cosine",
    "DOT_PRODUCT": "dot",
    "EUCLIDEAN_DISTANCE": "l2",
    "MAX_INNER_PRODUCT": "dot",
}


class ElasticsearchDatabase(Database):
    """Elasticsearch."""

    def make_adapter(self, vectorstore: Any, **options: Any) -> EmbeddingStore:
        """The adapter of an ElasticsearchStore with a strategy of dense vectors."""
        inner = vectorstore._store
        strategy = inner.retrieval_strategy
        exact = type(strategy).__name__ == "DenseVectorScriptScoreStrategy"
        similarity = DISTANCES[strategy.distance.name] if exact else None
        return ElasticsearchStore(
            inner.client, inner.index, vector_field=inner.vector_field, similarity=similarity, exact=exact
        )

    def fetch_documents(self, vectorstore: Any, ids: list[str]) -> list[Document]:
        """Documents by id, as the integration's searches give them, and with their ids."""
        inner = vectorstore._store
        answer = inner.client.search(
            index=inner.index,
            query={"ids": {"values": ids}},
            size=len(ids),
            source_includes=[inner.text_field, "metadata"],
        )
        return [hit_document(hit, inner.text_field) for hit in answer["hits"]["hits"]]

    def honours(self, vectorstore: Any, options: Mapping[str, Any], is_async: bool) -> bool:
        """Only hybrid searches: other documents are fetched by id, with their ids in them."""
        return self.ranks_otherwise(vectorstore, options) is not None

    def ranks_otherwise(self, vectorstore: Any, options: Mapping[str, Any]) -> str | None:
        """A hybrid strategy ranks by words, too."""
        return "hybrid retrieval" if getattr(vectorstore._store.retrieval_strategy, "hybrid", False) else None


DATABASE = ElasticsearchDatabase()
