"""A vector index retriever that answers as the framework's own, and that can serve a nudge without writing it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import Any, get_args

from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.constants import DEFAULT_SIMILARITY_TOP_K
from llama_index.core.indices.vector_store.retrievers import VectorIndexRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import BasePydanticVectorStore, MetadataFilters
from llama_index.retrievers.nudge.answers import Answers, RequestOptions, Scores
from llama_index.retrievers.nudge.databases.registry import database_of
from llama_index.retrievers.nudge.embedding import NudgeEmbedding
from llama_index.retrievers.nudge.history import History
from llama_index.retrievers.nudge.queries import model_of
from llama_index_instrumentation.dispatcher import active_instrument_tags

from nudge_rag import Nudge
from nudge_rag.feedback.interleaving import is_interleaved, serve_interleaved
from nudge_rag.tuning.adapters import OnUnreadable

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
        embed_model: the model that embeds queries; by default the index's own model. Under an overlay, which has its
            own map, that of `NudgeEmbedding` is left out.
        interleave: a nudge, not pushed, to compare with the live version: answers are a team-draft interleaving of both
            rankings, and `nudge_rag.feedback.Recorder.compare` tells which one users prefer.
        interleave_share: share of the users that see both, by a hash of the instrumentation tag ``nudge.user_id``.
        versions: folder of the history of pushes; by default the store's own, or the one that the store names.
        persist_path: the file that a FAISS store was loaded from, which it does not say itself, or that of a
            SimpleVectorStore: the history lies beside it.
        on_unreadable: if the history cannot be read, whether a nudge that is live maps queries is not known:
            ``"raise"`` refuses to start, ``"serve"`` serves queries as they are, with a warning.
        **options: as `VectorIndexRetriever`: ``filters``, ``node_ids``, ``doc_ids``, ``vector_store_query_mode``,
            ``vector_store_kwargs``, ``callback_manager``, ``object_map`` and so on. What ``index.as_retriever()`` hands
            over is handed over here.

    Raises:
        TypeError: an index over a store that is not supported; an option that no retriever takes, or of another type.
        ValueError: ``vector_store_kwargs`` that the store's search does not take; a query mode or an option that an
            overlay cannot honour; ``persist_path`` for a store that keeps itself.
        nudge_rag.JournalError: the history cannot be read.

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
        interleave: Nudge | None = None,
        interleave_share: float = 1.0,
        versions: str | Path | None = None,
        persist_path: str | Path | None = None,
        on_unreadable: OnUnreadable = "raise",
        **options: Any,
    ) -> None:
        similarity_top_k = _checked_top_k(similarity_top_k)
        _check_types(overlay=(overlay, Nudge), interleave=(interleave, Nudge), embed_model=(embed_model, BaseEmbedding))
        if not 0 <= interleave_share <= 1:
            raise ValueError(f"interleave_share must be between 0 and 1, got {interleave_share!r}")
        if scores not in get_args(Scores):
            raise ValueError(f"scores must be 'framework' or 'store', got {scores!r}")
        _check_options(options)
        self._interleave_share = interleave_share
        self._rival: NudgeRetriever | None = None
        if interleave is not None:
            self._rival = NudgeRetriever(
                index,
                similarity_top_k,
                overlay=interleave,
                scores=scores,
                embed_model=embed_model,
                versions=versions,
                persist_path=persist_path,
                on_unreadable=on_unreadable,
                **options,
            )
        searched = _index_of(index, embed_model)
        if overlay is not None:
            # It has its own map, or none: that of what is live is not for it.
            embed_model = model_of(searched, embed_model)
        implied = options.get("node_ids") is None
        if implied:
            options["node_ids"] = list(searched.index_struct.nodes_dict.values())
        options.setdefault("callback_manager", searched._callback_manager)
        options.setdefault("object_map", searched._object_map)
        super().__init__(searched, similarity_top_k, embed_model=embed_model, **options)
        # The rest of VectorIndexRetriever asks this object instead of the framework's store.
        self._vector_store = Answers(  # type: ignore[assignment]
            searched,
            RequestOptions(self._kwargs, self._vector_store_query_mode, implied),
            overlay=overlay,
            scores=scores,
            history=History(
                versions, on_unreadable, not isinstance(self._embed_model, NudgeEmbedding), persist_path=persist_path
            ),
            embed_model=self._embed_model,
        )

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        found = super()._retrieve(query_bundle)
        if self._rival is None or not is_interleaved(_user(), self._interleave_share):
            return found
        return serve_interleaved(query_bundle.query_str, found, self._rival._retrieve(query_bundle), _id_of)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        found = await super()._aretrieve(query_bundle)
        if self._rival is None or not is_interleaved(_user(), self._interleave_share):
            return found
        return serve_interleaved(query_bundle.query_str, found, await self._rival._aretrieve(query_bundle), _id_of)


def _checked_top_k(given: Any) -> int:
    """Whatever numpy counted becomes Python's own integer, which databases take."""
    if isinstance(given, bool) or not isinstance(given, Integral):
        raise TypeError(f"similarity_top_k must be an integer, got {given!r}")
    return int(given)


def _check_options(options: Mapping[str, Any]) -> None:
    unknown = sorted(set(options) - OPTIONS)
    if unknown:
        raise TypeError(f"NudgeRetriever takes no option {', '.join(unknown)}; it takes {', '.join(sorted(OPTIONS))}")
    _check_types(
        filters=(options.get("filters"), MetadataFilters),
        node_ids=(options.get("node_ids"), list | tuple),
        doc_ids=(options.get("doc_ids"), list | tuple),
    )


def _check_types(**given: tuple[Any, Any]) -> None:
    for name, (value, kind) in given.items():
        if value is not None and not isinstance(value, kind):
            wanted = getattr(kind, "__name__", "list of ids")
            raise TypeError(f"{name} must be a {wanted}, got {type(value).__name__}")


def _id_of(node: NodeWithScore) -> str:
    return node.node.node_id


def _user() -> str | None:
    user = active_instrument_tags.get().get("nudge.user_id")
    return None if user is None else str(user)


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
    return VectorStoreIndex.from_vector_store(index, embed_model=embed_model or model_of(index))
