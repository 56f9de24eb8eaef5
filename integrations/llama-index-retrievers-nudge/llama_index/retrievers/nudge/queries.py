"""Query embeddings by the model that an index searches with."""

from __future__ import annotations

from typing import Any

from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding

from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.embedding import model_name_of
from nudge_rag.tuning.queries import EmbedQueries
from nudge_rag.tuning.query_cache import cache_of, embed_queries_at_once

__all__ = ["embed_queries_with", "model_name_of", "model_of"]


def model_of(index_or_store: Any, embed_model: BaseEmbedding | None = None) -> BaseEmbedding:
    """Return the given model, the index's own, or ``Settings.embed_model`` for a bare vector store."""
    if embed_model is not None:
        return embed_model
    return index_or_store._embed_model if isinstance(index_or_store, VectorStoreIndex) else Settings.embed_model


def embed_queries_with(index_or_store: Any, embed_model: BaseEmbedding | None = None) -> EmbedQueries:
    """Make the function that embeds query texts with the model of an index.

    Queries go through the query side: many models put another instruction before a query than before a text. They are
    embedded in batches if the model has none; embeddings of a model that has a name are kept in the user's cache.
    """

    def embed_queries(texts: list[str]) -> FloatArray:
        model = model_of(index_or_store, embed_model)
        cache = cache_of(model)
        return embed_queries_at_once(texts, model.get_query_embedding, model.get_text_embedding_batch, cache)

    return embed_queries
