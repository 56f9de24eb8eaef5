"""Search a store by a query's text, without a framework."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from nudge_rag.stores.access import require_store
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.stores.checks import check_k

__all__ = ["store_retriever"]


def store_retriever(
    store: EmbeddingStore, embed_queries: Callable[[list[str]], ArrayLike], k: int = 10
) -> Callable[[str], list[str]]:
    """Return a function that searches ``store`` for the ``k`` best nodes of a query's text.

    Args:
        store: the vector store, or an overlay of it.
        embed_queries: texts to (m, d) query embeddings.
        k: how many nodes a search returns.

    Raises:
        TypeError: no store.
        ValueError: ``k`` that is no positive integer.

    Example:
        >>> from nudge_rag.stores.memory.mapping import MappingStore
        >>> search = store_retriever(MappingStore({"a": [1.0, 0.0], "b": [0.0, 1.0]}), lambda texts: [[0.2, 0.9]], k=1)
        >>> search("which?")
        ['b']
    """
    require_store(store)
    check_k(k)

    def search(text: str) -> list[str]:
        vectors = np.asarray(embed_queries([text]), dtype=store.capabilities.dtype)
        return list(store.search(vectors, k).ids[0])

    return search
