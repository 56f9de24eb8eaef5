"""Query embeddings by the model that an index searches with."""

from __future__ import annotations

from typing import Any

from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.retrievers.nudge.embedding import NudgeEmbedding, probe_queries_with

from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.embedding import ModelQueries, model_name_of
from nudge_rag.tuning.queries import EmbedQueries
from nudge_rag.tuning.query_cache import cache_of, embed_queries_at_once

__all__ = ["embed_queries_with", "model_name_of", "model_of"]


def model_of(index_or_store: Any, embed_model: BaseEmbedding | None = None) -> BaseEmbedding:
    """Return the given model, the index's own, or that of ``Settings``, without the map of a nudge.

    Raises:
        ValueError: none is given, and ``Settings`` has none.
    """
    model = embed_model
    if model is None:
        model = index_or_store._embed_model if isinstance(index_or_store, VectorStoreIndex) else _default_model()
    return model._embed_model if isinstance(model, NudgeEmbedding) else model


def _default_model() -> BaseEmbedding:
    try:
        return Settings.embed_model
    except ImportError as error:  # LlamaIndex' own default is in a package that is not installed
        raise ValueError(
            "a vector store has no embedding model of its own: pass embed_model=, set Settings.embed_model, or pass the"
            " index"
        ) from error


def embed_queries_with(index_or_store: Any, embed_model: BaseEmbedding | None = None) -> EmbedQueries:
    """Make the function that embeds query texts with the model of an index.

    Queries go through the query side: many models put another instruction before a query than before a text. They are
    embedded in batches if the model has none; embeddings of a model that has a name are kept in the user's cache.
    """
    model = model_of(index_or_store, embed_model)

    def embed_queries(texts: list[str]) -> FloatArray:
        cache = cache_of(model)
        return embed_queries_at_once(texts, model.get_query_embedding, model.get_text_embedding_batch, cache)

    return ModelQueries(model, embed_queries, probe=probe_queries_with(model))
