"""A retriever over a nudged vector store, that can serve a nudge without writing it."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import run_in_executor
from langchain_core.vectorstores import VectorStore
from pydantic import ConfigDict, PositiveInt

from langchain_nudge.databases.base import Database
from langchain_nudge.databases.registry import database_of, embeddings_of
from langchain_nudge.stores import embedding_store
from nudge_rag import Nudge
from nudge_rag.stores import EmbeddingStore, OverlayStore

__all__ = ["NudgeRetriever"]


class NudgeRetriever(BaseRetriever):
    """Retrieve the nearest documents of a nudged vector store.

    Args:
        vectorstore: the vector store, tuned and pushed, or as it was.
        k: how many documents; also per call, ``retriever.invoke("...", k=10)``.
        filter: in the vector store's own form (a function of the document for InMemoryVectorStore, a dictionary for
            Chroma and PostgreSQL, a ``Filter`` for Qdrant, an SQL condition for LanceDB); also per call.
        overlay: a nudge, not pushed, to serve from memory over the store's own vectors; nothing is written.
        query_embeddings: what queries are embedded with; default the vector store's own.
        score_key: where given, each document's metadata hold its score (the store's own similarity) under this key.

    Example:
        >>> from langchain_core.embeddings import DeterministicFakeEmbedding
        >>> from langchain_core.vectorstores import InMemoryVectorStore
        >>> store = InMemoryVectorStore.from_texts(["a", "b"], DeterministicFakeEmbedding(size=8))
        >>> [found.page_content for found in NudgeRetriever(vectorstore=store, k=1).invoke("b")]
        ['b']
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    vectorstore: VectorStore
    k: PositiveInt = 4
    filter: Any = None
    overlay: Nudge | None = None
    query_embeddings: Embeddings | None = None
    score_key: str | None = None

    def model_post_init(self, context: Any, /) -> None:
        """An unsupported store and missing embeddings are reported when the retriever is made, not when it is used."""
        super().model_post_init(context)
        _ = self._store, self._database, self._embeddings

    @cached_property
    def _store(self) -> EmbeddingStore:
        store = embedding_store(self.vectorstore)
        return store if self.overlay is None else OverlayStore(store, self.overlay.ids, self.overlay.vectors)

    @cached_property
    def _embeddings(self) -> Embeddings:
        embeddings: Embeddings | None = self.query_embeddings or embeddings_of(self.vectorstore)
        if embeddings is None:
            raise ValueError(f"{type(self.vectorstore).__name__} has no embeddings of its own: pass query_embeddings=")
        return embeddings

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        filter: Any = None,
    ) -> list[Document]:
        return self._nearest(self._embeddings.embed_query(query), k, filter)

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        filter: Any = None,
    ) -> list[Document]:
        vector = await self._embeddings.aembed_query(query)
        return await run_in_executor(None, self._nearest, vector, k, filter)

    def _nearest(self, vector: list[float], k: int | None, where: Any) -> list[Document]:
        where = self._database.where(self.vectorstore, self.filter if where is None else where)
        found = self._store.search(np.array([vector], dtype=np.float64), self.k if k is None else k, where=where)
        documents = self._documents(found.ids[0])
        return [
            self._scored(documents[node_id], float(score))
            for node_id, score in zip(found.ids[0], found.scores[0], strict=True)
        ]

    @cached_property
    def _database(self) -> Database:
        database = database_of(self.vectorstore)
        if database is None:
            raise TypeError(f"{type(self.vectorstore).__name__} is not supported: use a supported vector store")
        return database

    def _documents(self, ids: list[str]) -> dict[str | None, Document]:
        if not ids:
            return {}
        return {document.id: document for document in self._database.documents(self.vectorstore, ids)}

    def _scored(self, document: Document, score: float) -> Document:
        if self.score_key is None:
            return document
        return document.model_copy(update={"metadata": {**document.metadata, self.score_key: score}})
