"""Mend a history that makes calls fail, and report the findings."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from nudge_rag.common.archive import MANIFEST
from nudge_rag.errors import CorruptArchiveError, JournalError, LostHistoryError
from nudge_rag.journal.away import BLOB
from nudge_rag.journal.ingested import FOLDER
from nudge_rag.journal.journal import Journal, LostVersionError
from nudge_rag.journal.ownership import Home, find_home, has_versions, own_history
from nudge_rag.journal.recovery import recover
from nudge_rag.journal.store_record import ELSEWHERE, STORE, read_json, write_json
from nudge_rag.journal.versions import writing_to
from nudge_rag.stores.access import reading
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.stores.history import BlobStorage
from nudge_rag.stores.storages import FolderStorage

__all__ = ["RepairReport", "repair"]

SET_ASIDE = "damaged"


@dataclass(frozen=True)
class RepairReport:
    """The result of a repair; it prints one finding a line.

    Attributes:
        found: a sentence on each fault and how it was mended.
        set_aside: names of versions whose records are damaged; their readable parts are kept under ``damaged/``.
    """

    found: tuple[str, ...]
    set_aside: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join(self.found) or "nothing was to be repaired"


def repair(store: EmbeddingStore, versions: str | Path | None = None) -> RepairReport:
    """Finish or undo pushes that died, and set aside records that are damaged, so that every other call works again.

    Args:
        store: the vector store.
        versions: the folder of the history; None for the store's own.

    Raises:
        PushError: the store failed; a later call starts again.
        LockedError: a push or rollback is under way.
        JournalError: the history is elsewhere, or cannot be written to.

    Example:
        >>> import tempfile
        >>> from nudge_rag.stores.memory.mapping import MappingStore
        >>> print(repair(MappingStore({"a": [1.0, 0.0]}), tempfile.mkdtemp()))
        nothing was to be repaired
    """
    told: list[str] = _mend_marks(store, versions)
    home = find_home(store, versions)
    aside: list[str] = []
    with ExitStack() as stack:
        with writing_to(home.storage, "locked"):
            stack.enter_context(home.storage.lock())
        if _is_damaged(home.storage, STORE):
            _set_aside(home.storage, STORE)
            told.append(f"{STORE}: it is damaged and set aside; the store gets another identity with the next push")
        while True:
            try:
                name, why = _damaged(store, home)
            except LostVersionError as error:
                told.append(f"{error}; it is forgotten now, and what it alone had saved cannot be restored")
                home.note_newest(None)
                continue
            if name is None:
                break
            if name == home.newest():
                home.note_newest(None)
            _set_aside(home.storage, name)
            aside.append(name)
            told.append(f"{name}: {why}; it is set aside, and what it alone had saved cannot be restored")
        try:
            journal = Journal.open(store, versions)
        except LostHistoryError as error:
            # No record is left of what nodes hold. If nothing was to be mended, that is what every call says.
            if not told:
                raise
            return RepairReport((*told, str(error)), tuple(aside))
        told += recover(journal)
        journal.mark()
    return RepairReport(tuple(told), tuple(aside))


def _mend_marks(store: EmbeddingStore, versions: str | Path | None) -> list[str]:
    """Set a damaged mark of a folder aside if the history is known without it; without a mark, no history is found.

    Raises:
        JournalError: only the mark could tell where the history is.
    """
    with reading(store, "its journal was looked for"):
        own, key = own_history(store), store.key
    if own is None:
        return []
    told, folder = [], None if versions is None else FolderStorage(Path(versions) / key)
    if _is_damaged(own, ELSEWHERE):
        if folder is None and not has_versions(own):
            raise JournalError(
                f"the mark in this {store.name} store is damaged, which named the folder of its history: pass that"
                " folder as versions=, or an empty one if it is gone; nothing was changed"
            )
        _set_aside(own, ELSEWHERE)
        told.append(f"{ELSEWHERE}: it is damaged and set aside; the history is {(folder or own).location}")
    mark = read_json(own, ELSEWHERE)
    if mark is not None and folder is not None and _is_damaged(folder, STORE):
        _set_aside(folder, STORE)
        # As the mark tells of it.
        described = {"identity": mark.get("identity"), "name": store.name, "key": key, "turns": [mark.get("turn")]}
        write_json(folder, STORE, described)
        told.append(f"{STORE} in {folder.location}: it was damaged, and is written anew")
    return told


def _is_damaged(storage: BlobStorage, name: str) -> bool:
    """Whether there is a blob of that name, or something else in its place, that is not ours."""
    try:
        if read_json(storage, name) is not None:
            return False
    except CorruptArchiveError:
        return True
    with writing_to(storage, "read"):
        return any(blob == name or blob.startswith(f"{name}/") for blob in storage.names(name))


def _damaged(store: EmbeddingStore, home: Home) -> tuple[str | None, str]:
    """Name of a record that cannot be read, and why."""
    journal = Journal(store, home)
    for name in journal.numbers():
        try:
            journal.read_version(name)
        except CorruptArchiveError as error:
            return name, str(error)
    try:
        journal.refresh()
    except LostVersionError:
        raise
    except CorruptArchiveError as error:
        return BLOB, str(error)
    try:
        journal.ingested.check()
    except CorruptArchiveError as error:
        return FOLDER, str(error)
    for version in journal.versions:
        try:
            version.check()
        except (CorruptArchiveError, JournalError) as error:
            return version.name, str(error)
    return None, ""


def _set_aside(storage: BlobStorage, name: str) -> None:
    """Move the readable parts of a record, and remove the rest."""
    with writing_to(storage, "written to"):
        blobs = [blob for blob in storage.names() if blob == name or blob.startswith(f"{name}/")]
        for blob in sorted(blobs, key=lambda blob: not blob.endswith(MANIFEST)):
            try:
                content = storage.read(blob)
            except (KeyError, CorruptArchiveError):
                content = b""
            if content:
                storage.write(f"{SET_ASIDE}/{blob}", content)
            storage.delete(blob)
