"""WeaviateVectorStore: its adapter, its filters, and its nodes by id; tried on a double only."""

from __future__ import annotations

from typing import Any

from llama_index.core.schema import BaseNode
from llama_index.retrievers.nudge.databases.base import Database, Request

from nudge_rag.stores import EmbeddingStore, WeaviateStore

__all__ = ["DATABASE"]


def _collection(vector_store: Any) -> Any:
    return vector_store.client.collections.get(vector_store.index_name)


class Weaviate(Database):
    """A collection, with texts and metadata."""

    searches_itself = False
    options = carried_options = frozenset({"filter"})

    def make_adapter(self, vector_store: Any) -> EmbeddingStore:
        """The adapter of a WeaviateVectorStore with a synchronous client."""
        return WeaviateStore(_collection(vector_store))

    def make_filter(self, request: Request) -> Any:
        """Translate metadata filters as the integration does; add ids and a ``filter`` of Weaviate's."""
        from llama_index.vector_stores.weaviate.base import _to_weaviate_filter
        from weaviate.classes.query import Filter

        query, own = request.query, request.options.get("filter")
        parts = [] if own is None else [own]
        if query.filters is not None and query.filters.filters:
            parts.append(_to_weaviate_filter(query.filters, request.vector_store._get_property_types()))
        if query.node_ids:
            parts.append(Filter.by_id().contains_any(list(query.node_ids)))
        if query.doc_ids:
            parts.append(Filter.by_property("ref_doc_id").contains_any(list(query.doc_ids)))
        return Filter.all_of(parts) if len(parts) > 1 else next(iter(parts), None)

    def fetch_nodes(self, vector_store: Any, ids: list[str]) -> list[BaseNode]:
        """Nodes by id, as the integration makes them."""
        from llama_index.vector_stores.weaviate.utils import to_node

        answer = _collection(vector_store).query.fetch_objects_by_ids(ids, limit=len(ids))
        return [to_node(vars(one), text_key=vector_store.text_key) for one in answer.objects]


DATABASE = Weaviate()
