"""OpenSearchVectorSearch: its adapter and its documents by id."""

from __future__ import annotations

from typing import Any

from langchain_core.documents import Document

from langchain_nudge.databases.base import Database, take_filter
from langchain_nudge.databases.hits import hit_document
from nudge_rag.stores import EmbeddingStore, OpenSearchStore

__all__ = ["DATABASE"]


def make_adapter(vectorstore: Any) -> EmbeddingStore:
    """The adapter of an OpenSearchVectorSearch whose index has one field of vectors."""
    return OpenSearchStore(vectorstore.client, vectorstore.index_name)


def get_documents(vectorstore: Any, ids: list[str]) -> list[Document]:
    """Documents by id, as the integration's searches give them, and with their ids."""
    # The integration takes other names for these fields with each search only; these are its defaults.
    body = {"query": {"ids": {"values": ids}}, "size": len(ids), "_source": ["text", "metadata"]}
    answer = vectorstore.client.search(index=vectorstore.index_name, body=body)
    return [hit_document(hit, "text") for hit in answer["hits"]["hits"]]


DATABASE = Database(make_adapter, take_filter, get_documents)
