"""A vector index retriever whose scores are the store's own, and that can serve a nudge without writing it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
from llama_index.core import VectorStoreIndex
from llama_index.core.indices.vector_store.retrievers import VectorIndexRetriever
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores import SimpleVectorStore, VectorStoreQuery, VectorStoreQueryResult
from llama_index.core.vector_stores.types import VectorStoreQueryMode
from llama_index.core.vector_stores.utils import build_metadata_filter_fn
from llama_index.retrievers.nudge.stores import embedding_store

from nudge_rag import Nudge
from nudge_rag.stores import ChromaFilter, EmbeddingStore, OverlayStore

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
        self._vector_store = _Answers(self._vector_store, store)  # type: ignore[assignment]


class _Answers:
    """The query side of a vector store, answered by an `EmbeddingStore`."""

    is_embedding_query = True

    def __init__(self, vector_store: Any, store: EmbeddingStore) -> None:
        self._vector_store = vector_store
        self._store = store

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        if query.query_embedding is None:
            raise ValueError("NudgeRetriever needs a query string or a query embedding")
        vector = np.array([query.query_embedding], dtype=np.float64)
        where = self._where(query, **kwargs)
        found = self._store.search(vector, query.similarity_top_k, where=where)
        ids, scores = found.ids[0], found.scores[0].tolist()
        nodes = self._nodes(ids) if self._vector_store.stores_text else None
        return VectorStoreQueryResult(nodes=nodes, ids=ids, similarities=scores)

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        # A search takes its time; the event loop is not to wait for it.
        return await asyncio.to_thread(self.query, query, **kwargs)

    def _nodes(self, ids: list[str]) -> list[BaseNode]:
        """Nodes in the order of ``ids``: stores answer in their own."""
        if not ids:
            return []
        found = {node.node_id: node for node in self._vector_store.get_nodes(ids)}
        return [found[node_id] for node_id in ids]

    def _where(self, query: VectorStoreQuery, **kwargs: Any) -> Any:
        if isinstance(self._vector_store, SimpleVectorStore):
            if kwargs:
                raise ValueError(f"SimpleVectorStore takes no vector_store_kwargs, got {sorted(kwargs)}")
            return _simple_filter(self._vector_store, query)
        return _chroma_filter(query, **kwargs)


def _simple_filter(store: SimpleVectorStore, query: VectorStoreQuery) -> Callable[[str], bool] | None:
    if query.filters is None and query.node_ids is None and query.doc_ids is None:
        return None
    if query.filters is not None and store.data.embedding_dict and not store.data.metadata_dict:
        raise ValueError("cannot filter a store that was persisted without metadata: build it again with metadata")
    passes = build_metadata_filter_fn(lambda node_id: store.data.metadata_dict[node_id], query.filters)
    nodes = None if query.node_ids is None else set(query.node_ids)
    documents = None if query.doc_ids is None else set(query.doc_ids)

    def where(node_id: str) -> bool:
        return (
            (nodes is None or node_id in nodes)
            and (documents is None or store.data.text_id_to_ref_doc_id.get(node_id) in documents)
            and passes(node_id)
        )

    return where


def _chroma_filter(
    query: VectorStoreQuery,
    where: dict[str, Any] | None = None,
    where_document: dict[str, Any] | None = None,
) -> ChromaFilter:
    from llama_index.vector_stores.chroma.base import _to_chroma_filter

    if query.filters is not None and where is not None:
        raise ValueError("give metadata filters as filters= or as where= in vector_store_kwargs, not both")
    parts = [where or (_to_chroma_filter(query.filters) if query.filters is not None else None)]
    if query.doc_ids is not None:
        # The integration keeps the source document's id in the metadata, and deletes by it.
        parts.append({"document_id": {"$in": list(query.doc_ids)}})
    given = [part for part in parts if part]
    combined = {"$and": given} if len(given) > 1 else next(iter(given), None)
    return ChromaFilter(where=combined, where_document=where_document, ids=query.node_ids)
