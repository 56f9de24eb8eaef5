"""The FAISS vector stores: their adapter, and filters over the index's docstore."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from llama_index.core.vector_stores import VectorStoreQuery
from llama_index.retrievers.nudge.databases.base import Database, Options, Request
from llama_index.retrievers.nudge.filters.memory import passes_filters

from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.similarity import Similarity
from nudge_rag.stores import EmbeddingStore

__all__ = ["DATABASE"]


class Faiss(Database):
    """Vectors alone; texts and metadata are in the index's docstore."""

    stores_text = False
    keeps_no_metadata = True

    def make_adapter(self, vector_store: Any) -> EmbeddingStore:
        """Refuse: the ids are in the index."""
        raise TypeError(f"pass the VectorStoreIndex that the {type(vector_store).__name__} belongs to")

    def make_filter(self, request: Request) -> Callable[[str], bool] | None:
        """Make a function of a node id that looks into the docstore; None if nothing is filtered."""

        def metadata_of(node_id: str) -> dict[str, Any]:
            metadata: dict[str, Any] = request.filtered.get_node(node_id).metadata
            return metadata

        def document_of(node_id: str) -> str | None:
            document: str | None = request.filtered.get_node(node_id).ref_doc_id
            return document

        # As in the framework's own retriever, an empty list of ids restricts nothing.
        query = replace(request.query, node_ids=request.query.node_ids or None)
        return passes_filters(query, metadata_of, document_of)

    def honours(self, vector_store: Any, query: VectorStoreQuery, options: Options) -> bool:
        """Its search refuses filters and ignores ids."""
        return query.filters is None and super().honours(vector_store, query, options)

    def framework_scores(self, scores: FloatArray, similarity: Similarity) -> FloatArray:
        """FAISS gives distances as they are: the smaller, the nearer."""
        return -scores if similarity == "l2" else scores


DATABASE = Faiss()
