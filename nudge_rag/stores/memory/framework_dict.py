"""Stores over a framework's object in memory; a copy is another object of its kind."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nudge_rag.common import files
from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.files import FileState, file_state
from nudge_rag.errors import StoreError
from nudge_rag.stores.access import same_rows
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.stores.checks import check_label
from nudge_rag.stores.copies import CopyNotes, NodesOfCopy
from nudge_rag.stores.history import BlobStorage
from nudge_rag.stores.keys import path_key
from nudge_rag.stores.memory.copies import Copies, versions_of
from nudge_rag.stores.memory.files import (
    file_guard,
    file_of,
    history_of,
    merge_changes,
    save_over,
    until_unchanged,
)
from nudge_rag.stores.memory.framework_object import FrameworkObject
from nudge_rag.stores.memory.mapping import MappingStore, Vectors
from nudge_rag.stores.stamps import Stamps

__all__ = ["FrameworkDictStore"]


class FrameworkDictStore(FrameworkObject, MappingStore):
    """A `MappingStore` over an object that keeps everything that is searched in one dictionary, in one attribute.

    A switch assigns that attribute, once: a search that runs has taken one dictionary or the other.

    Args:
        vector_store: the framework's object.
        name: the store's name.
        persist_path: the file that changes are written through to.
        key: of the store, if it has no file.
    """

    def __init__(self, vector_store: Any, name: str, persist_path: str | Path | None, key: str) -> None:
        self.vector_store = vector_store
        path = file_of(vector_store, persist_path)
        self._path = path
        self._state: FileState | None = None
        self._base: dict[str, Any] | None = None
        self._held_first = frozenset[str]() if path is None else frozenset(self._contents())
        super().__init__(
            {},
            name=name,
            key=key if path is None else path_key(name, path),
            save=None if path is None else self._save_file,
        )
        self._capabilities = replace(self._capabilities, side_by_side=True, atomic_switch=True)
        self._copies: Copies[Any] = versions_of(vector_store, path, self._persist, self._loaded)

    def history(self) -> BlobStorage:
        """The store's history: a folder next to the file, or in this process with the framework's object."""
        return history_of(self._path, self.vector_store)

    def stamp_nudges(self, ids: Sequence[str], vectors: FloatArray, history: str, push: str) -> None:
        """Note that nodes hold a nudge if they hold these vectors; the next write keeps that in the file."""
        with file_guard(self._path):
            self._look()
            self._known_stamps().add(ids, vectors, history, push)

    def all_stamps(self) -> Stamps:
        """Return the stamps of all nodes, whatever these hold by now."""
        self._look()
        return self._stamps(self.vector_store) | self._known_stamps()

    def find_stamped(self) -> Stamps:
        """Return the stamps of nodes that still hold the vector of theirs."""
        return self.all_stamps().held(self._mapping())

    def find_outdated(self) -> set[str]:
        """Return ids of nodes that hold another vector in the file, which memory is too old to take over."""
        with file_guard(self._path):
            try:
                self._catch_up()
            except StoreError:
                return set() if self._path is None else self._differing_from(self._path)
        return set()

    def _differing_from(self, path: Path) -> set[str]:
        try:
            stored, _ = self._read_file(path)
        except StoreError:  # what it holds cannot be told
            return set()
        theirs, held = self._vectors_of(stored), list(self._mapping().items())
        return {name for name, vector in held if name in theirs and not np.array_equal(theirs[name], vector)}

    def drop_stamps(self, ids: Collection[str] | None = None) -> None:
        """Forget the stamps of these nodes, or of all, in the file too.

        Raises:
            StoreError: the file cannot be read.
        """

        def drop() -> None:
            self._catch_up()
            self._note(Stamps() if ids is None else self.all_stamps().without(ids))
            self._save_file()

        with file_guard(self._path):
            until_unchanged(drop)

    def _known_stamps(self) -> Stamps:
        """Those that the object had when it was first asked for them, and what was noted since."""
        known = Stamps.kept_for(self.vector_store)
        if known is None:
            # Of nodes that are gone, or hold something else, none are carried along for ever.
            known = self._stamps(self.vector_store).held(self._mapping())
            known.keep_for(self.vector_store)
        return known

    def _note(self, stamps: Stamps) -> None:
        stamps.keep_for(self.vector_store)
        if self._stamps(self.vector_store).nodes:  # as it was loaded from a file with stamps
            self._put_stamps(self.vector_store, stamps)

    def create_copy(self, label: str) -> EmbeddingStore:
        """Copy the vectors of all nodes to a version ``label``."""
        with file_guard(self._path):
            self._catch_up()
            self._copies.put(check_label(label), self._object_with(self._holding({})))
        return self.open_copy(label)

    def open_copy(self, label: str) -> EmbeddingStore:
        """Return the adapter of the version ``label``.

        Raises:
            ValueError: there is none.
        """
        held, path = self._copies.get(label), self._copies.path(label)
        copy: FrameworkDictStore = type(self)(held, persist_path=path)  # type: ignore[call-arg]
        copy._capabilities = replace(copy.capabilities, side_by_side=False, atomic_switch=False)
        return copy

    def copy_labels(self) -> list[str]:
        """Labels of the versions beside the live one."""
        return self._copies.labels()

    def switch(self, label: str) -> None:
        """Swap the vectors of the live version and of the one at ``label``; texts and metadata stay.

        Nodes that only the live version has stay in it, with the vectors that they have.
        """

        def switch() -> None:
            self._catch_up()
            self._switch(label, dict(self._vectors_of(self._copies.get(label))))

        with file_guard(self._path):
            until_unchanged(switch)

    def catch_up_and_switch(self, label: str, moved: NodesOfCopy, notes: CopyNotes) -> int:
        """Give the copy ``label`` what was written since, and swap the two; gives the number of nodes caught up."""
        with file_guard(self._path):
            return until_unchanged(lambda: self._switch_caught_up(label, moved))

    def _switch_caught_up(self, label: str, moved: NodesOfCopy) -> int:
        self._catch_up()
        copied = dict(self._vectors_of(self._copies.get(label)))
        live = {name: np.array(vector) for name, vector in list(self._mapping().items())}
        names = list(live)
        same = partial(same_rows, self)
        vectors = self._matrix(list(live.values()))
        beside = np.full_like(vectors, np.nan)
        there = [row for row, name in enumerate(names) if name in copied]
        if there:
            beside[there] = self._matrix([copied[names[row]] for row in there])
        wanted = moved.wanted(names, vectors, same, beside)
        stale = [
            name
            for name, vector in zip(names, wanted, strict=True)
            if name not in copied or not np.array_equal(copied[name], vector)
        ]
        self._switch(label, dict(zip(names, wanted.tolist(), strict=True)))
        return len(stale) + len(copied.keys() - live.keys())

    def _switch(self, label: str, vectors: Mapping[str, list[float]]) -> None:
        outgoing = self._object_with(self._contents())
        self._copies.prepare(label, self._object_with(self._holding(vectors)), outgoing)
        state = self._copies.make_live(label, self._state)
        before = self._contents()
        known = dict(before)
        after = self._holding(vectors)
        self._assign(after)
        # What another thread has done to the dictionary of before just now.
        for node_id in list(before):
            if node_id not in after or before[node_id] is not known.get(node_id):
                after[node_id] = before[node_id]
        for node_id in known.keys() - before.keys():
            after.pop(node_id, None)
        self._copies.settle(label, outgoing)
        if state is not None:
            self._remember(state)
        self._note(self._known_stamps().held(self._mapping()))

    def drop_copy(self, label: str) -> None:
        """Remove the version ``label``.

        Raises:
            ValueError: there is none.
        """
        self._copies.drop(label)

    def _write(self, names: list[str], rows: FloatArray) -> None:
        """Read the changes of other processes from the file, then overwrite vectors in memory and in the file."""

        def write() -> None:
            self._catch_up()
            super(FrameworkDictStore, self)._write(names, rows)

        with file_guard(self._path):
            until_unchanged(write)

    def _write_if(self, names: list[str], expected: FloatArray, rows: FloatArray) -> list[str]:
        """Compare with the vectors that are in the file by now, and set."""

        def write_if() -> list[str]:
            self._catch_up()
            return super(FrameworkDictStore, self)._write_if(names, expected, rows)

        with file_guard(self._path):
            return until_unchanged(write_if)

    @contextmanager
    def _saved(self, table: Vectors, names: list[str]) -> Iterator[dict[str, Any]]:
        """As `MappingStore`, with the stamps of what was written."""
        before = self._known_stamps()
        try:
            with super()._saved(table, names) as written:
                yield written
                before.settled(names, table).keep_for(self.vector_store)
        except BaseException:
            before.keep_for(self.vector_store)
            raise
        if written:
            self._note(self._known_stamps())

    def vectors_in_memory(self, ids: Sequence[str]) -> dict[str, FloatArray]:
        """Return the vectors of those of ``ids`` that are in memory, without a look at the file."""
        table = self._mapping()
        return {name: np.array(table[name]) for name in ids if name in table}

    def _fetch(self, names: list[str]) -> dict[str, list[float]]:
        self._look()
        return super()._fetch(names)

    def matching(self, ids: Sequence[str], where: Callable[[str], bool] | None) -> set[str]:
        """Return those of ``ids`` that exist, in the file by now, and pass ``where``."""
        self._look()
        return super().matching(ids, where)

    def _look(self) -> None:
        """Catch up if that can be done; a write says why it cannot."""
        with contextlib.suppress(StoreError), file_guard(self._path):
            self._catch_up()

    def _catch_up(self) -> None:
        """Take over the changes of other processes to the file since it was last read or written here.

        Raises:
            StoreError: they have changed nodes that were changed in memory too.
        """
        state = None if self._path is None else file_state(self._path)
        if self._path is None or state is None or state == self._state:
            return
        stored, state = self._read_file(self._path)
        ours, theirs = self._entries(self.vector_store), self._entries(stored)
        changes = merge_changes(self._path, ours, theirs, self._base, self._held_first)
        self._take(changes.taken, stored)
        self._forget(changes.dropped)
        (self._known_stamps() | self._stamps(stored).held(self._mapping())).keep_for(self.vector_store)
        self._remember(state, {node_id: theirs.get(node_id) for node_id in changes.kept})

    def _read_file(self, path: Path) -> tuple[Any, FileState | None]:
        try:
            return files.load_whole(path, self._loaded)
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise StoreError(f"{path} cannot be read: {error}; nothing was written") from error

    def _save_file(self) -> None:
        if self._path is not None:
            self._remember(save_over(self._path, self._stamping_writer(self.vector_store), self._state))

    def _remember(self, state: FileState | None, unsaved: Mapping[str, Any] | None = None) -> None:
        """Note that memory holds what the file held in that state, but for nodes whose entries there are given."""
        self._state, self._base = state, {**self._entries(self.vector_store), **(unsaved or {})}

    def _persist(self, vector_store: Any, path: Path) -> None:
        files.save_through(path, self._stamping_writer(vector_store), like=self._path)

    def _stamping_writer(self, held: Any) -> Callable[[str], Any]:
        """Writes such an object with the stamps of what it holds, which the object in memory need not have."""
        stamps = self._known_stamps()
        if stamps.nodes or self._stamps(held).nodes:
            of_vectors = stamps if held is self.vector_store else stamps.held(self._vectors_of(held))
            held = self._with_own_entries(held)
            self._put_stamps(held, of_vectors)
        return self._writer(held)
