"""PineconeVectorStore: its adapter and its documents by id."""

from __future__ import annotations

from typing import Any

from langchain_core.documents import Document

from langchain_nudge.databases.base import Database, take_filter
from nudge_rag.stores import EmbeddingStore, PineconeStore

__all__ = ["DATABASE"]


def make_adapter(vectorstore: Any) -> EmbeddingStore:
    """The adapter of a PineconeVectorStore and its namespace."""
    return PineconeStore(vectorstore.index, namespace=vectorstore._namespace)


def get_documents(vectorstore: Any, ids: list[str]) -> list[Document]:
    """Documents by id."""
    found: dict[str, Any] = {}
    for first in range(0, len(ids), 100):
        found |= vectorstore.index.fetch(ids=ids[first : first + 100], namespace=vectorstore._namespace or "").vectors
    documents = []
    for node_id, record in found.items():
        metadata = dict(record.metadata)
        documents.append(Document(id=node_id, page_content=metadata.pop(vectorstore._text_key), metadata=metadata))
    return documents


DATABASE = Database(make_adapter, take_filter, get_documents)
