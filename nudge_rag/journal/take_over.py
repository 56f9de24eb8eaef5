"""Bring the history of a store to it: from a folder, or from the store that it was copied from."""

from __future__ import annotations

import re
from pathlib import Path

from nudge_rag.common.archive import MANIFEST
from nudge_rag.errors import JournalError
from nudge_rag.journal.copied_history import (
    copy_from_file,
    copy_from_origin,
    copy_what_is_here,
    forget_mark,
    is_held,
    write_one,
)
from nudge_rag.journal.journal import Journal
from nudge_rag.journal.manifest import NAME
from nudge_rag.journal.origins import LeftBehind, find_left_behind, holds_anything
from nudge_rag.journal.ownership import DEFAULT_VERSIONS, Home, has_records, has_versions, own_history
from nudge_rag.journal.stamping import refuse_lost_history, stamps_in
from nudge_rag.journal.store_record import ELSEWHERE, STORE, read_json
from nudge_rag.journal.versions import writing_to
from nudge_rag.journal.witnesses import accept_older, is_emptied, is_older, refuse_older, release
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.stores.history import BlobStorage, NeighboringStorage
from nudge_rag.stores.memory.files import SUFFIX
from nudge_rag.stores.stamps import StampedStore
from nudge_rag.stores.storages import FolderStorage

__all__ = ["take_over"]


def take_over(
    store: EmbeddingStore, versions: str | Path | EmbeddingStore = DEFAULT_VERSIONS, *, force: bool = False
) -> tuple[str, ...]:
    """Bring the history of ``store`` into the store, whose own it is from then on.

    A folder's history is moved. From the store that this one was copied from, from its folder ``NAME.nudge-rag``, or
    from a folder that has gone on with another copy, the one version that this store holds is copied, with its
    originals: the other keeps what it has. So is the version of a table or collection in the same database that this
    store was made of, which may be gone.

    Args:
        store: the vector store.
        versions: the folder that pushes were given, or the one inside it that is of this store; or the store that this
            one was copied from. By default the folder ``nudge-versions``, or else what the store has left behind in
            its database.
        force: if a folder has gone on and explains only some of the vectors of the nodes that it moved, or none, if it
            is lost, or older than what the store holds, let the rest be their nodes' own; otherwise that is an error.

    Returns:
        The names of the versions that were taken over.

    Raises:
        ValueError: the store cannot hold a history.
        JournalError: there is none to take over, it is another store's, or the store has one already.
        LockedError: a push or rollback is under way.
    """
    own = own_history(store)
    if own is None:
        raise ValueError(f"this {store.name} store cannot hold its own history: go on with versions={str(versions)!r}")
    if force and _accept_older(own):
        return ()
    if has_versions(own):
        if force and _let_go_of_unrecorded(store, own):
            return ()
        if isinstance(store, StampedStore):
            Journal(store, Home(own, own, store.key)).read()
        refuse_older(store, own)
        raise JournalError(f"this {store.name} store has a history already, in {own.location}: nothing was taken over")
    if not isinstance(versions, str | Path):
        return copy_from_origin(store, own, versions)
    left = _left_behind(store, own, Path(versions))
    if left is not None:
        identity = Home(left.live.storage, left.live.storage, store.key).identity()
        write_one(store, own, left.live, identity, left.live.storage.location)
        return (left.live.name,)
    try:
        folder = _folder_of(store, Path(versions))
    except JournalError:
        if not _start_anew(store, own, Path(versions), force=force):
            raise
        return ()
    taken = _take_from_folder(store, own, folder, force=force)
    if force:
        _let_go_of_unrecorded(store, own)
    return taken


def _start_anew(store: EmbeddingStore, own: BlobStorage, versions: Path, *, force: bool) -> bool:
    """Let the vectors be their nodes' own if the history is known to be lost; False if it is not, or without force.

    Raises:
        JournalError: it is lost, and nobody has named a folder: says where it was.
    """
    is_marked = read_json(own, ELSEWHERE) is not None
    is_stamped = isinstance(store, StampedStore) and bool(store.find_stamped().nodes)
    is_gone = is_emptied(own)
    if not force and is_stamped and versions == Path(DEFAULT_VERSIONS):
        refuse_lost_history(store)
    if not force or not (is_marked or is_stamped or is_gone):
        return False
    if is_marked:
        forget_mark(own)
    if is_gone:
        with own.lock():
            release(own)
    if isinstance(store, StampedStore):
        store.drop_stamps()
    home = Home(own, own, store.key)
    if home.newest() is not None:  # its record is gone with all others
        home.note_newest(None)
    return True


