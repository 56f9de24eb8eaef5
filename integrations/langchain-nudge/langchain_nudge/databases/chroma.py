"""Chroma: its adapter, its filters, and its documents by id."""

from __future__ import annotations

from typing import Any

from langchain_core.documents import Document

from langchain_nudge.databases.base import Database
from nudge_rag.common.similarity import Similarity
from nudge_rag.stores import ChromaFilter, ChromaStore, EmbeddingStore

__all__ = ["DATABASE"]


class ChromaDatabase(Database):
    """Chroma, embedded or a server."""

    carried_options = frozenset({"where_document"})
    sorts_diverse = True

    def make_adapter(self, vectorstore: Any, **options: Any) -> EmbeddingStore:
        """Make the adapter of its collection."""
        return ChromaStore(vectorstore._collection)

    def make_filter(self, vectorstore: Any, given: Any, **options: Any) -> Any:
        """Put the filters of metadata and of text together."""
        return ChromaFilter(where=given, where_document=options.get("where_document"))

    def fetch_documents(self, vectorstore: Any, ids: list[str]) -> list[Document]:
        """Fetch documents by id; its get_by_ids fails on documents without metadata (langchain-chroma 1.1)."""
        found = vectorstore._collection.get(ids=ids, include=["documents", "metadatas"])
        rows = zip(found["ids"], found["documents"], found["metadatas"], strict=True)
        return [Document(id=node, page_content=text or "", metadata=metadata or {}) for node, text, metadata in rows]

    def framework_score(self, score: float, similarity: Similarity) -> float:
        """Chroma's distance: squared for l2."""
        return -score if similarity == "l2" else 1 - score


DATABASE = ChromaDatabase()
