"""ChromaVectorStore: its adapter and its filters."""

from __future__ import annotations

from typing import Any

from llama_index.core.vector_stores import VectorStoreQuery
from llama_index.retrievers.nudge.databases.base import Database, get_nodes

from nudge_rag.stores import ChromaFilter, ChromaStore

__all__ = ["DATABASE"]


def make_adapter(vector_store: Any) -> ChromaStore:
    return ChromaStore(vector_store.client)


def make_filter(
    store: Any,
    query: VectorStoreQuery,
    where: dict[str, Any] | None = None,
    where_document: dict[str, Any] | None = None,
) -> ChromaFilter:
    from llama_index.vector_stores.chroma.base import _to_chroma_filter

    if query.filters is not None and where is not None:
        raise ValueError("give metadata filters as filters= or as where= in vector_store_kwargs, not both")
    parts = [where or (_to_chroma_filter(query.filters) if query.filters is not None else None)]
    if query.doc_ids is not None:
        # The integration keeps the source document's id in the metadata, and deletes by it.
        parts.append({"document_id": {"$in": list(query.doc_ids)}})
    given = [part for part in parts if part]
    combined = {"$and": given} if len(given) > 1 else next(iter(given), None)
    return ChromaFilter(where=combined, where_document=where_document, ids=query.node_ids)


DATABASE = Database(make_adapter, make_filter, get_nodes)
