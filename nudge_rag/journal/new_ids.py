"""Find nodes that are in the store under other ids than before, by hashes of their texts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.journal.text_hashes import TextsOf, hash_texts
from nudge_rag.stores.access import reading
from nudge_rag.stores.base import EmbeddingStore

__all__ = ["FoundNode", "find_by_text"]

SCAN_BATCH = 1_000


@dataclass(frozen=True)
class FoundNode:
    """A node that has the text of another one.

    Attributes:
        id: its id.
        vector: (d,) its vector in the store.
    """

    id: str
    vector: FloatArray


def find_by_text(
    store: EmbeddingStore, wanted: Mapping[str, str], texts: TextsOf, taken: Collection[str] = ()
) -> dict[str, FoundNode]:
    """Find nodes by the hashes of their texts, in one pass over the store that ends when all are found.

    Several nodes with one text are as good as each other: each is given to one of those that want it, in the order of
    ids and of the scan.

    Args:
        store: the vector store.
        wanted: id that is no longer in the store to the hash of its text.
        texts: node ids to their texts.
        taken: ids of nodes that are known for themselves.

    Returns:
        For each id that was found, the node that has its text now.

    Raises:
        StoreError: the store failed.

    Example:
        >>> from nudge_rag.journal.text_hashes import hash_text
        >>> from nudge_rag.stores import MappingStore
        >>> store = MappingStore({"new": [1.0, 0.0], "other": [0.0, 1.0]})
        >>> texts = {"new": "how to leave", "other": "how to pay"}
        >>> found = find_by_text(store, {"old": hash_text("how to leave")}, lambda ids: [texts[one] for one in ids])
        >>> found["old"].id
        'new'
    """
    waiting: dict[str, list[str]] = {}
    for node_id in sorted(wanted, reverse=True):
        waiting.setdefault(wanted[node_id], []).append(node_id)
    found: dict[str, FoundNode] = {}
    if not waiting:
        return found
    with reading(store, "nodes were looked for by their texts"):
        for names, vectors in store.scan(SCAN_BATCH):
            row_of = {name: row for row, name in enumerate(names) if name not in taken}
            for name, hashed in hash_texts(texts, list(row_of)).items():
                if hashed in waiting:
                    found[waiting[hashed].pop()] = FoundNode(name, np.array(vectors[row_of[name]]))
                    if not waiting[hashed]:
                        del waiting[hashed]
            if not waiting:
                break
    return found
