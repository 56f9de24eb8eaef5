"""Chroma: its adapter and its documents by id."""

from __future__ import annotations

from typing import Any

from langchain_core.documents import Document

from langchain_nudge.databases.base import Database, take_filter
from nudge_rag.stores import ChromaStore, EmbeddingStore

__all__ = ["DATABASE"]


def make_adapter(vectorstore: Any) -> EmbeddingStore:
    return ChromaStore(vectorstore._collection)


def get_documents(vectorstore: Any, ids: list[str]) -> list[Document]:
    # Its get_by_ids fails on documents without metadata (langchain-chroma 1.1).
    found = vectorstore._collection.get(ids=ids, include=["documents", "metadatas"])
    rows = zip(found["ids"], found["documents"], found["metadatas"], strict=True)
    return [Document(id=node, page_content=text or "", metadata=metadata or {}) for node, text, metadata in rows]


DATABASE = Database(make_adapter, take_filter, get_documents)
