"""SimpleVectorStore: its adapter and its filters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llama_index.core.vector_stores import VectorStoreQuery
from llama_index.retrievers.nudge.databases.base import MMR_OPTIONS, Database, Options, Request
from llama_index.retrievers.nudge.filters.memory import passes_filters

from nudge_rag.stores import EmbeddingStore, SimpleStore

__all__ = ["DATABASE"]


class Simple(Database):
    """Vectors and metadata in dictionaries; texts are in the index's docstore."""

    stores_text = False
    options = MMR_OPTIONS
    own_restrictions = frozenset({"node_ids"})
    mmr_prefetch = "all"

    def make_adapter(self, vector_store: Any) -> EmbeddingStore:
        """Make the adapter of its dictionary."""
        return SimpleStore(vector_store)

    def make_filter(self, request: Request) -> Callable[[str], bool] | None:
        """Make a function of a node id; None if nothing is filtered."""
        data, query = request.filtered.data, request.query
        if query.filters is not None and data.embedding_dict and not data.metadata_dict:
            raise ValueError("cannot filter a store that was persisted without metadata: build it again with metadata")
        return passes_filters(query, data.metadata_dict.__getitem__, data.text_id_to_ref_doc_id.get)

    def honours(self, vector_store: Any, query: VectorStoreQuery, options: Options) -> bool:
        """Its search knows no document ids."""
        return not query.doc_ids


DATABASE = Simple()
