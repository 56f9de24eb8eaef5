"""Milvus: its adapter, its filters, and its documents by id."""

from __future__ import annotations

from typing import Any

from langchain_core.documents import Document

from langchain_nudge.databases.base import Database
from nudge_rag.stores import EmbeddingStore, MilvusStore
from nudge_rag.stores.milvus.schema import among

__all__ = ["DATABASE"]


def make_adapter(vectorstore: Any) -> EmbeddingStore:
    field, given = vectorstore._vector_field, (vectorstore.search_params or {}).get("params")
    defaults = [entry["params"] for entry in vectorstore.default_search_params.values()]
    return MilvusStore(
        vectorstore.client,
        vectorstore.collection_name,
        vector_field=field if isinstance(field, str) else None,
        # Its own defaults find no more than 10 with HNSW: the server's fit k.
        search_params=None if given in defaults else given,
    )


def make_filter(vectorstore: Any, given: Any) -> str | None:
    if given is not None and not isinstance(given, str):
        raise TypeError(f"filter for Milvus is an expression, such as 'year > 2020', got {type(given).__name__}")
    return given


def get_documents(vectorstore: Any, ids: list[str]) -> list[Document]:
    key = vectorstore._primary_field
    keys: list[Any] = [int(node_id) for node_id in ids] if vectorstore.auto_id else ids  # auto_id makes them integers
    fields = ["*"] if vectorstore.enable_dynamic_field else vectorstore._remove_forbidden_fields(vectorstore.fields[:])
    rows = vectorstore.client.query(
        vectorstore.collection_name,
        filter=among(key, keys),
        output_fields=fields,
        consistency_level="Strong",
    )
    return [vectorstore._parse_document(dict(row)).model_copy(update={"id": str(row[key])}) for row in rows]


DATABASE = Database(make_adapter, make_filter, get_documents)
