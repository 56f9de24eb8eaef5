"""The verbs of nudge-rag on a LlamaIndex index or vector store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, Unpack

from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.retrievers.nudge.base import NudgeRetriever
from llama_index.retrievers.nudge.queries import embed_queries_with
from llama_index.retrievers.nudge.stores import documents_of, embedding_store, texts_of

import nudge_rag
from nudge_rag.evaluation.measures import cutoff_of, resolve_measures
from nudge_rag.evaluation.metrics import Metric
from nudge_rag.evaluation.retrievers import DEFAULT_MEASURES
from nudge_rag.journal.text_hashes import skip_unreadable_texts
from nudge_rag.tuning.options import StateOptions
from nudge_rag.tuning.queries import EmbedQueries

__all__ = [
    "TuningState",
    "evaluate",
    "live_version",
    "load_nudge",
    "prune",
    "reapply",
    "rollback",
    "status",
    "switch",
    "versions",
]


def status(
    index_or_store: Any, versions: str | Path | None = None, *, persist_path: str | Path | None = None
) -> nudge_rag.Status:
    """Compare the vectors of the last push with those in the store now; see `nudge_rag.status`.

    Args:
        index_or_store: an index, a vector store, or an `EmbeddingStore`.
        versions: the folder of the versions, if it is not the default.
        persist_path: for SimpleVectorStore and FAISS, the file that changes are written through to.

    Returns:
        A `nudge_rag.Status`; its ``edited`` are known if the store, or the index, keeps texts.

    Example:
        >>> from llama_index.core import MockEmbedding, VectorStoreIndex
        >>> print(status(VectorStoreIndex([], embed_model=MockEmbedding(4))))
        nothing is pushed
    """
    own_texts = texts_of(index_or_store)
    texts = None if own_texts is None else skip_unreadable_texts(own_texts)
    return nudge_rag.status(_open(index_or_store, persist_path), versions, texts=texts)


def live_version(
    index_or_store: Any, versions: str | Path | None = None, *, persist_path: str | Path | None = None
) -> str | None:
    """Name the push that is live, None if none is; see `nudge_rag.live_version`.

    ``Recorder(path, version=lambda: live_version(index))`` writes it with each retrieval.

    Args:
        index_or_store: an index, a vector store, or an `EmbeddingStore`.
        versions: the folder of the versions, if it is not the default.
        persist_path: for SimpleVectorStore and FAISS, the file that changes are written through to.

    Example:
        >>> from llama_index.core import MockEmbedding, VectorStoreIndex
        >>> print(live_version(VectorStoreIndex([], embed_model=MockEmbedding(4))))
        None
    """
    return nudge_rag.live_version(_open(index_or_store, persist_path), versions)


def versions(
    index_or_store: Any, versions: str | Path | None = None, *, persist_path: str | Path | None = None
) -> list[nudge_rag.Version]:
    """List the pushes to the store, oldest first; see `nudge_rag.versions`.

    Args:
        index_or_store: an index, a vector store, or an `EmbeddingStore`.
        versions: the folder of the versions, if it is not the default.
        persist_path: for SimpleVectorStore and FAISS, the file that changes are written through to.
    """
    return nudge_rag.versions(_open(index_or_store, persist_path), versions)


def rollback(
    index_or_store: Any,
    versions: str | Path | None = None,
    *,
    version: str | None = None,
    persist_path: str | Path | None = None,
) -> nudge_rag.RollbackReceipt:
    """Give every nudged node its original vector back; see `nudge_rag.rollback`.

    Args:
        index_or_store: an index, a vector store, or an `EmbeddingStore`.
        versions: the folder of the versions, if it is not the default.
        version: undo this push and all later ones only; by default all of them.
        persist_path: for SimpleVectorStore and FAISS, the file that changes are written through to.
    """
    return nudge_rag.rollback(_open(index_or_store, persist_path), versions, version=version)


def reapply(
    index_or_store: Any, versions: str | Path | None = None, *, persist_path: str | Path | None = None
) -> tuple[str, ...]:
    """Write the nudge again to the nodes that lost it, also under new ids; see `nudge_rag.reapply`.

    Args:
        index_or_store: an index, a vector store, or an `EmbeddingStore`.
        versions: the folder of the versions, if it is not the default.
        persist_path: for SimpleVectorStore and FAISS, the file that changes are written through to.

    Returns:
        The ids written.
    """
    own_texts = texts_of(index_or_store)
    return nudge_rag.reapply(
        _open(index_or_store, persist_path),
        versions,
        texts=None if own_texts is None else skip_unreadable_texts(own_texts),
        embed_queries=embed_queries_with(index_or_store) if isinstance(index_or_store, VectorStoreIndex) else None,
    )


def switch(
    index_or_store: Any,
    versions: str | Path | None = None,
    *,
    accept_gap: bool = False,
    persist_path: str | Path | None = None,
) -> nudge_rag.SwitchReceipt:
    """Make the copy that ``push(mode="side-by-side")`` wrote live; see `nudge_rag.switch`.

    Args:
        index_or_store: an index, a vector store, or an `EmbeddingStore`.
        versions: the folder of the versions, if it is not the default.
        accept_gap: whether the store may be away for an instant, as on Chroma.
        persist_path: for SimpleVectorStore and FAISS, the file that changes are written through to.
    """
    return nudge_rag.switch(_open(index_or_store, persist_path), versions, accept_gap=accept_gap)


def prune(
    index_or_store: Any,
    versions: str | Path | None = None,
    *,
    keep: int = 0,
    forget_away: bool = False,
    persist_path: str | Path | None = None,
) -> tuple[str, ...]:
    """Remove records of pushes that are over, but for the newest ``keep``; see `nudge_rag.prune`.

    Args:
        index_or_store: an index, a vector store, or an `EmbeddingStore`.
        versions: the folder of the versions, if it is not the default.
        keep: how many of the newest such records stay.
        forget_away: wait no longer for nodes that were gone when their nudge was undone.
        persist_path: for SimpleVectorStore and FAISS, the file that changes are written through to.

    Returns:
        The names of the versions whose records were removed.
    """
    store = _open(index_or_store, persist_path)
    return nudge_rag.prune(store, versions, keep=keep, forget_away=forget_away)


def load_nudge(
    folder: str | Path,
    index_or_store: Any,
    versions: str | Path | None = None,
    *,
    persist_path: str | Path | None = None,
) -> nudge_rag.Nudge:
    """Load a nudge that ``Nudge.save`` wrote, for the same store; see `nudge_rag.Nudge.load`.

    Args:
        folder: the folder that holds it.
        index_or_store: an index, a vector store, or an `EmbeddingStore`.
        versions: the folder of the versions, if it is not the default.
        persist_path: for SimpleVectorStore and FAISS, the file that changes are written through to.
    """
    return nudge_rag.Nudge.load(folder, _open(index_or_store, persist_path), versions)


def evaluate(
    index_or_store: Any,
    pairs: nudge_rag.LabeledPairs,
    metrics: Sequence[str | Metric] = DEFAULT_MEASURES,
    *,
    overlay: nudge_rag.Nudge | None = None,
    embed_model: BaseEmbedding | None = None,
    **retriever_options: Any,
) -> nudge_rag.RetrieverComparison:
    """Ask the index every query of ``pairs``, and with ``overlay`` also as it would answer then.

    Args:
        index_or_store: an index, or a vector store that keeps texts.
        pairs: labelled pairs that the index was not tuned on.
        metrics: such as ``["nDCG@10", "Recall@5"]``.
        overlay: a nudge that is not pushed; compared with the index as it is.
        embed_model: the model that embeds queries; by default the index's own model.
        **retriever_options: as `NudgeRetriever`; ``similarity_top_k`` is by default the deepest cutoff of the metrics.

    Returns:
        A `nudge_rag.RetrieverComparison` of ``"index"`` and ``"overlay"``.

    Raises:
        TypeError: as `NudgeRetriever` and `nudge_rag.evaluate_retrievers`.
        ValueError: likewise.
    """
    depth = cutoff_of(resolve_measures(metrics))
    options: dict[str, Any] = {"similarity_top_k": depth, **retriever_options, "embed_model": embed_model}
    retrievers = {"index": NudgeRetriever(index_or_store, **options)}
    if overlay is not None:
        retrievers["overlay"] = NudgeRetriever(index_or_store, overlay=overlay, **options)
    return nudge_rag.evaluate_retrievers(retrievers, pairs, metrics, baseline="index")


class TuningState(nudge_rag.TuningState):
    """`nudge_rag.TuningState` for a LlamaIndex index or vector store.

    Args:
        index_or_store: an index, a vector store, or an `EmbeddingStore`.
        embed_queries: texts to (m, d) query embeddings; by default the embedding model.
        embed_model: the model that embeds queries; by default the index's own model.
        persist_path: for SimpleVectorStore and FAISS, the file that changes are written through to.
        **options: as `nudge_rag.TuningState`; ``texts`` and ``documents`` are the framework's.
    """

    def __init__(
        self,
        index_or_store: Any,
        embed_queries: EmbedQueries | None = None,
        *,
        embed_model: BaseEmbedding | None = None,
        persist_path: str | Path | None = None,
        **options: Unpack[StateOptions],
    ) -> None:
        store = _open(index_or_store, persist_path)
        embed = embed_queries or embed_queries_with(index_or_store, embed_model)
        super().__init__(store, embed, **_with_texts(index_or_store, options))

    @classmethod
    def load(
        cls,
        folder: str | Path,
        index_or_store: Any,
        embed_queries: EmbedQueries | None = None,
        *,
        embed_model: BaseEmbedding | None = None,
        persist_path: str | Path | None = None,
        **options: Unpack[StateOptions],
    ) -> Self:
        """Read a state that ``save`` wrote, for the same store.

        Args:
            folder: the folder that holds it.
            index_or_store: an index, a vector store, or an `EmbeddingStore`.
            embed_queries: texts to (m, d) query embeddings; by default the embedding model.
            embed_model: the model that embeds queries; by default the index's own model.
            persist_path: for SimpleVectorStore and FAISS, the file that changes are written through to.
            **options: as `nudge_rag.TuningState`.
        """
        embed = embed_queries or embed_queries_with(index_or_store, embed_model)
        state: Any = super().load(
            folder, _open(index_or_store, persist_path), embed, **_with_texts(index_or_store, options)
        )
        loaded: Self = state
        return loaded


def _open(index_or_store: Any, persist_path: str | Path | None) -> Any:
    return embedding_store(index_or_store, persist_path=persist_path)


def _with_texts(index_or_store: Any, options: StateOptions) -> StateOptions:
    """The options, with texts and documents of nodes as the framework knows them."""
    own_texts = texts_of(index_or_store)
    options.setdefault("texts", None if own_texts is None else skip_unreadable_texts(own_texts))
    options.setdefault("documents", documents_of(index_or_store))
    return options
