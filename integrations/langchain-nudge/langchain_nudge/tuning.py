"""Tune a LangChain vector store with its own embedding model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Unpack

from langchain_core.embeddings import Embeddings

import nudge_rag
from langchain_nudge.databases.registry import embeddings_of
from langchain_nudge.stores import embedding_store, texts_of
from nudge_rag.feedback.pairs import LabeledPairs, Split
from nudge_rag.journal.text_hashes import skip_unreadable_texts
from nudge_rag.tuning.options import TuneOptions

__all__ = ["tune"]


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
        pairs: labelled pairs whose node ids are LangChain document ids.
        embeddings: what queries are embedded with; default the vector store's own.
        persist_path: for InMemoryVectorStore, the file that pushes are written through to.
        **options: solver, metrics, split, seed, versions, competitors: as `nudge_rag.tune`; ``model``, the embedding
            model's name for the record, is the framework's if it has one; ``texts`` are those of the documents.

    Raises:
        ValueError: no embeddings were given and the vector store has none.
    """
    store = embedding_store(vectorstore, persist_path=persist_path)
    model = embeddings or embeddings_of(vectorstore)
    if model is None:
        raise ValueError(f"{type(vectorstore).__name__} has no embeddings of its own: pass embeddings=")
    name = getattr(model, "model_name", None) or getattr(model, "model", None)
    options.setdefault("model", name if isinstance(name, str) else None)
    own_texts = texts_of(vectorstore)
    options.setdefault("texts", None if own_texts is None else skip_unreadable_texts(own_texts))
    # Queries go through the query side: many models put another instruction before a query than before a text.
    return nudge_rag.tune(
        store, pairs, lambda texts: [model.embed_query(text) for text in nudge_rag.track(texts)], **options
    )
