"""InMemoryVectorStore: its adapter and its filters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langchain_core.documents import Document

from langchain_nudge.databases.base import Database, get_documents
from nudge_rag.stores import InMemoryStore

__all__ = ["DATABASE"]


def make_filter(vectorstore: Any, given: Any) -> Callable[[str], bool] | None:
    if given is None:
        return None
    if not callable(given):
        raise TypeError(f"filter for InMemoryVectorStore is a function of a Document, got {type(given).__name__}")

    def where(node_id: str) -> bool:
        entry = vectorstore.store[node_id]
        return bool(given(Document(id=entry["id"], page_content=entry["text"], metadata=entry["metadata"])))

    return where


DATABASE = Database(InMemoryStore, make_filter, get_documents, persist_path=True)
