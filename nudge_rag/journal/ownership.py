"""Which history belongs to a store: its own, or that of a folder, of which the store carries a mark."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from nudge_rag.common.archive import MANIFEST, parse_manifest
from nudge_rag.errors import CorruptArchiveError, JournalError
from nudge_rag.journal.away import BLOB as AWAY
from nudge_rag.journal.manifest import NAME, ROLLED_BACK, SUPERSEDED
from nudge_rag.journal.origins import refuse_left_behind, refuse_pushed_in_memory
from nudge_rag.journal.stamping import refuse_lost_history
from nudge_rag.journal.store_record import ELSEWHERE, NEWEST, ORIGIN, PUSHES, STORE, read_json, write_json
from nudge_rag.journal.versions import Version, writing_to
from nudge_rag.journal.witnesses import count_in, refuse_emptied, refuse_older, release
from nudge_rag.stores.access import reading, require_store
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.stores.history import BlobStorage, CountedStorage, PlacedStorage
from nudge_rag.stores.storages import FolderStorage

__all__ = ["DEFAULT_VERSIONS", "Home", "find_home", "has_records", "has_versions", "own_history"]

# The default folder for the history of stores that cannot hold their own.
DEFAULT_VERSIONS = "nudge-versions"


@dataclass
class Home:
    """The place of a store's history.

    Attributes:
        storage: of the history.
        own: the storage in the store itself, or None if it offers none.
        name: of the store, for messages.
    """

    storage: BlobStorage
    own: BlobStorage | None
    name: str

    @property
    def is_own(self) -> bool:
        """Whether the history is in the store itself."""
        return self.storage is self.own

    def identity(self) -> str | None:
        """The store's identity, the same at every address; made at its first push."""
        described = read_json(self.storage, STORE)
        return None if described is None else str(described.get("identity"))

    def settle(self, store: EmbeddingStore) -> Mapping[str, Any]:
        """Give the store an identity before its first push is recorded, and leave the mark of a folder in it.

        Returns:
            The record of the store, as it is written.
        """
        described = read_json(self.storage, STORE)
        origin = _origin_by_place(self.storage, described)
        if described is None or origin is not None:
            described = self.describe(store, origin, None if described is None else described.get("identity"))
        if self.own is not None and not self.is_own and read_json(self.own, ELSEWHERE) is None:
            self.mark()
            described = read_json(self.storage, STORE) or described
        return described

    def newest(self) -> str | None:
        """Name of the version that was recorded last, as noted beside it: if its record is not there, it was lost."""
        try:
            name = (read_json(self.storage, STORE) or {}).get(NEWEST)
        except CorruptArchiveError:  # `repair` sets it aside
            return None
        return name if isinstance(name, str) and re.fullmatch(NAME, name) else None

    def note_newest(self, name: str | None, described: Mapping[str, Any] | None = None) -> None:
        """Note the name of the version that was recorded last, before its vectors are written.

        Args:
            name: of the version.
            described: the record of the store, if the caller has read it since it took the lock.
        """
        described = read_json(self.storage, STORE) if described is None else described
        if described is None or described.get(NEWEST) == name:
            return
        kept = {field: value for field, value in described.items() if field != NEWEST}
        if name is None:
            write_json(self.storage, STORE, kept)
            return
        own = self.own if self.is_own and isinstance(self.own, CountedStorage) else None
        if own is not None:
            kept[PUSHES] = max(own.n_counted(), count_in(described) or 0) + 1
        write_json(self.storage, STORE, kept | {NEWEST: name})
        if own is not None:
            with writing_to(self.storage, "written to"):
                own.count(kept[PUSHES])

    def describe(self, store: EmbeddingStore, origin: str | None = None, identity: Any = None) -> dict[str, Any]:
        """Give the store an identity of its own; of a copy, note what it was copied from.

        Args:
            store: the store.
            origin: the place of the store that it was copied from, if it was.
            identity: that of the origin.

        Returns:
            The record of the store, as it is written.
        """
        created = datetime.now(UTC).isoformat(timespec="seconds")
        described: dict[str, Any] = {"identity": uuid4().hex, "name": store.name, "key": store.key, "created": created}
        if origin is not None:
            described[ORIGIN] = {"place": origin, "identity": identity}
        place = _place_of(self.storage)
        write_json(self.storage, STORE, described | place)
        # Of some histories nothing is there before the first write, and so no place.
        written, place = place, _place_of(self.storage)
        if place != written:
            write_json(self.storage, STORE, described | place)
        return described | place

    def origin(self, version: Version | None) -> str | None:
        """The store that ``version`` was pushed to, if this one is a copy of that; None if it was this one."""
        described = read_json(self.storage, STORE)
        if version is None or described is None:
            return None
        origin = _origin_by_place(self.storage, described)
        if origin is not None:
            return origin
        noted, pushed_to = described.get(ORIGIN), version.manifest["store"].get("identity")
        if not isinstance(noted, dict) or pushed_to == described.get("identity"):
            return None
        return str(noted.get("place"))

    def mark(self) -> None:
        """Leave the name of the folder in the store, unless its history is there, or nowhere else can be marked."""
        if self.own is None or self.is_own or not isinstance(self.storage, FolderStorage):
            return
        turn = uuid4().hex
        described = read_json(self.storage, STORE) or {}
        turns = [*described.get("turns", []), turn][-2:]
        write_json(self.storage, STORE, described | {"turns": turns})
        place = {"folder": str(self.storage.path.resolve()), "identity": described.get("identity"), "turn": turn}
        write_json(self.own, ELSEWHERE, place)

    def unmark(self) -> None:
        """Take the mark away: nothing in the folder is needed any more."""
        if self.own is not None and not self.is_own:
            with writing_to(self.own, "written to"):
                is_marked = ELSEWHERE in self.own.names()
                if is_marked:
                    release(self.own)
                    self.own.delete(ELSEWHERE)
            described = read_json(self.storage, STORE)
            if is_marked and described is not None:
                # A copy of the store that still has the mark is another one: nothing of this folder is undone there.
                write_json(self.storage, STORE, described | {"turns": []})


