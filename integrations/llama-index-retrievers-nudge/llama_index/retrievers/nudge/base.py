"""A vector index retriever that answers as the framework's own, and that can serve a nudge without writing it."""

from __future__ import annotations

import inspect
from typing import Any, get_args

from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.constants import DEFAULT_SIMILARITY_TOP_K
from llama_index.core.indices.vector_store.retrievers import VectorIndexRetriever
from llama_index.core.vector_stores.types import BasePydanticVectorStore
from llama_index.retrievers.nudge.answers import Answers, MovedNodes, Scores
from llama_index.retrievers.nudge.databases.registry import database_of
from llama_index.retrievers.nudge.embedding import NudgeEmbedding

from nudge_rag import Nudge

__all__ = ["NudgeRetriever"]

OWN_OPTIONS = frozenset(inspect.signature(VectorIndexRetriever.__init__).parameters) - {"self", "index", "kwargs"}
OPTIONS = OWN_OPTIONS | {"vector_store_kwargs"}


class NudgeRetriever(VectorIndexRetriever):
    """Retrieve the nearest nodes of a nudged index.

    Takes the place of ``index.as_retriever(...)``: the same ids, order, scores, filters, query modes, options, events
    and connections, sync and async. The framework's own search answers; a pushed nudge is in the store that it
    searches. ``overlay`` serves a nudge without writing to the store. If the nudge that is live, or the overlay, maps
    queries (``tune(reach="queries")``), they are mapped first.

    Args:
        index: the index, tuned and pushed, or as it was; or a vector store that keeps texts.
        similarity_top_k: how many nodes to retrieve.
        overlay: a nudge, not pushed, to serve from memory over the store's own vectors.
        scores: ``"framework"`` gives the scores of the framework's own retriever, which postprocessors are tuned to;
            ``"store"`` gives the store's similarity (cosine, inner product, or minus the squared distance).
        embed_model: what queries are embedded with; by default the index's own model.
        **options: as `VectorIndexRetriever`: ``filters``, ``node_ids``, ``doc_ids``, ``vector_store_query_mode``,
            ``vector_store_kwargs``, ``callback_manager``, ``object_map`` and so on. What ``index.as_retriever()`` hands
            over is handed over here.

    Raises:
        TypeError: an index over a store that is not supported; an option that no retriever takes.
        ValueError: ``vector_store_kwargs`` that the store's search does not take; a query mode or an option that an
            overlay cannot honour.

    Example:
        >>> from llama_index.core import MockEmbedding, VectorStoreIndex
        >>> from llama_index.core.schema import TextNode
        >>> index = VectorStoreIndex([TextNode(text="a", id_="n1")], embed_model=MockEmbedding(4))
        >>> [found.node_id for found in NudgeRetriever(index, similarity_top_k=1).retrieve("query")]
        ['n1']
    """

    def __init__(
        self,
        index: VectorStoreIndex | BasePydanticVectorStore,
        similarity_top_k: int = DEFAULT_SIMILARITY_TOP_K,
        *,
        overlay: Nudge | None = None,
        scores: Scores = "framework",
        embed_model: BaseEmbedding | None = None,
        **options: Any,
    ) -> None:
        if scores not in get_args(Scores):
            raise ValueError(f"scores must be 'framework' or 'store', got {scores!r}")
        unknown = sorted(set(options) - OPTIONS)
        if unknown:
            raise TypeError(
                f"NudgeRetriever takes no option {', '.join(unknown)}; it takes {', '.join(sorted(OPTIONS))}"
            )
        searched = _index_of(index, embed_model)
        implied = options.get("node_ids") is None
        if implied:
            options["node_ids"] = list(searched.index_struct.nodes_dict.values())
        options.setdefault("callback_manager", searched._callback_manager)
        options.setdefault("object_map", searched._object_map)
        super().__init__(searched, similarity_top_k, embed_model=embed_model, **options)
        # The rest of VectorIndexRetriever asks this object where it would have asked the framework's store.
        self._vector_store = Answers(  # type: ignore[assignment]
            searched,
            self._kwargs,
            self._vector_store_query_mode,
            moved=None if overlay is None else MovedNodes(list(overlay.ids), overlay.vectors, overlay.adapter),
            scores=scores,
            implied_node_ids=implied,
            maps_queries=not isinstance(self._embed_model, NudgeEmbedding),
        )


def _index_of(index: Any, embed_model: BaseEmbedding | None) -> VectorStoreIndex:
    """Wrap a bare vector store into an index of its own."""
    if isinstance(index, VectorStoreIndex):
        return index
    database = database_of(index)
    name = type(index).__name__
    if database is None:
        raise TypeError(f"NudgeRetriever takes a VectorStoreIndex or a supported vector store, got {name}")
    if not database.stores_text:
        raise TypeError(f"{name} keeps no texts: pass the VectorStoreIndex that it belongs to")
    return VectorStoreIndex.from_vector_store(index, embed_model=embed_model)
