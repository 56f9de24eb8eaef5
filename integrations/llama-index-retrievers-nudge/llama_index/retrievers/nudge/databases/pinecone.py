"""PineconeVectorStore: its adapter, its filters, and its nodes by id; tried on a double only."""

from __future__ import annotations

import weakref
from typing import Any

from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores import VectorStoreQuery
from llama_index.core.vector_stores.utils import metadata_dict_to_node
from llama_index.retrievers.nudge.databases.base import Database

from nudge_rag.stores import PineconeStore

__all__ = ["DATABASE"]


_pinecone_stores: weakref.WeakKeyDictionary[Any, dict[str, PineconeStore]] = weakref.WeakKeyDictionary()


def make_adapter(vector_store: Any) -> PineconeStore:
    """The adapter of a PineconeVectorStore; kept, because it lists every record to know its node's id."""
    stores = _pinecone_stores.setdefault(vector_store.client, {})
    namespace = vector_store.namespace or ""
    if namespace not in stores:
        # The integration puts the source document's id and a # before the node's id.
        stores[namespace] = PineconeStore(
            vector_store.client, namespace=namespace, node_id_of=lambda record: record.rpartition("#")[2]
        )
    return stores[namespace]


def make_filter(
    store: Any, query: VectorStoreQuery, pinecone_query_filters: dict[str, Any] | None = None
) -> dict[str, Any] | None:
    """Metadata filters, as the integration translates them, and document ids. Pinecone cannot filter by node id."""
    from llama_index.vector_stores.pinecone.base import _to_pinecone_filter

    if query.node_ids is not None:
        raise ValueError("Pinecone searches have no filter by node id")
    parts = [pinecone_query_filters or {}]
    if query.filters is not None:
        parts.append(_to_pinecone_filter(query.filters))
    if query.doc_ids is not None:
        parts.append({"ref_doc_id": {"$in": list(query.doc_ids)}})
    given = [part for part in parts if part]
    return {"$and": given} if len(given) > 1 else next(iter(given), None)


def fetch_nodes(vector_store: Any, ids: list[str]) -> list[BaseNode]:
    """Nodes by id, as their metadata holds them."""
    records = make_adapter(vector_store).records(ids)
    return [metadata_dict_to_node(record.metadata) for record in records.values()]


DATABASE = Database(make_adapter, make_filter, fetch_nodes)
