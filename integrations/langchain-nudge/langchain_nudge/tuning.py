"""Tune a LangChain vector store with its own embedding model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Unpack

from langchain_core.embeddings import Embeddings

import nudge_rag
from langchain_nudge.databases.registry import database_of
from langchain_nudge.queries import embed_queries_with, model_name_of, model_of
from langchain_nudge.retriever import NudgeRetriever
from langchain_nudge.stores import documents_of, embedding_store, texts_of
from nudge_rag.feedback.pairs import LabeledPairs, Split
from nudge_rag.journal.text_hashes import skip_unreadable_texts
from nudge_rag.tuning.judge import check_judge
from nudge_rag.tuning.options import TuneOptions

__all__ = ["JudgedVectorStore", "tune"]


def tune(
    vectorstore: Any,
    pairs: LabeledPairs | Split,
    *,
    embeddings: Embeddings | None = None,
    persist_path: str | Path | None = None,
    **options: Unpack[TuneOptions],
) -> nudge_rag.Nudge:
    """`nudge_rag.tune` for a LangChain vector store.

    Args:
        vectorstore: the vector store.
        pairs: labelled pairs whose node ids are LangChain document ids; or what the metadata ``doc_id``,
            ``document_id``, ``parent_id`` or ``source`` name the document of a chunk by.
        embeddings: the model that embeds queries; default the vector store's own.
        persist_path: for InMemoryVectorStore the file of its ``dump``, and for FAISS the ``index.faiss`` of its
            ``save_local``, that pushes are written through to.
        **options: solver, metrics, split, seed, versions, competitors: as `nudge_rag.tune`; ``model``, the embedding
            model's name for the record, is the framework's if it has one; ``texts`` are those of the documents.
            ``judge``, the application's own pipeline, is called with a view of the vector store, whose
            ``as_retriever(...)`` takes what the vector store's own does.

    Returns:
        A `nudge_rag.Nudge`: print it for the before/after table, then ``push()``.

    Raises:
        TypeError: a store that is not supported, or an option that does not exist.
        ValueError: no embeddings were given and the vector store has none; and as `nudge_rag.tune`.
    """
    store = embedding_store(vectorstore, persist_path=persist_path)
    embed_queries = embed_queries_with(vectorstore, embeddings)
    options.setdefault("model", model_name_of(model_of(vectorstore, embeddings)))
    own_texts = texts_of(vectorstore)
    options.setdefault("texts", None if own_texts is None else skip_unreadable_texts(own_texts))
    options.setdefault("documents", documents_of(vectorstore))
    judge, versions = options.get("judge"), options.get("versions")
    if judge is not None and database_of(vectorstore) is not None:
        check_judge(judge)
        options["judge"] = lambda store: judge(JudgedVectorStore(vectorstore, store.laid_over, embeddings, versions))
    return nudge_rag.tune(store, pairs, embed_queries, **options)


class JudgedVectorStore:
    """A vector store as the judge of `tune` sees it: retrievers over it, with a nudge laid over the stored vectors.

    Args:
        vectorstore: the vector store.
        overlay: the nudge; None for the vectors that are live.
        embeddings: the model that embeds queries; None for the vector store's own.
        versions: folder of the history; None for the store's own.
    """

    def __init__(
        self, vectorstore: Any, overlay: nudge_rag.Nudge | None, embeddings: Embeddings | None, versions: Any
    ) -> None:
        self._vectorstore, self._overlay, self._embeddings, self._versions = vectorstore, overlay, embeddings, versions

    def as_retriever(self, **options: Any) -> NudgeRetriever:
        """Return a retriever, with the options of the vector store's own ``as_retriever``."""
        return NudgeRetriever(
            vectorstore=self._vectorstore,
            overlay=self._overlay,
            query_embeddings=self._embeddings,
            versions=self._versions,
            **options,
        )
