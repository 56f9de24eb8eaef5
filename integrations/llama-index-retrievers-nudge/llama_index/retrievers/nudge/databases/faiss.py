"""The FAISS vector stores: their adapter, and filters over the index's docstore."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llama_index.core.vector_stores import VectorStoreQuery
from llama_index.core.vector_stores.utils import build_metadata_filter_fn
from llama_index.retrievers.nudge.databases.base import Database

from nudge_rag.stores import EmbeddingStore

__all__ = ["DATABASE"]


def make_adapter(vector_store: Any) -> EmbeddingStore:
    raise TypeError(f"pass the VectorStoreIndex that the {type(vector_store).__name__} belongs to")


def make_filter(docstore: Any, query: VectorStoreQuery, **kwargs: Any) -> Callable[[str], bool] | None:
    if kwargs:
        raise ValueError(f"the FAISS stores take no vector_store_kwargs, got {sorted(kwargs)}")
    if query.filters is None and query.node_ids is None and query.doc_ids is None:
        return None
    passes = build_metadata_filter_fn(lambda node_id: docstore.get_node(node_id).metadata, query.filters)
    nodes = None if query.node_ids is None else set(query.node_ids)
    documents = None if query.doc_ids is None else set(query.doc_ids)

    def where(node_id: str) -> bool:
        return (
            (nodes is None or node_id in nodes)
            and (documents is None or docstore.get_node(node_id).ref_doc_id in documents)
            and passes(node_id)
        )

    return where


DATABASE = Database(make_adapter, make_filter, None, keeps_no_metadata=True)
