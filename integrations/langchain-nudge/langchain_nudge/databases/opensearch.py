"""OpenSearchVectorSearch: its adapter and its documents by id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.documents import Document

from langchain_nudge.databases.base import Database
from langchain_nudge.databases.hits import hit_document
from nudge_rag.stores import EmbeddingStore, OpenSearchStore

__all__ = ["DATABASE"]


class OpenSearchDatabase(Database):
    """OpenSearch, by langchain-community."""

    def make_adapter(self, vectorstore: Any, **options: Any) -> EmbeddingStore:
        """The adapter of an OpenSearchVectorSearch whose index has one field of vectors."""
        return OpenSearchStore(vectorstore.client, vectorstore.index_name)

    def fetch_documents(self, vectorstore: Any, ids: list[str]) -> list[Document]:
        """Documents by id, as the integration's searches give them, and with their ids."""
        # The integration takes other names for these fields with each search only; these are its defaults.
        body = {"query": {"ids": {"values": ids}}, "size": len(ids), "_source": ["text", "metadata"]}
        answer = vectorstore.client.search(index=vectorstore.index_name, body=body)
        return [hit_document(hit, "text") for hit in answer["hits"]["hits"]]

    def honours(self, vectorstore: Any, options: Mapping[str, Any], is_async: bool) -> bool:
        """Its documents are fetched by id, with their ids in them."""
        return False


DATABASE = OpenSearchDatabase()
