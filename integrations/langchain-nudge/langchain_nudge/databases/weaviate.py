"""WeaviateVectorStore: its adapter and its documents by id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.documents import Document

from langchain_nudge.databases.base import Database
from nudge_rag.stores import EmbeddingStore, WeaviateStore

__all__ = ["DATABASE"]


class WeaviateDatabase(Database):
    """Weaviate."""

    def make_adapter(self, vectorstore: Any, **options: Any) -> EmbeddingStore:
        """The adapter of a WeaviateVectorStore without tenants."""
        if vectorstore._multi_tenancy_enabled:
            raise ValueError(
                "the collection has tenants: pass WeaviateStore(collection.with_tenant(...)) for one of them"
            )
        return WeaviateStore(vectorstore._collection)

    def fetch_documents(self, vectorstore: Any, ids: list[str]) -> list[Document]:
        """Documents by id, and with their ids."""
        documents = []
        for one in vectorstore._collection.query.fetch_objects_by_ids(ids, limit=len(ids)).objects:
            properties = dict(one.properties)
            text = properties.pop(vectorstore._text_key)
            documents.append(Document(id=str(one.uuid), page_content=text, metadata=properties))
        return documents

    def honours(self, vectorstore: Any, options: Mapping[str, Any], is_async: bool) -> bool:
        """Its documents are fetched by id, with their ids in them."""
        return False


DATABASE = WeaviateDatabase()
