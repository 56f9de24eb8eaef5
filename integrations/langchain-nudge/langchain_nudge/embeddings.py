"""Embeddings whose queries pass the map that a nudge brings, for retrievers other than `NudgeRetriever`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from langchain_core.embeddings import Embeddings
from langchain_core.runnables import run_in_executor

from langchain_nudge.stores import embedding_store
from nudge_rag import Nudge
from nudge_rag.common.embedding import EmbedQueries, ModelQueries
from nudge_rag.solvers import QueryAdapter
from nudge_rag.tuning.adapters import LiveAdapter, OnUnreadable, map_query, warn_of_other_model

__all__ = ["NudgeEmbeddings", "probe_queries_with"]


class NudgeEmbeddings(Embeddings):
    """Embed queries and map them as ``tune(reach="queries")`` learned; documents are embedded as they are.

    Args:
        embeddings: the embedding model that the vector store was built with.
        source: a `QueryAdapter`; a nudge that has one; or the vector store, of which the live nudge's map is taken.
        versions: folder of the history of pushes to the vector store; by default the store's own, or the one that the
            store names.
        on_unreadable: if that cannot be read: ``"raise"``, or ``"serve"`` to leave queries as they are.

    Raises:
        TypeError: a source that is none of these.
        nudge_rag.JournalError: the history cannot be read.

    Warns:
        UserWarning: the nudge, or what is live, was made for another embedding model.

    Example:
        >>> import numpy as np
        >>> from langchain_core.embeddings import FakeEmbeddings
        >>> embeddings = NudgeEmbeddings(FakeEmbeddings(size=2), QueryAdapter(np.zeros((2, 2))))
        >>> len(embeddings.embed_query("text"))
        2
    """

    def __init__(
        self,
        embeddings: Embeddings,
        source: Any,
        *,
        versions: str | Path | None = None,
        on_unreadable: OnUnreadable = "raise",
    ) -> None:
        self.embeddings = embeddings
        self._adapter: QueryAdapter | LiveAdapter | None
        if isinstance(source, Nudge):
            self._adapter = source.adapter
            warn_of_other_model(source.fingerprint, probe_queries_with(embeddings), "this nudge")
        elif isinstance(source, QueryAdapter):
            self._adapter = source
        else:
            store = embedding_store(source)
            probe = probe_queries_with(embeddings)
            self._adapter = LiveAdapter(lambda: store, versions, on_unreadable=on_unreadable, embed_queries=probe)
            self._adapter.start()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed documents as the model does."""
        return self.embeddings.embed_documents(texts)

    def embed_query(self, text: str) -> list[float]:
        """Embed a query and map it."""
        return self._map(self.embeddings.embed_query(text))

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed documents as the model does."""
        return await self.embeddings.aembed_documents(texts)

    async def aembed_query(self, text: str) -> list[float]:
        """Embed a query and map it."""
        return await run_in_executor(None, self._map, await self.embeddings.aembed_query(text))

    def _map(self, vector: list[float]) -> list[float]:
        adapter = self._adapter.find() if isinstance(self._adapter, LiveAdapter) else self._adapter
        return map_query(adapter, vector)


def probe_queries_with(model: Embeddings) -> EmbedQueries:
    """Make the function that embeds the few query texts a model is known by, with the model itself."""
    return ModelQueries(model, lambda texts: [model.embed_query(text) for text in texts])
