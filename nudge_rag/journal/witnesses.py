"""What the nodes' table of a database tells of a history that is gone, or older than the vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nudge_rag.errors import CorruptArchiveError, LostHistoryError
from nudge_rag.journal.origins import RELEASED
from nudge_rag.journal.store_record import PUSHES, STORE, read_json, write_json
from nudge_rag.journal.versions import writing_to
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.stores.history import BlobStorage, CountedStorage, WitnessedStorage

__all__ = ["accept_older", "count_in", "is_emptied", "is_older", "refuse_emptied", "refuse_older", "release"]


def release(own: BlobStorage) -> None:
    """Note that a store's own storage is empty on purpose, if it can be told that it was not.

    Raises:
        JournalError: the history cannot be written to.
    """
    if isinstance(own, WitnessedStorage):
        write_json(own, RELEASED, {})


def is_emptied(own: BlobStorage) -> bool:
    """Whether all is gone that a store's own storage once held.

    Raises:
        JournalError: the history cannot be read.
    """
    with writing_to(own, "read"):
        return isinstance(own, WitnessedStorage) and own.is_emptied()


def refuse_emptied(store: EmbeddingStore, own: BlobStorage) -> None:
    """Raise LostHistoryError if nodes may hold what a push wrote whose record somebody has deleted."""
    if is_emptied(own):
        raise LostHistoryError(
            f"this {store.name} store had a history in {own.location}, and nothing is left of it: nodes may hold what a"
            " push wrote, which would be taken for originals. Bring it back from a backup; or embed these nodes again,"
            " and call nudge_rag.take_over(store, force=True), which takes the vectors that are there for their own"
        )


def is_older(own: BlobStorage) -> bool:
    """Whether the nodes' table tells of more pushes than the history in a store's own storage knows.

    Raises:
        JournalError: the history cannot be read.
    """
    if not isinstance(own, CountedStorage):
        return False
    with writing_to(own, "read"):
        n_counted = own.n_counted()  # first: whatever was counted had been recorded before
    try:
        known = count_in(read_json(own, STORE) or {}) if n_counted else None
    except CorruptArchiveError:  # `repair` sets it aside
        return False
    return known is not None and known < n_counted


def refuse_older(store: EmbeddingStore, own: BlobStorage) -> None:
    """Raise LostHistoryError if nodes may hold what a push wrote that was recorded after a backup of the history."""
    if is_older(own):
        raise LostHistoryError(
            f"pushes to this {store.name} store were recorded that its history, in {own.location}, does not know, as"
            " after an older backup of that was restored alone: nodes may hold what they wrote, which would be taken"
            " for originals. Bring the newer history back, or the nodes that belong to this one; or call"
            " nudge_rag.take_over(store, force=True), which takes the vectors that are there for their own"
        )


def accept_older(own: BlobStorage) -> bool:
    """Let a history go on though it knows fewer pushes than the nodes' table tells of; whether it does.

    Raises:
        JournalError: the history cannot be read or written to.
    """
    described = read_json(own, STORE) if is_older(own) else None
    if described is None or not isinstance(own, CountedStorage):
        return False
    write_json(own, STORE, described | {PUSHES: own.n_counted()})
    return True


def count_in(described: Mapping[str, Any]) -> int | None:
    """Number of pushes that the record of a store knows; None if an earlier release wrote it."""
    n_pushes = described.get(PUSHES)
    return n_pushes if isinstance(n_pushes, int) and not isinstance(n_pushes, bool) else None
