"""InMemoryVectorStore: its adapter and its filters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langchain_core.documents import Document

from langchain_nudge.databases.base import Database
from nudge_rag.common.similarity import Similarity
from nudge_rag.stores import EmbeddingStore, InMemoryStore

__all__ = ["DATABASE"]


class InMemoryDatabase(Database):
    """LangChain's own vector store, in the memory of this process."""

    keeps_file = True
    lists_vectors = True

    def make_adapter(self, vectorstore: Any, *, persist_path: Any = None, **options: Any) -> EmbeddingStore:
        """Make the adapter of its dictionary."""
        return InMemoryStore(vectorstore, persist_path=persist_path)

    def make_filter(self, vectorstore: Any, given: Any, **options: Any) -> Callable[[str], bool] | None:
        """Ask a function of the document by the document's id."""
        if given is None:
            return None
        self.check_filter(vectorstore, given)

        def passes(node_id: str) -> bool:
            entry = vectorstore.store[node_id]
            return bool(given(Document(id=entry["id"], page_content=entry["text"], metadata=entry["metadata"])))

        return passes

    def check_filter(self, vectorstore: Any, given: Any) -> None:
        """Refuse anything but a function."""
        if given is not None and not callable(given):
            raise TypeError(f"filter for InMemoryVectorStore is a function of a Document, got {type(given).__name__}")

    def framework_score(self, score: float, similarity: Similarity) -> float:
        """The cosine itself."""
        return score


DATABASE = InMemoryDatabase()