def _take_from_folder(
    store: EmbeddingStore, own: BlobStorage, folder: FolderStorage, *, force: bool
) -> tuple[str, ...]:
    """Move the history of a folder into the store; or copy the one version that it holds, if others need the folder."""
    journal = Journal(store, Home(folder, None, store.key))
    stamps = stamps_in(store)
    with journal.lock():
        if not force:
            journal.refuse_older(stamps)
        if _has_gone_on(own, folder):
            return copy_what_is_here(store, own, journal, force=force)
        if _is_of_another_file(folder):
            return copy_from_file(store, own, journal, force=force)
        _refuse_another_store(journal)
        with own.lock(), writing_to(own, "written to"):
            # Manifests last: a version without one does not count, should this be cut off.
            for name in sorted(folder.names(), key=lambda name: name.endswith(MANIFEST)):
                own.write(name, folder.read(name))
            own.delete(ELSEWHERE)
        for version in journal.versions:
            folder.delete(f"{version.name}/{MANIFEST}")
    return tuple(version.name for version in journal.versions)


def _accept_older(own: BlobStorage) -> bool:
    """Let an older history go on, if the nodes' table tells that it is one; whether it does."""
    if not is_older(own):
        return False
    with own.lock():
        return accept_older(own)


def _let_go_of_unrecorded(store: EmbeddingStore, own: BlobStorage) -> bool:
    """Forget the stamps of nodes that hold what a push wrote of which no record came along; whether there were any."""
    if not isinstance(store, StampedStore):
        return False
    journal = Journal(store, Home(own, own, store.key))
    if not has_records(own):
        is_stamped = bool(store.find_stamped().nodes)
        if is_stamped:
            store.drop_stamps()
        return is_stamped
    with journal.lock():
        unrecorded = journal.find_unrecorded()
        if unrecorded:
            store.drop_stamps(unrecorded)
    return bool(unrecorded)


def _left_behind(store: EmbeddingStore, own: BlobStorage, versions: Path) -> LeftBehind | None:
    """What the store left behind in its database, unless a folder is given or the store has the mark of one."""
    if versions != Path(DEFAULT_VERSIONS) or not isinstance(own, NeighboringStorage) or holds_anything(own):
        return None
    return find_left_behind(store, own)


def _has_gone_on(own: BlobStorage, folder: FolderStorage) -> bool:
    """Whether the store has the mark of a folder that has gone on with another copy."""
    mark, described = read_json(own, ELSEWHERE), read_json(folder, STORE)
    if mark is None or described is None or mark.get("identity") != described.get("identity"):
        return False
    return mark.get("turn") not in described.get("turns", [])


def _is_of_another_file(folder: FolderStorage) -> bool:
    """Whether the folder lies beside the file that it belongs to, which needs it."""
    return folder.path.suffix == SUFFIX and folder.path.with_suffix("").is_file()


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
    lost = (
        ""
        if mark is None
        else (
            f". The store has the mark of {mark.get('folder')}: if that is lost, embed the nodes that it moved again,"
            " then call nudge_rag.take_over(store, force=True), which takes the vectors that are there for their own"
        )
    )
    raise JournalError(
        f"no history of this {store.name} store ({store.key}) is in {versions}; there are"
        f" {', '.join(others) or 'none'}{lost}"
    )


def _is_journal(path: Path) -> bool:
    return path.is_dir() and any(re.fullmatch(NAME, part.name) for part in path.iterdir())


def _refuse_another_store(journal: Journal) -> None:
    """A history none of whose live nodes is in the store, or holds a vector that it knows, is another store's."""
    live = journal.live
    if live is not None and not is_held(journal.store, live, moved=False):
        raise JournalError(
            f"{journal.storage.location} is the history of another store, or its push is no longer in this one: none of"
            f" the {len(live.ids)} nodes of version {live.name} holds what it wrote; nothing was taken over"
        )
