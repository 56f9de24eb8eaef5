"""PineconeVectorStore: its adapter, its filters, and its nodes by id; tried on a double only."""

from __future__ import annotations

import weakref
from typing import Any

from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.utils import metadata_dict_to_node
from llama_index.retrievers.nudge.databases.base import Database, Request

from nudge_rag.stores import PineconeStore

__all__ = ["DATABASE"]


_pinecone_stores: weakref.WeakKeyDictionary[Any, dict[str, PineconeStore]] = weakref.WeakKeyDictionary()


class Pinecone(Database):
    """A namespace of an index, with texts and metadata."""

    searches_itself = False
    options = carried_options = frozenset({"pinecone_query_filters"})

    def make_adapter(self, vector_store: Any) -> PineconeStore:
        """The adapter of a PineconeVectorStore; kept, because it lists every record to know its node's id."""
        stores = _pinecone_stores.setdefault(vector_store.client, {})
        namespace = vector_store.namespace or ""
        if namespace not in stores:
            # The integration puts the source document's id and a # before the node's id.
            stores[namespace] = PineconeStore(
                vector_store.client, namespace=namespace, node_id_of=lambda record: record.rpartition("#")[2]
            )
        return stores[namespace]

    def make_filter(self, request: Request) -> dict[str, Any] | None:
        """Metadata filters, as the integration translates them, and document ids. Pinecone cannot filter by node id."""
        from llama_index.vector_stores.pinecone.base import _to_pinecone_filter

        query = request.query
        if query.node_ids:
            raise ValueError("Pinecone searches have no filter by node id")
        parts = [request.options.get("pinecone_query_filters") or {}]
        if query.filters is not None:
            parts.append(_to_pinecone_filter(query.filters))
        if query.doc_ids:
            parts.append({"ref_doc_id": {"$in": list(query.doc_ids)}})
        given = [part for part in parts if part]
        return {"$and": given} if len(given) > 1 else next(iter(given), None)

    def fetch_nodes(self, vector_store: Any, ids: list[str]) -> list[BaseNode]:
        """Nodes by id, as their metadata holds them."""
        records = self.make_adapter(vector_store).records(ids)
        return [metadata_dict_to_node(record.metadata) for record in records.values()]


DATABASE = Pinecone()
