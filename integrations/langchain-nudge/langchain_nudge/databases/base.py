"""A database as the retriever and the verbs use it: adapter, filters, documents, and the framework's scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from langchain_core.documents import Document
from langchain_core.vectorstores.utils import maximal_marginal_relevance

from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.similarity import Similarity
from nudge_rag.stores import EmbeddingStore

__all__ = ["ROUNDING", "SEARCH_OPTIONS", "Database"]

# How far scores of a database in float32 may be off: a node that is the query itself has a relevance of 1.
ROUNDING = 1e-6
# Options that every search of ours takes besides the filter.
SEARCH_OPTIONS = frozenset({"k", "fetch_k", "lambda_mult", "score_threshold"})


class Database:
    """How to work with one LangChain vector store class.

    The retriever asks the framework's own search first. It asks the adapter if that search ignores a part of the
    question, gives documents without ids, or knows nothing of an overlay.

    Attributes:
        keeps_file: whether the adapter takes ``persist_path``, the file that changes are written through to.
        embeddings: name of the attribute with the vector store's embeddings.
        filter_option: name of the filter in the framework's search.
        carried_options: ``search_kwargs`` that `make_filter` takes besides the filter, or that change no answer.
        own_options: what else the framework's own search looks at; it ignores all others. None if that is not known.
        thresholds_scores: whether ``score_threshold`` is one of its own scores in a plain similarity search, too.
        sorts_diverse: whether documents that MMR chose come in the order of their scores, not of the choice.
        query_dtype: in which MMR compares the query: a query that is a node's text leaves it to choose among rounding.
        lists_vectors: whether MMR is given vectors as lists of numbers.
    """

    keeps_file = False
    embeddings = "embeddings"
    filter_option = "filter"
    carried_options: frozenset[str] = frozenset()
    own_options: frozenset[str] | None = None
    thresholds_scores = False
    sorts_diverse = False
    query_dtype = "float32"
    lists_vectors = False

    def make_adapter(self, vectorstore: Any, **options: Any) -> EmbeddingStore:
        """Make the `EmbeddingStore` of a vector store; ``persist_path`` is an option of those that keep a file."""
        raise NotImplementedError

    def is_made(self, vectorstore: Any) -> bool:
        """Tell whether there is a collection; some integrations make it when documents are added."""
        return True

    def make_filter(self, vectorstore: Any, given: Any, **options: Any) -> Any:
        """Translate a filter in the integration's own form to the adapter's; by default they are the same."""
        return given

    def check_filter(self, vectorstore: Any, given: Any) -> None:
        """Refuse a filter that the framework's own search would ignore or fail on without a reason."""

    def honours(self, vectorstore: Any, options: Mapping[str, Any], is_async: bool) -> bool:
        """Tell whether the framework's own search answers, with every option honoured and ids in the documents."""
        return True

    def as_searched(self, vectorstore: Any, queries: FloatArray) -> FloatArray:
        """Return queries as the framework's own search gives them to the database."""
        return queries

    def ranks_otherwise(self, vectorstore: Any, options: Mapping[str, Any]) -> str | None:
        """Name what makes the framework's own search rank by more than one vector of each node, or return None."""
        return None

    def drop_ignored(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Leave out the options that the framework's own search ignores."""
        if self.own_options is None:
            return dict(options)
        known = self.own_options | self.carried_options | SEARCH_OPTIONS | {self.filter_option}
        return {name: value for name, value in options.items() if name in known}

    def fetch_documents(self, vectorstore: Any, ids: list[str]) -> list[Document]:
        """Fetch documents with their ids, in any order; by default as the integration itself does."""
        documents: list[Document] = vectorstore.get_by_ids(ids)
        return documents

    def find_documents(
        self, vectorstore: Any, vector: list[float], options: Mapping[str, Any]
    ) -> list[Document] | None:
        """Search and fetch documents in one request to the store, or return None if the adapter is to search."""
        return None

    def complete(self, vectorstore: Any, documents: list[Document]) -> list[Document]:
        """Give documents of the framework's own search the ids that it leaves out."""
        return documents

    def default_k(self, vectorstore: Any) -> int:
        """How many documents the framework's own search finds if it is not told."""
        return 4

    def mmr_options(self, vectorstore: Any, options: Mapping[str, Any]) -> tuple[int, float]:
        """Return how many documents MMR chooses among, and how much it looks at relevance."""
        return options.get("fetch_k", 20), options.get("lambda_mult", 0.5)

    def choose_diverse(
        self, query: FloatArray, vectors: FloatArray, k: int, lambda_mult: float, similarity: Similarity
    ) -> list[int]:
        """Return the rows that maximal marginal relevance chooses, by the framework's own function."""
        held = list(vectors.astype(np.float64)) if self.lists_vectors else list(vectors)
        rows: list[int] = maximal_marginal_relevance(query.astype(self.query_dtype), held, lambda_mult=lambda_mult, k=k)
        return sorted(rows) if self.sorts_diverse else rows

    def prefetch(self, search_type: str, options: Mapping[str, Any]) -> int | None:
        """Return how many documents are found before they are filtered; None if all that pass are looked at."""
        return None

    def is_good_enough(self, vectorstore: Any, score: float, threshold: float, similarity: Similarity) -> bool:
        """Compare a score of the framework's own with a threshold of it."""
        return score <= threshold + ROUNDING if similarity == "l2" else score >= threshold - ROUNDING

    def add_score(self, document: Document, score: float) -> Document:
        """Put the score into the metadata, if the framework's own search does so."""
        return document

    def framework_score(self, score: float, similarity: Similarity) -> float:
        """Turn a score of the adapter into that of ``similarity_search_with_score``: by default, a distance."""
        if similarity == "cosine":
            return 1 - score
        return -score if similarity == "dot" else math.sqrt(max(-score, 0.0))
