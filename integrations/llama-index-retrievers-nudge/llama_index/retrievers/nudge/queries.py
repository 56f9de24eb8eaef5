"""Query embeddings by the model that an index searches with."""

from __future__ import annotations

from typing import Any

from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding

import nudge_rag
from nudge_rag.tuning.queries import EmbedQueries

__all__ = ["embed_queries_with", "model_name_of", "model_of"]

# The name that LlamaIndex gives a model without one.
NAMELESS = "unknown"


def model_of(index_or_store: Any, embed_model: BaseEmbedding | None = None) -> BaseEmbedding:
    """Return the given model, the index's own, or ``Settings.embed_model`` for a bare vector store."""
    if embed_model is not None:
        return embed_model
    return index_or_store._embed_model if isinstance(index_or_store, VectorStoreIndex) else Settings.embed_model


def model_name_of(model: BaseEmbedding) -> str | None:
    """Return the model's name, or None if it has none."""
    name = getattr(model, "model_name", None)
    return None if name == NAMELESS else name


def embed_queries_with(index_or_store: Any, embed_model: BaseEmbedding | None = None) -> EmbedQueries:
    """Make the function that embeds query texts with the model of an index.

    Queries go through the query side: many models put another instruction before a query than before a text.
    """

    def embed_queries(texts: list[str]) -> list[list[float]]:
        model = model_of(index_or_store, embed_model)
        return [model.get_query_embedding(text) for text in nudge_rag.track(texts)]

    return embed_queries
