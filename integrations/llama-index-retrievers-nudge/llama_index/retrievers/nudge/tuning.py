"""Tune a LlamaIndex vector store with its own embedding model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.retrievers.nudge.stores import embedding_store, texts_of

import nudge_rag
from nudge_rag.feedback.pairs import LabeledPairs, Split
from nudge_rag.journal.text_hashes import skip_unreadable_texts

__all__ = ["tune"]


def tune(
    index_or_store: Any,
    pairs: LabeledPairs | Split,
    *,
    embed_model: BaseEmbedding | None = None,
    persist_path: str | Path | None = None,
    **options: Any,
) -> nudge_rag.Nudge:
    """`nudge_rag.tune` for a LlamaIndex index or vector store.

    Args:
        index_or_store: a `VectorStoreIndex`, or a vector store.
        pairs: labelled pairs whose node ids are LlamaIndex node ids.
        embed_model: what queries are embedded with; default the index's own model, or ``Settings.embed_model`` for a
            bare vector store.
        persist_path: for SimpleVectorStore, the JSON file that pushes are written through to.
        **options: solver, metrics, split, seed, versions, competitors: as `nudge_rag.tune`; ``model``, the embedding
            model's name for the record, is the framework's; ``texts`` are those of the nodes.
    """
    store = embedding_store(index_or_store, persist_path=persist_path)
    model = embed_model or _own_model(index_or_store)
    options.setdefault("model", getattr(model, "model_name", None))
    own_texts = texts_of(index_or_store)
    options.setdefault("texts", None if own_texts is None else skip_unreadable_texts(own_texts))
    # Queries go through the query side: many models put another instruction before a query than before a text.
    return nudge_rag.tune(
        store, pairs, lambda texts: [model.get_query_embedding(text) for text in nudge_rag.track(texts)], **options
    )


def _own_model(index_or_store: Any) -> BaseEmbedding:
    if isinstance(index_or_store, VectorStoreIndex):
        return index_or_store._embed_model
    return Settings.embed_model
