"""QdrantVectorStore: its adapter and its documents by id."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from langchain_core.documents import Document

from langchain_nudge.databases.base import Database
from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.similarity import Similarity, score_matrix
from nudge_rag.stores import EmbeddingStore, QdrantStore

__all__ = ["DATABASE"]


class QdrantDatabase(Database):
    """Qdrant, in local mode or a server."""

    thresholds_scores = True

    def make_adapter(self, vectorstore: Any, **options: Any) -> EmbeddingStore:
        """Make the adapter of its collection and named vector."""
        return QdrantStore(vectorstore.client, vectorstore.collection_name, vector_name=vectorstore.vector_name or None)

    def ranks_otherwise(self, vectorstore: Any, options: Mapping[str, Any]) -> str | None:
        """Sparse and hybrid retrieval rank by words, too."""
        mode = vectorstore.retrieval_mode.value
        return None if mode == "dense" else f"retrieval_mode {mode!r}"

    def fetch_documents(self, vectorstore: Any, ids: list[str]) -> list[Document]:
        """Fetch documents by id; Qdrant tells integers from strings."""
        points: list[Any] = [int(node_id) if node_id.isdecimal() else node_id for node_id in ids]
        return self.complete(vectorstore, vectorstore.get_by_ids(points))

    def complete(self, vectorstore: Any, documents: list[Document]) -> list[Document]:
        """Take ids from the metadata, because the integration (langchain-qdrant 1.1) leaves them there."""
        return [document.model_copy(update={"id": str(document.metadata["_id"])}) for document in documents]

    def choose_diverse(
        self, query: FloatArray, vectors: FloatArray, k: int, lambda_mult: float, similarity: Similarity
    ) -> list[int]:
        """As Qdrant itself chooses: what the integration calls lambda is diversity, and distances are squared."""
        wide = np.asarray(vectors, dtype=np.float64)
        relevance = score_matrix(query[None, :], wide, similarity)[0]
        likeness = score_matrix(wide, wide, similarity)
        chosen: list[int] = []
        left = list(range(len(wide)))
        while left and len(chosen) < k:
            redundancy = likeness[:, chosen].max(axis=1) if chosen else np.zeros(len(wide))
            values = (1 - lambda_mult) * relevance - lambda_mult * redundancy if chosen else relevance
            # Of equal values the last one, and the last one left takes the place of the chosen.
            place = max(range(len(left)), key=lambda place: (values[left[place]], place))
            chosen.append(left[place])
            left[place] = left[-1]
            left.pop()
        return chosen

    def framework_score(self, score: float, similarity: Similarity) -> float:
        """Qdrant's own score: the cosine, the inner product, or the distance."""
        return math.sqrt(max(-score, 0.0)) if similarity == "l2" else score


DATABASE = QdrantDatabase()
