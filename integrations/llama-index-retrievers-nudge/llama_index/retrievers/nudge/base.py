"""A vector index retriever whose scores are the store's own, and that can serve a nudge without writing it."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from llama_index.core import VectorStoreIndex
from llama_index.core.indices.vector_store.retrievers import VectorIndexRetriever
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores import VectorStoreQuery, VectorStoreQueryResult
from llama_index.core.vector_stores.types import VectorStoreQueryMode
from llama_index.retrievers.nudge.databases.registry import database_of
from llama_index.retrievers.nudge.stores import embedding_store

from nudge_rag import Nudge
from nudge_rag.stores import EmbeddingStore, OverlayStore

__all__ = ["NudgeRetriever"]


class NudgeRetriever(VectorIndexRetriever):
    """Retrieve the nearest nodes of a nudged index.

    Behaves as the framework's `VectorIndexRetriever` (sync and async, ``similarity_top_k``, ``filters``, ``node_ids``,
    ``doc_ids``, callbacks, instrumentation), with two differences: node scores are the store's own similarity (cosine,
    inner product, or minus the squared distance), and ``overlay`` serves a nudge without writing to the store.

    Args:
        index: the index, tuned and pushed, or as it was.
        overlay: a nudge, not pushed, to serve from memory over the store's own vectors.
        **kwargs: as `VectorIndexRetriever`; the query mode must be the default one.

    Raises:
        TypeError: an index over a store that is not supported.
        ValueError: another query mode than the default.

    Example:
        >>> from llama_index.core import MockEmbedding, VectorStoreIndex
        >>> from llama_index.core.schema import TextNode
        >>> index = VectorStoreIndex([TextNode(text="a", id_="n1")], embed_model=MockEmbedding(4))
        >>> [found.node_id for found in NudgeRetriever(index, similarity_top_k=1).retrieve("query")]
        ['n1']
    """

    def __init__(self, index: VectorStoreIndex, *, overlay: Nudge | None = None, **kwargs: Any) -> None:
        super().__init__(index, **kwargs)
        if self._vector_store_query_mode != VectorStoreQueryMode.DEFAULT:
            raise ValueError(
                f"NudgeRetriever answers the default query mode, got {self._vector_store_query_mode.value!r}:"
                " use index.as_retriever(vector_store_query_mode=...) on the pushed store for other modes"
            )
        store: EmbeddingStore = embedding_store(index)
        if overlay is not None:
            store = OverlayStore(store, overlay.ids, overlay.vectors)
        # The rest of VectorIndexRetriever asks this object where it would have asked the framework's store.
        self._vector_store = _Answers(index, self._vector_store, store)  # type: ignore[assignment]


class _Answers:
    """The query side of a vector store, answered by an `EmbeddingStore`."""

    is_embedding_query = True

    def __init__(self, index: VectorStoreIndex, vector_store: Any, store: EmbeddingStore) -> None:
        self._index = index
        self._vector_store = vector_store
        self._store = store
        database = database_of(vector_store)
        if database is None:
            raise TypeError(f"{type(vector_store).__name__} is not supported: use an index over a supported store")
        self._database = database

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        if query.query_embedding is None:
            raise ValueError("NudgeRetriever needs a query string or a query embedding")
        vector = np.array([query.query_embedding], dtype=np.float64)
        filtered = self._index.docstore if self._database.keeps_no_metadata else self._vector_store
        where = self._database.where(filtered, query, **kwargs)
        found = self._store.search(vector, query.similarity_top_k, where=where)
        ids, scores = found.ids[0], found.scores[0].tolist()
        return VectorStoreQueryResult(nodes=self._nodes(ids), ids=self._own_ids(ids), similarities=scores)

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        # A search takes its time; the event loop is not to wait for it.
        return await asyncio.to_thread(self.query, query, **kwargs)

    def _own_ids(self, ids: list[str]) -> list[str]:
        """Ids as this vector store would give them: a FaissVectorStore gives positions, which the index looks up."""
        if type(self._vector_store).__name__ != "FaissVectorStore":
            return ids
        position = {node_id: own for own, node_id in self._index.index_struct.nodes_dict.items()}
        return [position[node_id] for node_id in ids]

    def _nodes(self, ids: list[str]) -> list[BaseNode] | None:
        """Nodes in the order of ``ids``: stores answer in their own. None where text is kept in the docstore."""
        fetch = self._database.nodes
        if fetch is None:
            return None
        found = {node.node_id: node for node in fetch(self._vector_store, ids)} if ids else {}
        return [found[node_id] for node_id in ids]
