"""Tune a LlamaIndex vector store with its own embedding model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Unpack

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.retrievers.nudge.base import NudgeRetriever
from llama_index.retrievers.nudge.queries import embed_queries_with, model_name_of, model_of
from llama_index.retrievers.nudge.stores import documents_of, embedding_store, texts_of

import nudge_rag
from nudge_rag.feedback.pairs import LabeledPairs, Split
from nudge_rag.journal.text_hashes import skip_unreadable_texts
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.tuning.judge import check_judge
from nudge_rag.tuning.options import TuneOptions

__all__ = ["JudgedIndex", "tune"]


def tune(
    index_or_store: Any,
    pairs: LabeledPairs | Split,
    *,
    embed_model: BaseEmbedding | None = None,
    persist_path: str | Path | None = None,
    **options: Unpack[TuneOptions],
) -> nudge_rag.Nudge:
    """`nudge_rag.tune` for a LlamaIndex index or vector store.

    Args:
        index_or_store: a `VectorStoreIndex`, or a vector store.
        pairs: labelled pairs whose node ids are LlamaIndex node ids, or ids of their documents (``ref_doc_id``).
        embed_model: the model that embeds queries; by default the index's own model, or ``Settings.embed_model`` for a
            bare vector store.
        persist_path: for SimpleVectorStore and FAISS, the file that pushes are written through to.
        **options: as `nudge_rag.tune`; ``model``, the embedding model's name for the record, is by default the
            framework's, and ``texts`` are those of the nodes. ``judge``, the application's own pipeline, is called with
            a view of the index, whose ``as_retriever(...)`` takes what the index's own does.

    Returns:
        A `nudge_rag.Nudge`: print it for the before/after table, then ``push()``.

    Raises:
        TypeError: a store that is not supported, or an option that does not exist.
        ValueError: as `nudge_rag.tune`.
    """
    store = embedding_store(index_or_store, persist_path=persist_path)
    options.setdefault("model", model_name_of(model_of(index_or_store, embed_model)))
    own_texts = texts_of(index_or_store)
    options.setdefault("texts", None if own_texts is None else skip_unreadable_texts(own_texts))
    options.setdefault("documents", documents_of(index_or_store))
    judge, versions = options.get("judge"), options.get("versions")
    if judge is not None and not isinstance(index_or_store, EmbeddingStore):
        check_judge(judge)
        options["judge"] = lambda store: judge(JudgedIndex(index_or_store, store.laid_over, embed_model, versions))
    return nudge_rag.tune(store, pairs, embed_queries_with(index_or_store, embed_model), **options)


class JudgedIndex:
    """An index as the judge of `tune` sees it: retrievers over it, with a nudge laid over the stored vectors.

    Args:
        index_or_store: the index, or a bare vector store.
        overlay: the nudge; None for the vectors that are live.
        embed_model: the model that embeds queries; None for the index's own.
        versions: folder of the history; None for the store's own.
    """

    def __init__(
        self, index_or_store: Any, overlay: nudge_rag.Nudge | None, embed_model: BaseEmbedding | None, versions: Any
    ) -> None:
        self._index, self._overlay, self._embed_model, self._versions = index_or_store, overlay, embed_model, versions

    def as_retriever(self, **options: Any) -> NudgeRetriever:
        """Return a retriever, with the options of the index's own ``as_retriever``."""
        return NudgeRetriever(
            self._index, overlay=self._overlay, embed_model=self._embed_model, versions=self._versions, **options
        )
