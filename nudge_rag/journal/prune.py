"""Remove records of pushes that are over."""

from __future__ import annotations

from pathlib import Path

from nudge_rag.common.archive import MANIFEST
from nudge_rag.journal.manifest import BASE, ROLLED_BACK, SUPERSEDED
from nudge_rag.journal.recovery import locked_journal
from nudge_rag.journal.versions import Version, writing_to
from nudge_rag.stores.base import EmbeddingStore

__all__ = ["prune"]


def prune(
    store: EmbeddingStore, versions: str | Path | None = None, *, keep: int = 0, forget_away: bool = False
) -> tuple[str, ...]:
    """Remove records of pushes that were superseded or rolled back, but for the newest ``keep`` of them.

    The live version, and one that waits beside it, stay with the originals of every node: `rollback` of all works as
    before. ``rollback(version=...)`` goes back to versions that stay, and refuses to go back to one that was removed.
    Vectors of a removed version are no longer known should a backup bring them back.

    Args:
        store: the vector store.
        versions: the folder of the history; None for the store's own.
        keep: how many of the newest such records stay.
        forget_away: wait no longer for nodes that were gone when their nudge was undone.

    Returns:
        The names of the versions whose records were removed.

    Raises:
        ValueError: ``keep`` is negative, or no integer.
        LockedError: a push or rollback is under way.
        JournalError: a record cannot be removed; a later call continues.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from nudge_rag.journal.push import push_vectors
        >>> from nudge_rag.stores.memory.mapping import MappingStore
        >>> store = MappingStore({"a": [1.0, 0.0]})
        >>> folder = tempfile.mkdtemp()
        >>> for vector in ([0.8, 0.6], [0.6, 0.8], [0.0, 1.0]):
        ...     _ = push_vectors(store, ["a"], np.array([[1.0, 0.0]]), np.array([vector]), versions=folder)
        >>> prune(store, folder, keep=1)
        ('0001',)
    """
    if isinstance(keep, bool) or not isinstance(keep, int) or keep < 0:
        raise ValueError(f"keep must be a number of records, 0 or more, got {keep!r}")
    with locked_journal(store, versions) as journal:
        over = [version for version in journal.versions if version.state in (SUPERSEDED, ROLLED_BACK)]
        over = [version for version in over if not _has_own_copy(version)]
        removed = over[: max(0, len(over) - keep)]
        needed = {version.manifest.get(BASE) for version in journal.versions if version not in removed}
        removed = [version for version in removed if version.name not in needed]
        if journal.home.newest() in {version.name for version in removed}:
            journal.home.note_newest(None)
        for version in removed:
            with writing_to(journal.storage, "written to"):
                # The manifest first: without one there is no version.
                names = journal.storage.names(f"{version.name}/")
                for name in sorted(names, key=lambda name: not name.endswith(MANIFEST)):
                    journal.storage.delete(name)
        if forget_away:
            journal.away.drop(list(journal.away.vectors))
    return tuple(version.name for version in removed)


def _has_own_copy(version: Version) -> bool:
    """Whether a label's copy may still be there, to be dropped."""
    is_retired = version.is_thinned or version.manifest["state"] == ROLLED_BACK
    return bool(version.label) and version.state != SUPERSEDED and not is_retired
