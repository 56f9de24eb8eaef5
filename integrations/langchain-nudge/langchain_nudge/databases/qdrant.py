"""QdrantVectorStore: its adapter and its documents by id."""

from __future__ import annotations

import math
from typing import Any

from langchain_core.documents import Document

from langchain_nudge.databases.base import Database
from nudge_rag.common.similarity import Similarity
from nudge_rag.stores import EmbeddingStore, QdrantStore

__all__ = ["DATABASE"]


class QdrantDatabase(Database):
    """Qdrant, in local mode or a server."""

    def make_adapter(self, vectorstore: Any, **options: Any) -> EmbeddingStore:
        """Make the adapter of its collection and named vector."""
        return QdrantStore(vectorstore.client, vectorstore.collection_name, vector_name=vectorstore.vector_name or None)

    def fetch_documents(self, vectorstore: Any, ids: list[str]) -> list[Document]:
        """Fetch documents by id; Qdrant tells integers from strings."""
        points: list[Any] = [int(node_id) if node_id.isdecimal() else node_id for node_id in ids]
        return self.complete(vectorstore, vectorstore.get_by_ids(points))

    def complete(self, vectorstore: Any, documents: list[Document]) -> list[Document]:
        """Take ids from the metadata, where the integration leaves them (langchain-qdrant 1.1)."""
        return [document.model_copy(update={"id": str(document.metadata["_id"])}) for document in documents]

    def framework_score(self, score: float, similarity: Similarity) -> float:
        """Qdrant's own score: the cosine, the inner product, or the distance."""
        return math.sqrt(max(-score, 0.0)) if similarity == "l2" else score


DATABASE = QdrantDatabase()
