"""Histories of stores that are gone, in the place of one of which a store may have been built anew."""

from __future__ import annotations

from nudge_rag.errors import NudgeError
from nudge_rag.journal.journal import Journal
from nudge_rag.journal.ownership import Home
from nudge_rag.stores.access import reading
from nudge_rag.stores.history import OrphanedStorage

__all__ = ["read_orphans"]


def read_orphans(journal: Journal) -> list[Journal]:
    """Read the histories of stores that are gone from the database, if the store has none yet.

    Records that are damaged are left out: they are not this store's.

    Args:
        journal: of the store that is there.

    Raises:
        StoreError: the store failed.
    """
    if journal.versions or not (journal.home.is_own and isinstance(journal.storage, OrphanedStorage)):
        return []
    with reading(journal.store, "histories of stores that are gone were looked for"):
        storages = journal.storage.orphans()
    found = []
    for storage in storages:
        orphan = Journal(journal.store, Home(storage, storage, journal.name))
        try:
            orphan.refresh()
        except NudgeError:
            continue
        found.append(orphan)
    return found
