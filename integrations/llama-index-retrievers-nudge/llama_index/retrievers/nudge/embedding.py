"""An embedding model whose queries pass the map that a nudge brings, for retrievers other than `NudgeRetriever`."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.retrievers.nudge.stores import embedding_store

from nudge_rag import Nudge
from nudge_rag.common.embedding import EmbedQueries, ModelQueries
from nudge_rag.common.unknown_options import refuse_unknown_options
from nudge_rag.solvers import QueryAdapter
from nudge_rag.tuning.adapters import LiveAdapter, OnUnreadable, OpenedStore, map_query, warn_of_other_model
from nudge_rag.tuning.ingestion import DocumentMap

__all__ = ["NudgeEmbedding", "probe_queries_with"]

# Those that are not the framework's.
OPTIONS = ("versions", "on_unreadable", "map_documents", "persist_path")


class NudgeEmbedding(BaseEmbedding):
    """Embed queries and map them as ``tune(reach="queries")`` learned; texts of nodes stay, or are mapped too.

    Args:
        embed_model: the embedding model that the index was built with.
        source: a `QueryAdapter`; a nudge that has one; or the index or vector store, of which the live nudge's map is
            taken.
        versions: folder of the history of pushes to the store; by default the store's own, or the one that the store
            names.
        on_unreadable: if that cannot be read: ``"raise"``, or ``"serve"`` to leave queries as they are.
        map_documents: for ingestion, map texts of nodes as ``tune(reach="nodes")`` learned, while such a nudge is live
            in the store. Their own vectors are recorded, for `nudge_rag.rollback`. Without it, such nodes stay unmapped
            until `nudge_rag.reapply`.
        persist_path: the file that a FAISS store was loaded from, which it does not say itself, or that of a
            SimpleVectorStore: the history lies beside it.
        **options: as `BaseEmbedding`.

    Raises:
        TypeError: a source that is none of these, or no store although texts are to be mapped or a file is named; an
            option that `BaseEmbedding` does not have.
        ValueError: ``persist_path`` for a store that keeps itself.
        nudge_rag.JournalError: the history cannot be read.

    Warns:
        UserWarning: the nudge, or what is live, was made for another embedding model.

    Example:
        >>> import numpy as np
        >>> from llama_index.core import MockEmbedding
        >>> model = NudgeEmbedding(MockEmbedding(2), QueryAdapter(np.zeros((2, 2))))
        >>> len(model.get_query_embedding("text"))
        2
    """

    _embed_model: BaseEmbedding = PrivateAttr()
    _adapter: QueryAdapter | LiveAdapter | None = PrivateAttr()
    _documents: DocumentMap | None = PrivateAttr(default=None)

    def __init__(
        self,
        embed_model: BaseEmbedding,
        source: Any,
        *,
        versions: str | Path | None = None,
        on_unreadable: OnUnreadable = "raise",
        map_documents: bool = False,
        persist_path: str | Path | None = None,
        **options: Any,
    ) -> None:
        # `BaseEmbedding` would ignore them, such as a misspelt ``map_documents``.
        refuse_unknown_options("NudgeEmbedding", options, [*OPTIONS, *BaseEmbedding.model_fields])
        if map_documents and isinstance(source, Nudge | QueryAdapter):
            raise TypeError(
                f"map_documents=True needs the index or vector store as the source, which says what is live and records"
                f" the nodes' own vectors, got {type(source).__name__}"
            )
        if persist_path is not None and isinstance(source, Nudge | QueryAdapter):
            raise TypeError(f"persist_path needs the index or vector store as the source, got {type(source).__name__}")
        options.setdefault("model_name", embed_model.model_name)
        options.setdefault("embed_batch_size", embed_model.embed_batch_size)
        super().__init__(**options)
        self._embed_model = embed_model
        if isinstance(source, Nudge):
            self._adapter = source.adapter
            warn_of_other_model(source.fingerprint, probe_queries_with(embed_model), "this nudge")
        elif isinstance(source, QueryAdapter):
            self._adapter = source
        else:
            store = embedding_store(source, persist_path=persist_path)
            probe = probe_queries_with(embed_model)
            self._adapter = LiveAdapter(OpenedStore(store), versions, on_unreadable=on_unreadable, embed_queries=probe)
            self._adapter.start()
            self._documents = DocumentMap(OpenedStore(store), versions) if map_documents else None

    @classmethod
    def class_name(cls) -> str:
        """Name of the class, as LlamaIndex serializes it."""
        return "NudgeEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._map(self._embed_model._get_query_embedding(query))

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._map, await self._embed_model._aget_query_embedding(query))

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._map_documents([self._embed_model._get_text_embedding(text)])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._map_later([await self._embed_model._aget_text_embedding(text)]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._map_documents(self._embed_model._get_text_embeddings(texts))

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await self._map_later(await self._embed_model._aget_text_embeddings(texts))

    def _map_documents(self, vectors: list[list[float]]) -> list[list[float]]:
        return vectors if self._documents is None else self._documents(vectors)

    async def _map_later(self, vectors: list[list[float]]) -> list[list[float]]:
        return await asyncio.to_thread(self._map_documents, vectors)

    def _map(self, vector: list[float]) -> list[float]:
        adapter = self._adapter.find() if isinstance(self._adapter, LiveAdapter) else self._adapter
        return map_query(adapter, vector)


def probe_queries_with(model: BaseEmbedding) -> EmbedQueries:
    """Make the function that embeds the few query texts a model is known by, with the model itself.

    No events are sent and no cache is asked: nobody has asked these queries.
    """
    return ModelQueries(model, partial(_embed_each, model))


def _embed_each(model: BaseEmbedding, texts: list[str]) -> list[list[float]]:
    return [model._get_query_embedding(text) for text in texts]
