"""The query side of a vector store: the framework's own search, and ours if that search cannot answer."""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.indices.query.embedding_utils import get_top_k_mmr_embeddings
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores import VectorStoreQuery, VectorStoreQueryResult
from llama_index.core.vector_stores.types import BasePydanticVectorStore, VectorStoreQueryMode
from llama_index.retrievers.nudge.databases.base import Options, Request
from llama_index.retrievers.nudge.databases.registry import database_of
from llama_index.retrievers.nudge.embedding import probe_queries_with
from llama_index.retrievers.nudge.filtered_store import FilteredStore
from llama_index.retrievers.nudge.history import History
from llama_index.retrievers.nudge.stores import embedding_store

from nudge_rag import Nudge
from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.event_loops import remember_loop
from nudge_rag.errors import NudgeError
from nudge_rag.stores import EmbeddingStore, OverlayStore
from nudge_rag.tuning.adapters import LiveAdapter, map_query, warn_of_other_model
from nudge_rag.tuning.overlays import lay_over

__all__ = ["Answers", "RequestOptions", "Scores"]

logger = logging.getLogger(__name__)

Scores: TypeAlias = Literal["framework", "store"]
UNPICKLED = ("_opened", "_laid_over", "_lock", "_database", "_live")
PREFETCH_FACTOR = 4.0  # of the integrations that know MMR


@dataclass(frozen=True)
class RequestOptions:
    """What all queries of a retriever have in common.

    Attributes:
        options: its ``vector_store_kwargs``.
        mode: its query mode.
        implied_node_ids: whether the node ids of queries are those of the whole index, which nobody chose.
    """

    options: Options
    mode: VectorStoreQueryMode
    implied_node_ids: bool