def find_home(store: EmbeddingStore, versions: str | Path | None) -> Home:
    """Find the place of the history of ``store``.

    Raises:
        JournalError: there is one elsewhere; names it.
        TypeError: no store.
        ValueError: a store whose key would lead out of the folder.
        StoreError: the store failed when it was asked for the place.
    """
    require_store(store)
    with reading(store, "its journal was looked for"):
        key = store.key
        own = own_history(store)
    if not key or key in (".", "..") or any(sign in key for sign in "/\\\0"):
        raise ValueError(f"the key of a store is to be fit for the name of a folder, got {key!r}")
    names, mark = ([], None) if own is None else _look_into(own)
    if own is not None:
        refuse_pushed_in_memory(store, own)
    if versions is None:
        if own is None:
            return Home(FolderStorage(Path(DEFAULT_VERSIONS) / key), None, key)
        if mark is not None:
            place = Path(str(mark.get("folder")))
            raise JournalError(
                f"the history of this {store.name} store is in the folder {place}: pass versions={str(place.parent)!r},"
                " or move it into the store with nudge_rag.take_over(store, versions)"
            )
        _refuse_forgotten(store, own, key)
        if not _have_records(names):
            refuse_left_behind(store, own)
            # Asked anew: since then another process may have made the first push.
            if not has_records(own):
                refuse_emptied(store, own)
                refuse_lost_history(store)
        refuse_older(store, own)
        return Home(own, own, key)
    folder = FolderStorage(Path(versions) / key)
    if own is not None and mark is not None:
        return Home(_marked_folder(store, folder, mark), own, key)
    if own is not None and _have_versions(names):
        raise JournalError(
            f"this {store.name} store holds its history itself, in {own.location}: leave versions= out (it was"
            f" {str(versions)!r})"
        )
    if own is not None and not has_records(folder):
        refuse_emptied(store, own)
        refuse_lost_history(store)
    return Home(folder, own, key)


def marked_versions(store: EmbeddingStore) -> Path | None:
    """Return the folder of versions that the store's mark names; None if its history is its own.

    Raises:
        JournalError: the mark cannot be read.
    """
    own = own_history(store)
    mark = None if own is None else read_json(own, ELSEWHERE)
    return None if mark is None else Path(str(mark.get("folder"))).parent


def own_history(store: EmbeddingStore) -> BlobStorage | None:
    """The storage that a store offers, if it does."""
    require_store(store)
    offer = getattr(store, "history", None)
    return offer() if callable(offer) else None


