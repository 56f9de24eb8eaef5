"""The framework's three kinds of search, answered by an adapter: of a store as it is, or as a nudge would make it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from langchain_core.documents import Document

from langchain_nudge.databases.base import ROUNDING, SEARCH_OPTIONS, Database
from nudge_rag.stores import EmbeddingStore

__all__ = ["AdapterSearch"]

OF_SEARCH = {
    "similarity": frozenset({"k"}),
    "similarity_score_threshold": frozenset({"k", "score_threshold"}),
    "mmr": frozenset({"k", "fetch_k", "lambda_mult"}),
}


@dataclass(frozen=True)
class AdapterSearch:
    """Searches of one vector store through its adapter.

    Attributes:
        vectorstore: the framework's object.
        database: the description of its class.
        store: the adapter, or an overlay over it.
    """

    vectorstore: Any
    database: Database
    store: EmbeddingStore

    def check_options(self, search_type: str, options: Mapping[str, Any]) -> None:
        """Refuse options that the adapter cannot honour, and searches that rank by more than one vector of each node.

        Raises:
            ValueError: such an option or search; the message names it.
        """
        otherwise = self.database.ranks_otherwise(self.vectorstore, options)
        if otherwise is not None:
            raise ValueError(
                f"{otherwise} of {type(self.vectorstore).__name__} cannot be honoured with an overlay, score_key,"
                " query_embeddings or a map of queries: push the nudge first, and let NudgeEmbeddings map queries"
            )
        taken = OF_SEARCH[search_type] | self.database.carried_options | {self.database.filter_option}
        # The framework's similarity search ignores options of its other searches, in most databases.
        ignored = SEARCH_OPTIONS - ({"score_threshold"} if self.database.thresholds_scores else set())
        if self.database.thresholds_scores and search_type == "similarity":
            taken |= {"score_threshold"}
        unknown = sorted(set(options) - taken - ignored)
        if unknown:
            raise ValueError(
                f"{', '.join(unknown)} of search_kwargs cannot be honoured by {type(self.vectorstore).__name__} with an"
                f" overlay, score_key or query_embeddings, which take {', '.join(sorted(taken))}: push the nudge first"
            )

    def find(self, search_type: str, vector: list[float], options: Mapping[str, Any]) -> list[tuple[Document, float]]:
        """Find documents, best first, with scores in the store's own similarity.

        Args:
            search_type: ``"similarity"``, ``"similarity_score_threshold"`` or ``"mmr"``.
            vector: the query's embedding.
            options: as the framework's search takes them.

        Raises:
            ValueError: an option that cannot be honoured; k that is no positive integer.
            NotImplementedError: a threshold for a vector store that turns no scores into relevance.
        """
        self.check_options(search_type, options)
        k = options.get("k", self.database.default_k(self.vectorstore))
        vector = self.database.as_searched(self.vectorstore, np.array(vector, dtype=np.float64)).tolist()
        if search_type == "mmr":
            fetch_k, lambda_mult = self.database.mmr_options(self.vectorstore, options)
            found = self._diverse(vector, self._nearest(search_type, vector, fetch_k, options), k, lambda_mult)
        else:
            found = self._nearest(search_type, vector, k, options)[:k]
        if search_type == "similarity_score_threshold":
            found = self._relevant(found, options.get("score_threshold"))
        elif search_type == "similarity" and self.database.thresholds_scores:
            found = self._good_enough(found, options.get("score_threshold"))
        return self._documents(found)

    def _nearest(
        self, search_type: str, vector: list[float], k: int, options: Mapping[str, Any]
    ) -> list[tuple[str, float]]:
        """The best nodes that pass the filter; as far as they are among the first, if that is how it is done."""
        extra = {name: options[name] for name in self.database.carried_options if name in options}
        where = self.database.make_filter(self.vectorstore, options.get(self.database.filter_option), **extra)
        first = self.database.prefetch(search_type, options)
        found = self.store.search(
            np.array([vector], dtype=np.float64), first or k, where=None if first is not None else where
        )
        pairs = list(zip(found.ids[0], found.scores[0].tolist(), strict=True))
        if first is None:
            return pairs
        passing = self.store.matching([node_id for node_id, _ in pairs], where)
        return [pair for pair in pairs if pair[0] in passing]

    def _diverse(
        self, vector: list[float], found: list[tuple[str, float]], k: int, lambda_mult: float
    ) -> list[tuple[str, float]]:
        """Those that maximal marginal relevance chooses."""
        if not found:
            return []
        vectors = self.store.read([node_id for node_id, _ in found])
        query = np.array(vector, dtype=np.float64)
        rows = self.database.choose_diverse(query, vectors, k, lambda_mult, self.store.capabilities.similarity)
        return [found[row] for row in rows]

    def _good_enough(self, found: list[tuple[str, float]], threshold: float | None) -> list[tuple[str, float]]:
        """Those whose score, as the framework's own search gives it, is at least as good as the threshold."""
        if threshold is None:
            return found
        similarity = self.store.capabilities.similarity
        own_scores = [self.database.framework_score(score, similarity) for _, score in found]
        return [
            pair
            for pair, score in zip(found, own_scores, strict=True)
            if self.database.is_good_enough(self.vectorstore, score, threshold, similarity)
        ]

    def _relevant(self, found: list[tuple[str, float]], threshold: float | None) -> list[tuple[str, float]]:
        """Those that the framework finds relevant enough, by its own function of its own scores."""
        relevance = self.vectorstore._select_relevance_score_fn()
        similarity = self.store.capabilities.similarity
        relevances = [relevance(self.database.framework_score(score, similarity)) for _, score in found]
        if any(value < 0 or value > 1 for value in relevances):
            warnings.warn(f"Relevance scores must be between 0 and 1, got {relevances}", stacklevel=2)
        if threshold is None:
            return found
        return [pair for pair, value in zip(found, relevances, strict=True) if value >= threshold - ROUNDING]

    def _documents(self, found: list[tuple[str, float]]) -> list[tuple[Document, float]]:
        """Documents in the order of ``found``; one that was deleted since is left out."""
        if not found:
            return []
        fetched = self.database.fetch_documents(self.vectorstore, [node_id for node_id, _ in found])
        documents = {document.id: document for document in fetched}
        return [
            (self.database.add_score(documents[node_id], score), score)
            for node_id, score in found
            if node_id in documents
        ]
