"""QdrantVectorStore: its adapter and its filters."""

from __future__ import annotations

from typing import Any

import numpy as np
from llama_index.core.schema import BaseNode
from llama_index.retrievers.nudge.databases.base import Database, Request

from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.event_loops import BlockingClient
from nudge_rag.common.similarity import Similarity
from nudge_rag.stores import EmbeddingStore, QdrantStore

__all__ = ["DATABASE"]


class Qdrant(Database):
    """A collection, with texts and nested metadata."""

    options = frozenset({"qdrant_filters", "search_params", "shard_identifier"})
    carried_options = frozenset({"qdrant_filters"})
    own_restrictions = frozenset({"node_ids", "doc_ids"})

    def make_adapter(self, vector_store: Any) -> EmbeddingStore:
        """Make the adapter of its dense vector."""
        client = _client_of(vector_store)
        vectors = client.get_collection(vector_store.collection_name).config.params.vectors
        named = vector_store.dense_vector_name if isinstance(vectors, dict) else None
        return QdrantStore(client, vector_store.collection_name, vector_name=named)

    def make_filter(self, request: Request) -> Any:
        """Translate filters and ids as the integration does; ``qdrant_filters`` take their place."""
        own = request.options.get("qdrant_filters")
        return own if own is not None else request.vector_store._build_query_filter(request.query)

    def nodes_by_id(self, vector_store: Any, ids: list[str]) -> dict[str, BaseNode]:
        """Fetch nodes by the id of their point, which may be a number, or another than the node's own."""
        wanted = [int(node_id) if node_id.isdigit() else node_id for node_id in ids]
        points = _client_of(vector_store).retrieve(vector_store.collection_name, wanted, with_payload=True)
        nodes: list[BaseNode] = vector_store.parse_to_query_result(points).nodes
        return {str(point.id): node for point, node in zip(points, nodes, strict=True)}

    def fetch_nodes(self, vector_store: Any, ids: list[str]) -> list[BaseNode]:
        """Fetch nodes by the id of their point."""
        return list(self.nodes_by_id(vector_store, ids).values())

    def framework_scores(self, scores: FloatArray, similarity: Similarity) -> FloatArray:
        """Qdrant gives the distance itself if it ranks by it: the smaller, the nearer."""
        return np.sqrt(np.maximum(-scores, 0)) if similarity == "l2" else scores


def _client_of(vector_store: Any) -> Any:
    """Its synchronous client; if it has none, its asynchronous one, to be waited for."""
    return vector_store.client if vector_store.client is not None else BlockingClient(vector_store._aclient)


DATABASE = Qdrant()
