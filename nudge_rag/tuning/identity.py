"""Which store something was saved for: by the identity of its history, its key, or what it holds."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.errors import NudgeError
from nudge_rag.journal.journal import Journal
from nudge_rag.journal.ownership import own_history
from nudge_rag.stores.access import read_present, reading, same_rows
from nudge_rag.stores.base import EmbeddingStore

__all__ = ["check_same_store", "describe_store"]

logger = logging.getLogger(__name__)

# Nodes that are compared, at most, if nothing else tells whether it is the same store.
SAMPLE = 100


def describe_store(store: EmbeddingStore, versions: str | Path | None) -> dict[str, Any]:
    """Return what a saved archive says of its store: its key, and the identity of its history if it has one.

    Example:
        >>> from nudge_rag.stores import MappingStore
        >>> describe_store(MappingStore({"a": [1.0, 0.0]}, key="table"), None)
        {'store': 'table', 'store_identity': None}
    """
    return {"store": store.key, "store_identity": _identity(store, versions)}


def check_same_store(
    what: str,
    saved: Mapping[str, Any],
    store: EmbeddingStore,
    versions: str | Path | None,
    nodes: tuple[Sequence[str], FloatArray],
) -> None:
    """Raise unless ``store`` is the one that something was saved for.

    The identity of a history decides, whatever address the store is opened by. If either side has none, the same key
    will do, but in memory, and otherwise the original vectors of some nodes.

    Args:
        what: was saved, for messages.
        saved: what `describe_store` returned then.
        store: the store that it is loaded for.
        versions: the folder of its history; None for the store's own.
        nodes: ids, and (n, d) the original vectors they had.

    Raises:
        ValueError: it is another store.
        StoreError: the store failed.

    Example:
        >>> import numpy as np
        >>> from nudge_rag.stores import MappingStore
        >>> moved, other = (MappingStore({"a": vector}, key="new") for vector in ([1.0, 0.0], [0.0, 1.0]))
        >>> nodes = ["a"], np.array([[1.0, 0.0]])
        >>> check_same_store("the nudge", {"store": "old"}, moved, None, nodes)
        >>> check_same_store("the nudge", {"store": "old"}, other, None, nodes)
        Traceback (most recent call last):
        ...
        ValueError: the nudge was made for old, not for new
    """
    then, now = saved.get("store_identity"), _identity(store, versions)
    if then is not None and now is not None:
        if then == now:
            return
        raise ValueError(f"{what} was made for {saved['store']}, not for {store.key}: their histories are not the same")
    same_key = saved["store"] == store.key
    # All stores in memory that a framework made have one key.
    is_told = store.capabilities.persistent or own_history(store) is None or not len(nodes[0])
    if not (same_key and is_told) and not _holds(store, versions, *nodes):
        which = "another store in memory" if same_key else saved["store"]
        raise ValueError(f"{what} was made for {which}, not for {store.key}")


def _journal(store: EmbeddingStore, versions: str | Path | None) -> Journal | None:
    try:
        return Journal.open(store, versions)
    except NudgeError as error:
        logger.info("the history of %s does not tell which store it is: %s", store.name, error)
        return None


def _identity(store: EmbeddingStore, versions: str | Path | None) -> str | None:
    journal = _journal(store, versions)
    return None if journal is None else journal.home.identity()


def _holds(store: EmbeddingStore, versions: str | Path | None, ids: Sequence[str], originals: FloatArray) -> bool:
    """Whether most of some nodes hold their original vectors, or what a push made of these."""
    rows = np.unique(np.linspace(0, len(ids) - 1, min(len(ids), SAMPLE)).round().astype(int))
    sample = [ids[row] for row in rows] if len(ids) else []
    with reading(store, "it was compared with the one that something was saved for"):
        present, _ = read_present(store, sample)
    if not present or next(iter(present.values())).shape != originals[0].shape:
        return False
    names = list(present)
    now, journal = np.array([present[name] for name in names]), _journal(store, versions)
    if journal is not None:
        now = journal.originals_of(names, now)
    row_of = {ids[row]: row for row in rows}
    same = same_rows(store, now, originals[[row_of[name] for name in names]])
    return int(np.sum(same)) * 2 > len(sample)
