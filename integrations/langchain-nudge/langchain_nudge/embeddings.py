"""Embeddings whose queries pass the map that a nudge brings, for retrievers other than `NudgeRetriever`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from langchain_core.embeddings import Embeddings
from langchain_core.runnables import run_in_executor

from langchain_nudge.stores import embedding_store
from nudge_rag import Nudge
from nudge_rag.common.embedding import EmbedQueries, ModelQueries
from nudge_rag.solvers import QueryAdapter
from nudge_rag.tuning.adapters import LiveAdapter, OnUnreadable, OpenedStore, map_query, warn_of_other_model
from nudge_rag.tuning.ingestion import DocumentMap

__all__ = ["NudgeEmbeddings", "probe_queries_with"]


class NudgeEmbeddings(Embeddings):
    """Embed queries and map them as ``tune(reach="queries")`` learned; documents stay as they are, or are mapped too.

    Args:
        embeddings: the embedding model that the vector store was built with.
        source: a `QueryAdapter`; a nudge that has one; or the vector store, of which the live nudge's map is taken.
        versions: folder of the history of pushes to the vector store; by default the store's own, or the one that the
            store names.
        on_unreadable: if that cannot be read: ``"raise"``, or ``"serve"`` to leave queries as they are.
        map_documents: for ingestion, map documents as ``tune(reach="nodes")`` learned, while such a nudge is live in
            the vector store. Their own vectors are recorded, for `nudge_rag.rollback`. Without it, such documents stay
            unmapped until `nudge_rag.reapply`.
        persist_path: the ``index.faiss`` that a FAISS store was loaded from, which it does not say itself, or the file
            of an InMemoryVectorStore: the history lies beside it.

    Raises:
        TypeError: a source that is none of these, or no vector store although documents are to be mapped or a file is
            named.
        ValueError: ``persist_path`` for a store that keeps itself.
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
        map_documents: bool = False,
        persist_path: str | Path | None = None,
    ) -> None:
        self.embeddings = embeddings
        self._documents: DocumentMap | None = None
        if map_documents and isinstance(source, Nudge | QueryAdapter):
            raise TypeError(
                f"map_documents=True needs the vector store as the source, which says what is live and records the"
                f" documents' own vectors, got {type(source).__name__}"
            )
        if persist_path is not None and isinstance(source, Nudge | QueryAdapter):
            raise TypeError(f"persist_path needs the vector store as the source, got {type(source).__name__}")
        self._adapter: QueryAdapter | LiveAdapter | None
        if isinstance(source, Nudge):
            self._adapter = source.adapter
            warn_of_other_model(source.fingerprint, probe_queries_with(embeddings), "this nudge")
        elif isinstance(source, QueryAdapter):
            self._adapter = source
        else:
            store = embedding_store(source, persist_path=persist_path)
            probe = probe_queries_with(embeddings)
            self._adapter = LiveAdapter(OpenedStore(store), versions, on_unreadable=on_unreadable, embed_queries=probe)
            self._adapter.start()
            self._documents = DocumentMap(OpenedStore(store), versions) if map_documents else None

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed documents as the model does, and map them if that was asked for and a map of all nodes is live."""
        return self._map_documents(self.embeddings.embed_documents(texts))

    def embed_query(self, text: str) -> list[float]:
        """Embed a query and map it."""
        return self._map(self.embeddings.embed_query(text))

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """As `embed_documents`."""
        return await run_in_executor(None, self._map_documents, await self.embeddings.aembed_documents(texts))

    async def aembed_query(self, text: str) -> list[float]:
        """Embed a query and map it."""
        return await run_in_executor(None, self._map, await self.embeddings.aembed_query(text))

    def _map_documents(self, vectors: list[list[float]]) -> list[list[float]]:
        return vectors if self._documents is None else self._documents(vectors)

    def _map(self, vector: list[float]) -> list[float]:
        adapter = self._adapter.find() if isinstance(self._adapter, LiveAdapter) else self._adapter
        return map_query(adapter, vector)


def probe_queries_with(model: Embeddings) -> EmbedQueries:
    """Make the function that embeds the few query texts a model is known by, with the model itself."""
    return ModelQueries(model, partial(_embed_each, model))


def _embed_each(model: Embeddings, texts: list[str]) -> list[list[float]]:
    return [model.embed_query(text) for text in texts]
