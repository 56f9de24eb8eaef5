"""What each database's integration calls its parts: its adapter, its filters, and its documents by id."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from langchain_core.documents import Document

from nudge_rag.stores import EmbeddingStore

__all__ = ["Database", "get_documents", "take_filter"]


@dataclass(frozen=True)
class Database:
    """How to work with one LangChain vector store class.

    Attributes:
        adapter: vector store to `EmbeddingStore`.
        where: vector store and filter, in the integration's own form, to the adapter's filter.
        documents: vector store and ids to documents with their ids, in any order.
        persist_path: whether the adapter takes the file that changes are written through to.
        embeddings: name of the attribute with the vector store's embeddings.
    """

    adapter: Callable[..., EmbeddingStore]
    where: Callable[[Any, Any], Any]
    documents: Callable[[Any, list[str]], list[Document]]
    persist_path: bool = False
    embeddings: str = "embeddings"


def get_documents(vectorstore: Any, ids: list[str]) -> list[Document]:
    """Fetch documents by id, as the integration itself does."""
    documents: list[Document] = vectorstore.get_by_ids(ids)
    return documents


def take_filter(vectorstore: Any, given: Any) -> Any:
    """Take a filter as it is: the integration's form is the database's own."""
    return given
