"""WeaviateVectorStore: its adapter, its filters, and its nodes by id; tried on a double only."""

from __future__ import annotations

from typing import Any

from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores import VectorStoreQuery
from llama_index.retrievers.nudge.databases.base import Database

from nudge_rag.stores import EmbeddingStore, WeaviateStore

__all__ = ["DATABASE"]


def _collection(vector_store: Any) -> Any:
    return vector_store.client.collections.get(vector_store.index_name)


def make_adapter(vector_store: Any) -> EmbeddingStore:
    """The adapter of a WeaviateVectorStore with a synchronous client."""
    return WeaviateStore(_collection(vector_store))


def make_filter(store: Any, query: VectorStoreQuery, filter: Any = None) -> Any:
    """Metadata filters, as the integration translates them, node and document ids, and a ``filter`` of Weaviate's."""
    from llama_index.vector_stores.weaviate.base import _to_weaviate_filter
    from weaviate.classes.query import Filter

    parts = [] if filter is None else [filter]
    if query.filters is not None and query.filters.filters:
        parts.append(_to_weaviate_filter(query.filters, store._get_property_types()))
    if query.node_ids is not None:
        parts.append(Filter.by_id().contains_any(list(query.node_ids)))
    if query.doc_ids is not None:
        parts.append(Filter.by_property("ref_doc_id").contains_any(list(query.doc_ids)))
    return Filter.all_of(parts) if len(parts) > 1 else next(iter(parts), None)


def fetch_nodes(vector_store: Any, ids: list[str]) -> list[BaseNode]:
    """Nodes by id, as the integration makes them."""
    from llama_index.vector_stores.weaviate.utils import to_node

    answer = _collection(vector_store).query.fetch_objects_by_ids(ids, limit=len(ids))
    return [to_node(vars(one), text_key=vector_store.text_key) for one in answer.objects]


DATABASE = Database(make_adapter, make_filter, fetch_nodes)
