"""PineconeVectorStore: its adapter and its documents by id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.documents import Document

from langchain_nudge.databases.base import Database
from nudge_rag.stores import EmbeddingStore, PineconeStore

__all__ = ["DATABASE"]


class PineconeDatabase(Database):
    """Pinecone."""

    def make_adapter(self, vectorstore: Any, **options: Any) -> EmbeddingStore:
        """The adapter of a PineconeVectorStore and its namespace."""
        return PineconeStore(vectorstore.index, namespace=vectorstore._namespace)

    def fetch_documents(self, vectorstore: Any, ids: list[str]) -> list[Document]:
        """Documents by id."""
        found: dict[str, Any] = {}
        for first in range(0, len(ids), 100):
            found |= vectorstore.index.fetch(
                ids=ids[first : first + 100], namespace=vectorstore._namespace or ""
            ).vectors
        documents = []
        for node_id, record in found.items():
            metadata = dict(record.metadata)
            documents.append(Document(id=node_id, page_content=metadata.pop(vectorstore._text_key), metadata=metadata))
        return documents

    def honours(self, vectorstore: Any, options: Mapping[str, Any], is_async: bool) -> bool:
        """Its documents are fetched by id, with their ids in them."""
        return False


DATABASE = PineconeDatabase()