class Answers:
    """A retriever asks this object instead of the framework's vector store.

    The framework's own search answers wherever it can: on the application's own connection, with its own scores. Ours
    answers under an overlay, if the framework's search ignores a part of the query, and if it fails on the filters.

    Args:
        index: the index that is searched.
        asked: what every query of the retriever has in common.
        overlay: a nudge that is laid over the store, or None.
        scores: whose scores are given.
        history: of what is live.
        embed_model: the model that embeds queries, which is compared once with that of the nudge.

    Raises:
        TypeError: the store of the index is not supported.
        ValueError: options that its search does not take, or that an overlay cannot honour; a file for a store that
            keeps itself.
        JournalError: the history cannot be read.
    """

    def __init__(
        self,
        index: VectorStoreIndex,
        asked: RequestOptions,
        *,
        overlay: Nudge | None,
        scores: Scores,
        history: History,
        embed_model: BaseEmbedding | None = None,
    ) -> None:
        options, mode = asked.options, asked.mode
        self._index = index
        self._vector_store: Any = index.vector_store
        database = database_of(self._vector_store)
        name = type(self._vector_store).__name__
        if database is None:
            raise TypeError(f"{name} is not supported: use an index over a supported store")
        self._database = database
        unknown = database.unknown_options(self._vector_store, options)
        if unknown:
            known = ", ".join(sorted(database.options)) or "none"
            raise ValueError(f"{name} takes no vector_store_kwargs {', '.join(unknown)}; it takes {known}")
        problem = database.overlay_problem(self._vector_store, mode, options)
        if problem is not None and (overlay is not None or scores == "store"):
            how = "an overlay" if overlay is not None else "scores='store'"
            raise ValueError(f"{how} cannot honour {problem} of {name}: push the nudge, or leave that out")
        self._overlay = overlay
        self._scores = scores
        self._implied_node_ids = asked.implied_node_ids
        self._history = history
        self._embed_model = embed_model
        self._compared = False
        self._begin()
        if history.persist_path is not None:
            self._open_adapter()
        if overlay is not None:
            self._start_overlay(overlay)
        elif history.maps_queries:
            self._live.start()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the adapter and the lock, so that a retriever pickles wherever its index does."""
        return {name: value for name, value in self.__dict__.items() if name not in UNPICKLED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Look the database up again; the adapter is opened at its first use."""
        self.__dict__.update(state)
        database = database_of(self._vector_store)
        if database is None:
            raise TypeError(f"{type(self._vector_store).__name__} is not supported")
        self._database = database
        self._begin()

    def _begin(self) -> None:
        history = self._history
        self._opened: EmbeddingStore | None = None
        self._laid_over: OverlayStore | None = None
        self._lock = threading.Lock()
        self._live = LiveAdapter(
            self._open_adapter,
            history.versions,
            on_unreadable=history.on_unreadable,
            embed_queries=None if self._embed_model is None else probe_queries_with(self._embed_model),
        )

    @property
    def is_embedding_query(self) -> bool:
        """Whether queries need an embedding: as the vector store says."""
        return bool(self._vector_store.is_embedding_query)

    def query(self, query: VectorStoreQuery, **options: Any) -> VectorStoreQueryResult:
        """Answer as the framework's vector store does, under the overlay if there is one."""
        asked = self._mapped(self._as_meant(query))
        if not self._framework_answers(asked, options):
            return self._search(asked, options)
        try:
            result: VectorStoreQueryResult = self._vector_store.query(asked, **options)
        except Exception as error:
            return self._search_after(error, asked, options)
        return self._database.complete(result)

    async def aquery(self, query: VectorStoreQuery, **options: Any) -> VectorStoreQueryResult:
        """Answer as `query`; whatever is synchronous runs in a thread, so that the event loop does not wait."""
        remember_loop()
        if type(self._vector_store).aquery is BasePydanticVectorStore.aquery or not _has_async_client(
            self._vector_store
        ):
            return await asyncio.to_thread(self.query, query, **options)
        asked = await asyncio.to_thread(self._mapped, self._as_meant(query))
        if not self._framework_answers(asked, options):
            return await asyncio.to_thread(self._search, asked, options)
        try:
            result: VectorStoreQueryResult = await self._vector_store.aquery(asked, **options)
        except Exception as error:
            return await asyncio.to_thread(self._search_after, error, asked, options)
        return self._database.complete(result)

    def _as_meant(self, query: VectorStoreQuery) -> VectorStoreQuery:
        """Leave out the node ids of the whole index if the framework's own search ignores node ids."""
        if self._implied_node_ids and "node_ids" not in self._database.own_restrictions:
            return replace(query, node_ids=None)
        return query

    def _mapped(self, query: VectorStoreQuery) -> VectorStoreQuery:
        """Map the query as the overlay, or the nudge that is live, demands."""
        if not self._history.maps_queries or query.query_embedding is None:
            return query
        if self._overlay is not None and not self._compared and self._embed_model is not None:
            self._compared = True
            warn_of_other_model(self._overlay.fingerprint, probe_queries_with(self._embed_model), "the overlay")
        adapter = self._live.find() if self._overlay is None else self._overlay.adapter
        return query if adapter is None else replace(query, query_embedding=map_query(adapter, query.query_embedding))

    def _framework_answers(self, query: VectorStoreQuery, options: Options) -> bool:
        return (
            self._overlay is None
            and self._scores == "framework"
            and self._database.honours(self._vector_store, query, options)
        )

    def _search_after(self, error: Exception, query: VectorStoreQuery, options: Options) -> VectorStoreQueryResult:
        """Answer a query that the framework's search failed on, if its filters or its MMR may be the cause."""
        ours = query.filters is not None or query.mode == VectorStoreQueryMode.MMR or isinstance(error, Warning)
        if not ours or self._database.overlay_problem(self._vector_store, query.mode, options) is not None:
            raise error
        try:
            return self._search(query, options, trusting=False)
        except Exception:
            raise error from None

    def _search(self, query: VectorStoreQuery, options: Options, *, trusting: bool = True) -> VectorStoreQueryResult:
        name = type(self._vector_store).__name__
        if query.query_embedding is None:
            raise ValueError("NudgeRetriever needs a query string or a query embedding")
        problem = self._database.overlay_problem(self._vector_store, query.mode, options)
        if problem is not None:
            raise ValueError(f"{name} ignores node_ids or doc_ids, and NudgeRetriever cannot add them to {problem}")
        filtered = self._index.docstore if self._database.keeps_no_metadata else self._vector_store
        request = Request(self._vector_store, filtered, self._open_adapter, query, options, trusting)
        store: EmbeddingStore = FilteredStore(self._database, request)
        if self._overlay is not None:
            store = self._lay_over(self._overlay).over(store)
        search = self._search_diverse if query.mode == VectorStoreQueryMode.MMR else self._search_nearest
        try:
            ids, scores = search(store, query, options)
        except Exception as error:
            if not trusting or query.filters is None:
                raise
            return self._search_again(error, query, options)
        return VectorStoreQueryResult(nodes=self._nodes(ids), ids=self._own_ids(ids), similarities=scores)

    def _search_again(self, error: Exception, query: VectorStoreQuery, options: Options) -> VectorStoreQueryResult:
        try:
            return self._search(query, options, trusting=False)
        except Exception:
            raise error from None

    def _search_nearest(
        self, store: EmbeddingStore, query: VectorStoreQuery, options: Options
    ) -> tuple[list[str], list[float]]:
        result = store.search(self._vectors_of(query), query.similarity_top_k)
        return result.ids[0], self._as_given(result.scores[0])

    def _search_diverse(
        self, store: EmbeddingStore, query: VectorStoreQuery, options: Options
    ) -> tuple[list[str], list[float]]:
        """Choose by maximal marginal relevance as the integrations do, among as many nodes as they choose from."""
        k = query.similarity_top_k
        depth = int(options.get("mmr_prefetch_k") or k * options.get("mmr_prefetch_factor", PREFETCH_FACTOR))
        depth = store.count() if self._database.mmr_prefetch == "all" else max(depth, k)
        result = store.search(self._vectors_of(query), max(depth, 1))
        if self._database.mmr_needs_k and len(result.ids[0]) < k:
            return result.ids[0], self._as_given(result.scores[0])
        score_of = dict(zip(result.ids[0], self._as_given(result.scores[0]), strict=True))
        threshold = query.mmr_threshold if query.mmr_threshold is not None else options.get("mmr_threshold")
        scores, ids = get_top_k_mmr_embeddings(
            list(query.query_embedding or ()),
            store.read(result.ids[0]).tolist(),
            similarity_top_k=k,
            embedding_ids=list(result.ids[0]),
            mmr_threshold=threshold,
        )
        chosen = [str(node_id) for node_id in ids]
        return chosen, [score_of[node_id] for node_id in chosen] if self._database.mmr_keeps_scores else scores

    def _vectors_of(self, query: VectorStoreQuery) -> FloatArray:
        return self._database.as_searched(self._vector_store, np.array([query.query_embedding], dtype=np.float64))

    def _as_given(self, scores: FloatArray) -> list[float]:
        if self._scores == "framework":
            scores = self._database.framework_scores(scores, self._open_adapter().capabilities.similarity)
        given: list[float] = scores.tolist()
        return given

    def _open_adapter(self) -> EmbeddingStore:
        with self._lock:
            if self._opened is None:
                self._opened = embedding_store(self._index, persist_path=self._history.persist_path)
            return self._opened

    def _lay_over(self, overlay: Nudge) -> OverlayStore:
        """The store as a push of the overlay would make it."""
        store, history = self._open_adapter(), self._history
        with self._lock:
            if self._laid_over is None:
                self._laid_over = lay_over(overlay, store, history.versions, history.on_unreadable)
            return self._laid_over

    def _start_overlay(self, overlay: Nudge) -> None:
        """Lay the overlay over the store. One that cannot be opened yet, such as in an event loop, is opened later."""
        try:
            self._lay_over(overlay)
        except (NudgeError, ValueError):
            raise
        except Exception as error:
            logger.info("the overlay is laid over the store at the first query: %s", error)

    def _own_ids(self, ids: list[str]) -> list[str]:
        """Give ids as this vector store would: a FaissVectorStore gives positions, which the index looks up."""
        if type(self._vector_store).__name__ != "FaissVectorStore":
            return ids
        position_of = {node_id: position for position, node_id in self._index.index_struct.nodes_dict.items()}
        return [position_of[node_id] for node_id in ids]

    def _nodes(self, ids: list[str]) -> list[BaseNode] | None:
        """Fetch nodes in the order of ``ids``: stores answer in their own. None if text is kept in the docstore."""
        if not self._database.stores_text:
            return None
        node_of = self._database.nodes_by_id(self._vector_store, ids) if ids else {}
        return [node_of[node_id] for node_id in ids]


def _has_async_client(vector_store: Any) -> bool:
    """Tell whether the integration can search asynchronously; some were made without a client for that."""
    for name in ("_aclient", "_async_milvusclient"):
        if hasattr(vector_store, name) and getattr(vector_store, name) is None:
            return False
    return True