def has_versions(storage: BlobStorage) -> bool:
    """Whether any push is recorded there."""
    return _have_versions(_names_in(storage))


def has_records(storage: BlobStorage) -> bool:
    """Whether any push is recorded there, or nodes that were away when the last one was undone."""
    return _have_records(_names_in(storage))


def _look_into(own: BlobStorage) -> tuple[list[str], dict[str, Any] | None]:
    """The names of all that a store's own storage holds, and the mark of a folder, if there is one.

    Names are asked for once: each question to a database takes milliseconds.
    """
    names = _names_in(own)
    mark = read_json(own, ELSEWHERE) if ELSEWHERE in names else None
    if mark is None and ELSEWHERE in names:
        # It was taken away in between, as by `take_over`, which has brought the history into the store before.
        names = _names_in(own)
    return names, mark


def _names_in(storage: BlobStorage) -> list[str]:
    with writing_to(storage, "read"):
        return storage.names()


def _have_records(names: list[str]) -> bool:
    return AWAY in names or _have_versions(names)


def _have_versions(names: list[str]) -> bool:
    return any(re.fullmatch(rf"{NAME}/{re.escape(MANIFEST)}", name) for name in names)


def _marked_folder(store: EmbeddingStore, given: FolderStorage, mark: Mapping[str, Any]) -> FolderStorage:
    """The folder that a mark means, which may have been moved since, or have been reached by another address."""
    marked = Path(str(mark.get("folder")))
    for folder in (given, FolderStorage(given.path.parent / marked.name)):
        described = read_json(folder, STORE)
        if described is None or described.get("identity") != mark.get("identity"):
            continue
        if mark.get("turn") not in described.get("turns", []):
            raise JournalError(
                f"{folder.location} has gone on with another copy of this {store.name} store, or was restored from an"
                " older backup: what it records is not what is in this one; nudge_rag.take_over(store,"
                f" {str(folder.path.parent)!r}) brings the originals that it still has into this store, and leaves the"
                " folder to the other"
            )
        return folder
    raise JournalError(
        f"the history of this {store.name} store is in the folder {marked}, not in {given.path}: pass"
        f" versions={str(marked.parent)!r}, or see nudge_rag.take_over if it is lost"
    )


def _place_of(storage: BlobStorage) -> dict[str, Any]:
    """The file or folder of a storage, as recorded: its path, and numbers that stay if it is moved, not if copied."""
    place = storage.place() if isinstance(storage, PlacedStorage) else None
    if place is None:
        return {}
    found = place.stat()
    return {"place": {"path": str(place.resolve()), "device": found.st_dev, "number": found.st_ino}}


def _origin_by_place(storage: BlobStorage, described: Mapping[str, Any] | None) -> str | None:
    """The place that a history was copied from: it is elsewhere by now, and what is recorded is still where it was."""
    noted, here = (described or {}).get("place"), _place_of(storage).get("place")
    if not isinstance(noted, dict) or here is None or noted == here or not isinstance(noted.get("path"), str):
        return None
    numbers = noted.get("device"), noted.get("number")
    if numbers == (here["device"], here["number"]):
        return None
    try:
        there = Path(noted["path"]).stat()
    except (OSError, ValueError):
        return None  # it was moved, or brought from another machine
    return noted["path"] if (there.st_dev, there.st_ino) == numbers else None


def _refuse_forgotten(store: EmbeddingStore, own: BlobStorage, key: str) -> None:
    """Refuse if the folder that was the default once records a push that was not undone."""
    folder = FolderStorage(Path(DEFAULT_VERSIONS) / key)
    if not folder.path.is_dir() or has_versions(own):
        return
    for name in folder.names():
        if re.fullmatch(rf"{NAME}/{re.escape(MANIFEST)}", name):
            state = parse_manifest(f"{folder.path}/{name}", folder.read(name)).get("state")
            if state not in (ROLLED_BACK, SUPERSEDED):
                raise JournalError(
                    f"the folder {folder.path} records pushes to this {store.name} store: pass"
                    f" versions={DEFAULT_VERSIONS!r}, or move them into the store with"
                    f" nudge_rag.take_over(store, {DEFAULT_VERSIONS!r})"
                )
