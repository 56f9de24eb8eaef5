"""Query embeddings by the model that a vector store searches with."""

from __future__ import annotations

from typing import Any

import numpy as np
from langchain_core.embeddings import Embeddings

from langchain_nudge.databases.registry import database_of, embeddings_of
from langchain_nudge.embeddings import NudgeEmbeddings, probe_queries_with
from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.embedding import ModelQueries, model_name_of
from nudge_rag.tuning.queries import EmbedQueries
from nudge_rag.tuning.query_cache import cache_of, embed_queries_at_once

__all__ = ["embed_queries_with", "model_name_of", "model_of", "queries_of_model"]


def model_of(vectorstore: Any, embeddings: Embeddings | None = None) -> Embeddings:
    """Return the given embeddings, or the vector store's own, without the map of a nudge.

    Raises:
        ValueError: no embeddings were given and the vector store has none.
    """
    model: Embeddings | None = embeddings or embeddings_of(vectorstore)
    if model is None:
        raise ValueError(f"{type(vectorstore).__name__} has no embeddings of its own: pass embeddings=")
    return model.embeddings if isinstance(model, NudgeEmbeddings) else model


def embed_queries_with(vectorstore: Any, embeddings: Embeddings | None = None) -> EmbedQueries:
    """Make the function that embeds query texts with the model of a vector store.

    Queries go through the query side: many models put another instruction before a query than before a text. They are
    embedded in batches if the model has none; embeddings of a model that has a name are kept in the user's cache.

    Raises:
        ValueError: no embeddings were given and the vector store has none.
    """
    model, database = model_of(vectorstore, embeddings), database_of(vectorstore)
    queries = queries_of_model(model)
    if database is None:
        return queries

    def as_searched(texts: list[str]) -> FloatArray:
        return database.as_searched(vectorstore, np.asarray(queries(texts)))

    return ModelQueries(model, as_searched, probe=probe_queries_with(model))


def queries_of_model(model: Embeddings) -> EmbedQueries:
    """Make the function that embeds query texts with a model."""

    def embed_queries(texts: list[str]) -> FloatArray:
        return embed_queries_at_once(texts, model.embed_query, model.embed_documents, cache_of(model))

    return ModelQueries(model, embed_queries, probe=probe_queries_with(model))
