"""ChromaVectorStore: its adapter and its filters."""

from __future__ import annotations

from typing import Any

import numpy as np
from llama_index.retrievers.nudge.databases.base import MMR_OPTIONS, Database, Request

from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.similarity import Similarity
from nudge_rag.stores import ChromaFilter, ChromaStore

__all__ = ["DATABASE"]


class Chroma(Database):
    """A collection, with texts and flat metadata."""

    options = frozenset({"where", "where_document", "include"}) | MMR_OPTIONS
    # ``include`` chooses the fields that the database sends along; nodes are made of the same fields anyway.
    carried_options = frozenset({"where", "where_document", "include"})
    mmr_prefetch = "factor"
    mmr_needs_k = True
    mmr_keeps_scores = True

    def make_adapter(self, vector_store: Any) -> ChromaStore:
        """Make the adapter of its collection."""
        return ChromaStore(vector_store.client)

    def make_filter(self, request: Request) -> ChromaFilter:
        """Translate metadata filters as the integration does, and document ids by its metadata."""
        from llama_index.vector_stores.chroma.base import _to_chroma_filter

        query, where = request.query, request.options.get("where")
        if query.filters is not None and where is not None:
            raise ValueError("give metadata filters as filters= or as where= in vector_store_kwargs, not both")
        parts = [where or (_to_chroma_filter(query.filters) if query.filters is not None else None)]
        if query.doc_ids:
            # The integration keeps the source document's id in the metadata, and deletes by it.
            parts.append({"document_id": {"$in": list(query.doc_ids)}})
        given = [part for part in parts if part]
        combined = {"$and": given} if len(given) > 1 else next(iter(given), None)
        # Chroma fails on ids that it does not have.
        ids = request.vector_store.client.get(ids=list(query.node_ids), include=[])["ids"] if query.node_ids else None
        return ChromaFilter(where=combined, where_document=request.options.get("where_document"), ids=ids)

    def framework_scores(self, scores: FloatArray, similarity: Similarity) -> FloatArray:
        """The integration gives exp(-distance)."""
        return np.exp(scores) if similarity == "l2" else np.exp(scores - 1)


DATABASE = Chroma()
