"""QdrantVectorStore: its adapter and its documents by id."""

from __future__ import annotations

from typing import Any

from langchain_core.documents import Document

from langchain_nudge.databases.base import Database, take_filter
from nudge_rag.stores import EmbeddingStore, QdrantStore

__all__ = ["DATABASE"]


def make_adapter(vectorstore: Any) -> EmbeddingStore:
    return QdrantStore(vectorstore.client, vectorstore.collection_name, vector_name=vectorstore.vector_name or None)


def get_documents(vectorstore: Any, ids: list[str]) -> list[Document]:
    # Its get_by_ids gives documents without ids, those in the metadata (langchain-qdrant 1.1).
    documents = vectorstore.get_by_ids(ids)
    return [document.model_copy(update={"id": str(document.metadata["_id"])}) for document in documents]


DATABASE = Database(make_adapter, take_filter, get_documents)
