"""Labels of nodes whose ids have changed: known again by their texts, or by the documents that they name."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from nudge_rag.journal.new_ids import find_by_text
from nudge_rag.journal.text_hashes import TextsOf
from nudge_rag.stores.access import reading
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.tuning.incremental.labels import RunningLabels
from nudge_rag.tuning.label_matching import recorded_hashes

__all__ = ["chunks_of", "find_new_ids"]


def find_new_ids(
    store: EmbeddingStore, versions: Path | None, texts: TextsOf | None, labels: RunningLabels
) -> dict[str, str]:
    """Find labelled nodes that are in the store under other ids, by hashes of texts that the labels or pushes recorded.

    Args:
        store: the vector store.
        versions: the folder of the history; None for the store's own.
        texts: node ids to their texts; None if they are not known.
        labels: what is known of nodes.

    Returns:
        Ids that are no longer in the store, and those that their nodes have now.

    Raises:
        StoreError: the store failed.
    """
    if texts is None or not labels.nodes:
        return {}
    with reading(store, "the labelled nodes were looked for"):
        present = store.matching(list(labels.nodes), None)
    hashes = {**recorded_hashes(store, versions), **labels.hashes}
    gone = {node_id: hashes[node_id] for node_id in labels.nodes if node_id not in present and node_id in hashes}
    return {old: node.id for old, node in find_by_text(store, gone, texts, present).items()}


def chunks_of(documents: TextsOf | None, named: Collection[str], nodes: Iterable[str]) -> list[str]:
    """Those of ``nodes`` that are chunks of one of the documents that are named.

    Example:
        >>> chunks_of(lambda ids: [node_id[:-1] for node_id in ids], {"a"}, ["a1", "b1", "a2"])
        ['a1', 'a2']
    """
    ids = list(nodes)
    if documents is None or not ids:
        return []
    return [node_id for node_id, document in zip(ids, documents(ids), strict=True) if document in named]
