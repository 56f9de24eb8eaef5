"""Move the history of a store from a folder into the store."""

from __future__ import annotations

import re
from pathlib import Path

from nudge_rag.common.archive import MANIFEST
from nudge_rag.errors import JournalError
from nudge_rag.journal.journal import Journal
from nudge_rag.journal.manifest import NAME
from nudge_rag.journal.ownership import DEFAULT_VERSIONS, ELSEWHERE, Home, has_versions, own_history, read_json
from nudge_rag.journal.versions import writing_to
from nudge_rag.stores.access import reading, same_vectors
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.stores.history import FolderStorage

__all__ = ["take_over"]


def take_over(store: EmbeddingStore, versions: str | Path = DEFAULT_VERSIONS) -> tuple[str, ...]:
    """Move the history that a folder holds of ``store`` into the store, whose own it is from then on.

    Args:
        store: the vector store.
        versions: the folder that pushes were given, or the one inside it that is of this store.

    Returns:
        The names of the versions that were taken over.

    Raises:
        ValueError: the store cannot hold a history.
        JournalError: there is none in the folder, it is another store's, or the store has one already.
        LockedError: a push or rollback is under way.
    """
    own = own_history(store)
    if own is None:
        raise ValueError(f"this {store.name} store cannot hold its own history: go on with versions={str(versions)!r}")
    if has_versions(own):
        raise JournalError(f"this {store.name} store has a history already, in {own.location}: nothing was taken over")
    folder = _folder_of(store, Path(versions))
    journal = Journal(store, Home(folder, None, store.key))
    with journal.lock():
        _refuse_another_store(journal)
        with own.lock(), writing_to(own, "written to"):
            # Manifests last: a version without one does not count, should this be cut off.
            for name in sorted(folder.names(), key=lambda name: name.endswith(MANIFEST)):
                own.write(name, folder.read(name))
            own.delete(ELSEWHERE)
        for version in journal.versions:
            folder.delete(f"{version.name}/{MANIFEST}")
    return tuple(version.name for version in journal.versions)


def _folder_of(store: EmbeddingStore, versions: Path) -> FolderStorage:
    """The folder that holds the history: by the store's key, by its mark, or the only one that is there."""
    own = own_history(store)
    mark = None if own is None else read_json(own, ELSEWHERE)
    tried = [versions / store.key, versions]
    if mark is not None:
        tried.insert(0, Path(str(mark.get("folder"))))
    for path in tried:
        if has_versions(FolderStorage(path)) and (path != versions or _is_journal(path)):
            return FolderStorage(path)
    others = sorted(path.name for path in versions.iterdir() if _is_journal(path)) if versions.is_dir() else []
    of_name = [name for name in others if name.startswith(store.name)]
    if len(of_name) == 1:
        return FolderStorage(versions / of_name[0])
    raise JournalError(
        f"no history of this {store.name} store ({store.key}) is in {versions}; there are {', '.join(others) or 'none'}"
    )


def _is_journal(path: Path) -> bool:
    return path.is_dir() and any(re.fullmatch(NAME, part.name) for part in path.iterdir())


def _refuse_another_store(journal: Journal) -> None:
    """A history none of whose live nodes is in the store, or holds a vector that it knows, is another store's."""
    live, store = journal.live, journal.store
    if live is None:
        return
    with reading(store, "its nodes were compared with the history"):
        present = store.matching(live.ids, None)
        rows = [row for row, node_id in enumerate(live.ids) if node_id in present]
        vectors = store.read([live.ids[row] for row in rows])
    written = sum(same_vectors(store, vector, live.after[row]) for row, vector in zip(rows, vectors, strict=True))
    if not written:
        raise JournalError(
            f"{journal.storage.location} is the history of another store, or its push is no longer in this one: none of"
            f" the {len(live.ids)} nodes of version {live.name} holds what it wrote; nothing was taken over"
        )
