"""Query texts to checked embeddings."""

from __future__ import annotations

import logging

import numpy as np

from nudge_rag.common.arrays import FloatArray, as_matrix, row_norms
from nudge_rag.common.embedding import EmbedQueries
from nudge_rag.common.similarity import Similarity

__all__ = ["EmbedQueries", "embed_texts"]

logger = logging.getLogger(__name__)


def embed_texts(
    texts: list[str], embed_queries: EmbedQueries, dimension: int, similarity: Similarity
) -> dict[str, FloatArray]:
    """Embedding of each text, at unit length if that changes no ranking (l2 keeps the length).

    Raises:
        ValueError: embeddings that are not (len(texts), dimension), or hold a zero or non-finite row.
    """
    logger.info("embedding %d queries", len(texts))
    vectors = as_matrix(embed_queries(texts), "query embeddings")
    if vectors.shape != (len(texts), dimension):
        raise ValueError(
            f"query embeddings have shape {vectors.shape}, expected {(len(texts), dimension)}: one row per query, in"
            " the dimension of the store. Is it the model that the store was built with?"
        )
    norms = row_norms(vectors, "query embeddings")
    if similarity != "l2":
        vectors = np.asarray(vectors / norms[:, None], dtype=vectors.dtype)
    return dict(zip(texts, vectors, strict=True))
