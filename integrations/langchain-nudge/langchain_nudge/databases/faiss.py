"""FAISS: its adapter, its filters, and its documents by id."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langchain_core.documents import Document

from langchain_nudge.databases.base import Database
from nudge_rag.stores import EmbeddingStore, FaissStore

__all__ = ["DATABASE"]


def make_adapter(vectorstore: Any, *, persist_path: Any = None) -> EmbeddingStore:
    return FaissStore(
        vectorstore.index,
        lambda: vectorstore.index_to_docstore_id,
        persist_path=persist_path,
        held_by=(vectorstore, "index"),
    )


def make_filter(vectorstore: Any, given: Any) -> Callable[[str], bool] | None:
    """A function of the metadata, or a dictionary as the integration takes it."""
    if given is None:
        return None
    if not callable(given) and not isinstance(given, dict):
        raise TypeError(f"filter for FAISS is a function of the metadata or a dictionary, got {type(given).__name__}")
    passes = given if callable(given) else vectorstore._create_filter_func(given)

    def where(node_id: str) -> bool:
        document = vectorstore.docstore.search(node_id)
        return isinstance(document, Document) and bool(passes(document.metadata))

    return where


def get_documents(vectorstore: Any, ids: list[str]) -> list[Document]:
    found = {node_id: vectorstore.docstore.search(node_id) for node_id in ids}
    return [one.model_copy(update={"id": node}) for node, one in found.items() if isinstance(one, Document)]


DATABASE = Database(make_adapter, make_filter, get_documents, persist_path=True)
