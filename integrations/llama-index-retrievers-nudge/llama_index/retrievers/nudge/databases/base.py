"""A database as the retriever and the verbs use it: adapter, filters, nodes, and the framework's scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores import VectorStoreQuery, VectorStoreQueryResult
from llama_index.core.vector_stores.types import VectorStoreQueryMode

from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.similarity import Similarity
from nudge_rag.stores import EmbeddingStore, SearchResult

__all__ = ["MMR_OPTIONS", "Database", "Options", "Request"]

Options = dict[str, Any]
MMR_OPTIONS = frozenset({"mmr_threshold", "mmr_prefetch_factor", "mmr_prefetch_k"})


@dataclass(frozen=True)
class Request:
    """A query that a search of ours answers.

    Attributes:
        vector_store: the framework's object.
        filtered: the object that filters look into: the vector store, or the docstore if the store keeps no metadata.
        open_adapter: opens the store's adapter, once.
        query: the framework's query.
        options: the retriever's ``vector_store_kwargs``.
        trusting: whether filters are translated by the integration if it writes them correctly.
    """

    vector_store: Any
    filtered: Any
    open_adapter: Callable[[], EmbeddingStore]
    query: VectorStoreQuery
    options: Options
    trusting: bool = True


class Database:
    """How to work with one LlamaIndex vector store class.

    The retriever asks the framework's own search first. It asks ``search`` of this class if that search ignores a part
    of the query, refuses its filters, or knows nothing of an overlay.

    Attributes:
        stores_text: whether nodes come from the vector store; if not, they come from the index's docstore.
        keeps_no_metadata: whether filters look into the index's docstore.
        searches_itself: whether the framework's own search may be asked at all.
        options: ``vector_store_kwargs`` that the framework's search takes, and ours.
        carried_options: those of them that ``search`` and ``match`` honour, or that change no answer.
        own_restrictions: ``node_ids`` and ``doc_ids``, as far as the framework's search honours them.
        mmr_prefetch: nodes that MMR chooses among: ``"factor"`` (a multiple of top-k), ``"all"`` nodes, None: no MMR.
        mmr_needs_k: whether fewer nodes than asked for are not chosen from, but given as the search found them.
        mmr_keeps_scores: whether nodes that MMR chose keep the scores of the search.
    """

    stores_text = True
    keeps_no_metadata = False
    searches_itself = True
    options: frozenset[str] = frozenset()
    carried_options: frozenset[str] = frozenset()
    own_restrictions: frozenset[str] = frozenset()
    mmr_prefetch: str | None = None
    mmr_needs_k = False
    mmr_keeps_scores = False

    def make_adapter(self, vector_store: Any) -> EmbeddingStore:
        """Make the `EmbeddingStore` of a vector store."""
        raise NotImplementedError

    def make_filter(self, request: Request) -> Any:
        """Translate filters, node ids, document ids and options to the adapter's form of a filter."""
        raise NotImplementedError

    def honours(self, vector_store: Any, query: VectorStoreQuery, options: Options) -> bool:
        """Tell whether the framework's own search honours every part of ``query``."""
        given = {name for name in ("node_ids", "doc_ids") if getattr(query, name)}
        return self.searches_itself and given <= self.own_restrictions

    def search(self, request: Request, k: int) -> SearchResult:
        """Find the k nearest nodes, with scores in the adapter's similarity."""
        vectors = np.array([request.query.query_embedding], dtype=np.float64)
        return request.open_adapter().search(vectors, k, where=self.make_filter(request))

    def match(self, request: Request, ids: list[str]) -> set[str]:
        """Choose those of ``ids`` that exist and that the query's filters let through."""
        return request.open_adapter().matching(ids, self.make_filter(request))

    def as_searched(self, vector_store: Any, queries: FloatArray) -> FloatArray:
        """Round queries as the database does before it compares them with vectors."""
        return queries

    def fetch_nodes(self, vector_store: Any, ids: list[str]) -> list[BaseNode]:
        """Fetch nodes by id, in any order; by default as the integration itself does."""
        nodes: list[BaseNode] = vector_store.get_nodes(node_ids=ids)
        return nodes

    def nodes_by_id(self, vector_store: Any, ids: list[str]) -> dict[str, BaseNode]:
        """Fetch nodes by the id that the store knows them by."""
        return {node.node_id: node for node in self.fetch_nodes(vector_store, ids)}

    def complete(self, result: VectorStoreQueryResult) -> VectorStoreQueryResult:
        """Give what the framework's own search found ids, if it leaves any out."""
        return result

    def framework_scores(self, scores: FloatArray, similarity: Similarity) -> FloatArray:
        """Turn scores of the adapter into those that the framework's own search gives."""
        return scores

    def unknown_options(self, vector_store: Any, options: Options) -> list[str]:
        """List the options that neither the framework's search nor ours takes."""
        return sorted(set(options) - self.options)

    def overlay_problem(self, vector_store: Any, mode: VectorStoreQueryMode, options: Options) -> str | None:
        """Name a part of this mode and these options that an overlay cannot honour, or return None."""
        names = set(options)
        if mode == VectorStoreQueryMode.MMR and self.mmr_prefetch is not None:
            names -= MMR_OPTIONS
        elif mode != VectorStoreQueryMode.DEFAULT:
            return f"the query mode {mode.value!r}"
        lost = sorted(names - self.carried_options)
        return f"vector_store_kwargs {', '.join(lost)}" if lost else None
