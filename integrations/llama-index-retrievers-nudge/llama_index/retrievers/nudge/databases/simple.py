"""SimpleVectorStore: its adapter and its filters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llama_index.core.vector_stores import SimpleVectorStore, VectorStoreQuery
from llama_index.core.vector_stores.utils import build_metadata_filter_fn
from llama_index.retrievers.nudge.databases.base import Database

from nudge_rag.stores import EmbeddingStore, SimpleStore

__all__ = ["DATABASE"]


def make_adapter(vector_store: Any) -> EmbeddingStore:
    return SimpleStore(vector_store)


def make_filter(store: SimpleVectorStore, query: VectorStoreQuery, **kwargs: Any) -> Callable[[str], bool] | None:
    if kwargs:
        raise ValueError(f"SimpleVectorStore takes no vector_store_kwargs, got {sorted(kwargs)}")
    if query.filters is None and query.node_ids is None and query.doc_ids is None:
        return None
    if query.filters is not None and store.data.embedding_dict and not store.data.metadata_dict:
        raise ValueError("cannot filter a store that was persisted without metadata: build it again with metadata")
    passes = build_metadata_filter_fn(lambda node_id: store.data.metadata_dict[node_id], query.filters)
    nodes = None if query.node_ids is None else set(query.node_ids)
    documents = None if query.doc_ids is None else set(query.doc_ids)

    def where(node_id: str) -> bool:
        return (
            (nodes is None or node_id in nodes)
            and (documents is None or store.data.text_id_to_ref_doc_id.get(node_id) in documents)
            and passes(node_id)
        )

    return where


DATABASE = Database(make_adapter, make_filter, None)
