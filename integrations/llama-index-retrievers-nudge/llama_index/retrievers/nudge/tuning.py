"""Tune a LlamaIndex vector store with its own embedding model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Unpack

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.retrievers.nudge.queries import embed_queries_with, model_name_of, model_of
from llama_index.retrievers.nudge.stores import documents_of, embedding_store, texts_of

import nudge_rag
from nudge_rag.feedback.pairs import LabeledPairs, Split
from nudge_rag.journal.text_hashes import skip_unreadable_texts
from nudge_rag.tuning.options import TuneOptions

__all__ = ["tune"]


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
            framework's, and ``texts`` are those of the nodes.

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
    return nudge_rag.tune(store, pairs, embed_queries_with(index_or_store, embed_model), **options)
