"""Mend a history that makes calls fail, and report the findings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nudge_rag.common.archive import MANIFEST
from nudge_rag.errors import CorruptArchiveError, JournalError
from nudge_rag.journal.away import BLOB
from nudge_rag.journal.ingested import FOLDER
from nudge_rag.journal.journal import Journal
from nudge_rag.journal.ownership import find_home
from nudge_rag.journal.recovery import recover
from nudge_rag.journal.versions import writing_to
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.stores.history import BlobStorage

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
    home = find_home(store, versions)
    told: list[str] = []
    aside: list[str] = []
    with writing_to(home.storage, "locked"):
        lock = home.storage.lock()
    with lock:
        while True:
            name, why = _damaged(store, versions)
            if name is None:
                break
            _set_aside(home.storage, name)
            aside.append(name)
            told.append(f"{name}: {why}; it is set aside, and what it alone had saved cannot be restored")
        journal = Journal.open(store, versions)
        told += recover(journal)
        journal.mark()
    return RepairReport(tuple(told), tuple(aside))


def _damaged(store: EmbeddingStore, versions: str | Path | None) -> tuple[str | None, str]:
    """Name of a record that cannot be read, and why."""
    journal = Journal(store, find_home(store, versions))
    for name in journal.numbers():
        try:
            journal.read_version(name)
        except CorruptArchiveError as error:
            return name, str(error)
    try:
        journal.refresh()
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
