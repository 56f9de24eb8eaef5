"""Versions of a Chroma collection beside the one of its name, and swapping them by renaming both."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nudge_rag.stores.base import StoreError
from nudge_rag.stores.checks import check_label
from nudge_rag.stores.chroma.records import ChromaRecords, add_records, read_pages, require_same_records
from nudge_rag.stores.copies import CopyNotes, NodesOfCopy, unknown_copy
from nudge_rag.stores.late_writes import bring_noted, switch_collections

if TYPE_CHECKING:
    from chromadb import Collection

__all__ = ["ChromaCopies", "origin_of", "recovered"]

# In the metadata of a copy: the id of the collection that it goes back to, by which journals know the store.
ORIGIN = "nudge_rag:origin"
BESIDE, COPYING, SWITCHING = "beside", "copying", "switching"
COLLECTIONS_PER_CALL = 100
# Somebody who opens the collection by get_or_create_collection() between two renames makes an empty one of its name.
TRIES = 20
# A switch is between its renames for some milliseconds: one that takes so much longer has died.
SECONDS_TO_SWITCH = 2.0


class ChromaCopies:
    """Copies of the collection called ``name``: the collections ``<name>.<label>.beside``.

    Chroma has no aliases and renames one collection at a time, so a switch takes three steps: the live one becomes
    ``<name>.<label>.switching``, the other one ``name``, and the first ``<name>.<label>.beside``. After the first step,
    for some milliseconds, there is no collection ``name``. If a switch died there, `settle` undoes it; if it died
    later, `settle` completes it. A copy that is being made is ``<name>.<label>.copying``.

    Args:
        collection: a handle of the live collection. Handles follow an id, not a name, so every call first re-points
            this one at the live collection.
        name: its name, if the handle has another one.
    """

    def __init__(self, collection: Collection, name: str = "") -> None:
        self._handle, self._name = collection, name or collection.name
        self._api: Any = collection._client
        self._place = {"tenant": collection.tenant, "database": collection.database}
        self._pattern = _beside_of(self._name)

    def labels(self) -> list[str]:
        """Labels of the versions beside the live one, and of copies that were cut off, which can only be dropped."""
        found = self.settle()
        self._follow()
        return sorted({label for label, _ in found})

    def collection(self, label: str) -> Collection:
        """Return the version ``label``.

        Raises:
            ValueError: there is none.
        """
        found = self.settle()
        if (check_label(label), BESIDE) not in found:
            labels = sorted(label for label, part in found if part == BESIDE)
            raise unknown_copy(label, labels, self._name)
        return self._opened(found[label, BESIDE])

    def create(self, label: str) -> Collection:
        """Copy the live collection: ids, vectors, documents, metadata and URIs, with the configuration of its index."""
        if check_label(label) in self.labels():
            self.drop(label)
        live = self._live()
        made = self._opened(self._create(live, self._called(label, COPYING)))
        for part in read_pages(live):
            add_records(made, part)
        self._rename(made.id, self._called(label, BESIDE))
        return made

    def switch(self, label: str) -> None:
        """Swap the two.

        Raises:
            StoreError: a node's document or metadata is not the same in both.
        """
        copy, live = self.collection(label), self._live()
        require_same_records(live, copy, self._name)
        self._swap(label, live, copy)

    def catch_up_and_switch(self, label: str, records: ChromaRecords, moved: NodesOfCopy, notes: CopyNotes) -> int:
        """Bring records that were added, changed or deleted into the other collection, and swap the two names."""
        copy, live = self.collection(label), self._live()
        return switch_collections(records, live, copy, moved, notes, lambda: self._swap(label, live, copy))

    def bring_late(self, label: str, records: ChromaRecords, moved: NodesOfCopy, notes: CopyNotes) -> int | None:
        """Bring what was written to the other collection since it was live to the live one."""
        return bring_noted(records, self.collection(label), self._live(), moved.reversed(), notes)

    def _swap(self, label: str, live: Collection, copy: Collection) -> None:
        self._rename(live.id, self._called(label, SWITCHING))
        try:
            self._rename_to_live(copy, live)
            self._rename(live.id, self._called(label, BESIDE))
        except Exception:
            with contextlib.suppress(Exception):  # or the next call does
                self.labels()
            raise
        self._follow()

    def drop(self, label: str) -> None:
        """Delete the version ``label``, and a copy of that label that was cut off."""
        found = self.settle()
        self._follow()
        names = [self._called(label, part) for part in (COPYING, BESIDE) if (check_label(label), part) in found]
        if not names:
            self.collection(label)
        for name in names:
            self._api.delete_collection(name, **self._place)

    def settle(self) -> dict[tuple[str, str], Any]:
        """Undo or complete a switch that was cut off; the collections beside by label and part."""
        found = self._beside()
        for label, part in list(found):
            if part != SWITCHING:
                continue
            left = found.pop((label, SWITCHING))
            if (label, BESIDE) in found:
                self._rename_to_live(left, found[label, BESIDE])
            else:
                self._rename(left.id, self._called(label, BESIDE))
                found[label, BESIDE] = left
        return found

    def wait_for_a_switch(self) -> None:
        """If a switch is between its steps, wait for it, repair it if it has died, and follow it."""
        patience, was_switching = time.monotonic() + SECONDS_TO_SWITCH, False
        while self._is_switching():
            was_switching = True
            if time.monotonic() > patience:
                self.settle()
            time.sleep(0.01)
        model = self._named() if was_switching else None
        if model is not None:
            self._handle._model = model

    def follow(self) -> None:
        """Point the handle at the live collection, if there is one at this moment: others may have switched."""
        model = self._named()
        if model is not None and model.id != self._handle.id and origin_of(model) == origin_of(self._handle):
            self._handle._model = model

    def _live(self) -> Collection:
        """A handle of its own, whose name and id stay as they are when collections are renamed."""
        self._follow()
        return self._opened(self._handle.get_model())

    def _follow(self) -> None:
        """Point the handle that was given at the collection that has its name now, if both have one origin."""
        if self._named() is None:
            raise StoreError(f"there is no Chroma collection {self._name!r} any more")
        self.follow()

    def _rename_to_live(self, version: Any, other: Any) -> None:
        for attempt in range(TRIES):
            taker = self._named()
            if taker is not None and taker.id == version.id:
                return
            if taker is not None:
                if taker.id == other.id or self._opened(taker).count():
                    raise StoreError(self._taken(taker, version, other))
                self._api.delete_collection(self._name, **self._place)
            try:
                self._rename(version.id, self._name)
            except Exception:
                if attempt == TRIES - 1 or self._named() is None:
                    raise
            else:
                return

    def _taken(self, taker: Any, version: Any, other: Any) -> str:
        if taker.id == other.id:
            return f"{self._name!r} was switched by somebody else at the same time"
        named = [one.name for one in self._models() if one.id in (version.id, other.id)]
        # Chroma lists them in any order: the one that was live, which is called switching, comes first.
        names = " and ".join(map(repr, sorted(named, reverse=True)))
        return (
            f"a collection {self._name!r} was made anew, and nodes put into it, while it was being switched; its"
            f" versions {names} are safe: add those nodes to both, delete the new collection, and open the store again"
        )

    def _create(self, live: Collection, name: str) -> Any:
        metadata = {**(live.metadata or {}), ORIGIN: origin_of(live)}
        return self._api.create_collection(name, metadata=metadata, **_settings(live), **self._place)

    def _rename(self, collection_id: Any, name: str) -> None:
        self._api._modify(id=collection_id, new_name=name, **self._place)

    def _called(self, label: str, part: str) -> str:
        return f"{self._name}.{label}.{part}"

    def _opened(self, model: Any) -> Collection:
        from chromadb import Collection

        return Collection(client=self._api, model=model, embedding_function=None)

    def _is_switching(self) -> bool:
        return any(part == SWITCHING for _, part in self._beside())

    def _beside(self) -> dict[tuple[str, str], Any]:
        matches = ((self._pattern.fullmatch(model.name), model) for model in self._models())
        return {(match[1], match[2]): model for match, model in matches if match}

    def _named(self) -> Any:
        from chromadb.errors import NotFoundError

        try:
            return self._api.get_collection(self._name, **self._place)
        except NotFoundError:
            return None

    def _models(self) -> Iterator[Any]:
        return _every_collection(self._api, **self._place)


def origin_of(collection: Any) -> str:
    """Id of the collection that this one, or its model, is a copy of; its own if it is none."""
    return str((collection.metadata or {}).get(ORIGIN) or collection.id)


def recovered(client: Any, name: str) -> Collection:
    """The collection of that name; while it is being switched, waits, and undoes a switch that died there.

    Raises:
        chromadb.errors.NotFoundError: there is none.
    """
    from chromadb.errors import NotFoundError

    try:
        found: Collection = client.get_collection(name, embedding_function=None)
    except NotFoundError:
        beside = _any_beside(client, name)
        if beside is None:
            raise
        ChromaCopies(beside, name).wait_for_a_switch()
        found = client.get_collection(name, embedding_function=None)
    return found


def _beside_of(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(name) + rf"\.([A-Za-z0-9_]{{1,24}})\.({BESIDE}|{COPYING}|{SWITCHING})")


def _any_beside(client: Any, name: str) -> Collection | None:
    pattern = _beside_of(name)
    return next((one for one in _every_collection(client) if pattern.fullmatch(one.name)), None)


def _every_collection(client: Any, **place: str) -> Iterator[Any]:
    offset = 0
    while True:
        page = client.list_collections(limit=COLLECTIONS_PER_CALL, offset=offset, **place)
        yield from page
        if len(page) < COLLECTIONS_PER_CALL:
            return
        offset += len(page)


def _settings(live: Collection) -> dict[str, Any]:
    """What the copy is made with; Chroma takes no schema beside settings of the index in the metadata."""
    if not any(name.startswith("hnsw:") for name in live.metadata or {}):
        return {"schema": live.schema}
    configuration = {name: value for name, value in live.configuration.items() if value is not None}
    return {"configuration": configuration}
