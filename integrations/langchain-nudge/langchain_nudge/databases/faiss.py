"""FAISS: its adapter, its filters, and its documents by id."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from langchain_core.documents import Document

from langchain_nudge.databases.base import ROUNDING, Database
from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.similarity import Similarity
from nudge_rag.stores import EmbeddingStore, FaissStore

__all__ = ["DATABASE"]


def _ids_of(vectorstore: Any) -> Any:
    return vectorstore.index_to_docstore_id


class FaissDatabase(Database):
    """FAISS, by langchain-community."""

    keeps_file = True
    own_options = frozenset()
    thresholds_scores = True

    def make_adapter(self, vectorstore: Any, *, persist_path: Any = None, **options: Any) -> EmbeddingStore:
        """Make the adapter of its index."""
        return FaissStore(
            vectorstore.index,
            partial(_ids_of, vectorstore),  # a function of the module: a nudge of the store is pickled with it
            persist_path=persist_path,
            held_by=(vectorstore, "index"),
        )

    def make_filter(self, vectorstore: Any, given: Any, **options: Any) -> Callable[[str], bool] | None:
        """Ask a function of the metadata, or a dictionary as the integration takes it, by the document's id."""
        if given is None:
            return None
        self.check_filter(vectorstore, given)
        passes = given if callable(given) else vectorstore._create_filter_func(given)

        def passes_by_id(node_id: str) -> bool:
            document = vectorstore.docstore.search(node_id)
            return isinstance(document, Document) and bool(passes(document.metadata))

        return passes_by_id

    def check_filter(self, vectorstore: Any, given: Any) -> None:
        """Refuse anything but a function or a dictionary."""
        if given is not None and not callable(given) and not isinstance(given, dict):
            raise TypeError(
                f"filter for FAISS is a function of the metadata or a dictionary, got {type(given).__name__}"
            )

    def honours(self, vectorstore: Any, options: Mapping[str, Any], is_async: bool) -> bool:
        """Without fetch_k it filters the 20 nearest documents alone, and finds fewer than there are."""
        return options.get("filter") is None or "fetch_k" in options

    def as_searched(self, vectorstore: Any, queries: FloatArray) -> FloatArray:
        """At unit length, if the integration was told so (``normalize_L2``)."""
        if not vectorstore._normalize_L2:
            return queries
        norms = np.linalg.norm(queries, axis=-1, keepdims=True)
        return queries / np.where(norms > 0, norms, 1)

    def fetch_documents(self, vectorstore: Any, ids: list[str]) -> list[Document]:
        """Fetch documents from its docstore."""
        found = {node_id: vectorstore.docstore.search(node_id) for node_id in ids}
        return [one.model_copy(update={"id": node}) for node, one in found.items() if isinstance(one, Document)]

    def prefetch(self, search_type: str, options: Mapping[str, Any]) -> int | None:
        """With fetch_k it filters so many of the nearest documents; for MMR, twice as many."""
        if options.get("filter") is None or "fetch_k" not in options:
            return None
        return int(options["fetch_k"]) * (2 if search_type == "mmr" else 1)

    def is_good_enough(self, vectorstore: Any, score: float, threshold: float, similarity: Similarity) -> bool:
        """As the integration compares: by what it was told of the index."""
        larger = getattr(vectorstore.distance_strategy, "name", "") in ("MAX_INNER_PRODUCT", "JACCARD")
        return score >= threshold - ROUNDING if larger else score <= threshold + ROUNDING

    def framework_score(self, score: float, similarity: Similarity) -> float:
        """FAISS' own: the squared distance, or the inner product."""
        return -score if similarity == "l2" else score


DATABASE = FaissDatabase()
