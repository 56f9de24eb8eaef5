"""The file of an index in memory: what other processes wrote to it, and the stamps behind the index."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nudge_rag.common.arrays import FloatArray, IntArray
from nudge_rag.common.files import FileState, file_state, load_whole
from nudge_rag.stores.base import StoreError
from nudge_rag.stores.faiss.id_files import states_of_id_files
from nudge_rag.stores.faiss.index import FaissIndex, imported, index_writer
from nudge_rag.stores.memory.files import save_over
from nudge_rag.stores.stamps import Stamps, read_stamps

__all__ = ["IndexFile", "read_index"]


def read_index(path: Path) -> Any:
    """Read the index in a file."""
    return imported().read_index(str(path))


@dataclass(frozen=True, eq=False)
class _Saved:
    """The file as it was when memory held the same: its state, FAISS ids, and the states of files of node ids."""

    state: FileState | None
    labels: IntArray
    ids: tuple[FileState | None, ...]


class IndexFile:
    """Notes when memory and file hold the same, and takes over what other processes have written.

    Args:
        path: the file; None for an index without one, whose stamps are kept here.
        ids: gives the node id of each FAISS id.

    Attributes:
        stamps: of nodes that a push wrote, as far as they were noted or read here.
    """

    def __init__(self, path: Path | None, ids: Callable[[], Mapping[int, str]]) -> None:
        self.path, self._ids = path, ids
        self.stamps = Stamps()
        self._saved: _Saved | None = None
        # The file as it was when the stamps in it were read, or written.
        self._stamps_read: FileState | None = None

    @property
    def state(self) -> FileState | None:
        """The file as it was when memory held the same; None if it never did."""
        return None if self._saved is None else self._saved.state

    def remember(self, index: Any, state: FileState | None) -> None:
        """Note that the index holds what the file held in that state."""
        if self.path is not None:
            self._saved = _Saved(state, FaissIndex(index).labels(), states_of_id_files(self.path))

    def save(self, index: Any, stamps: Stamps) -> None:
        """Write the index and stamps to the file, unless another process has written to it.

        Raises:
            FileChangedError: one has.
        """
        if self.path is not None:
            state = save_over(self.path, index_writer(index, stamps), self.state)
            self.remember(index, state)
            self._stamps_read = state
        self.stamps = stamps

    def replaced(self, index: Any, stamps: Stamps, state: FileState | None) -> None:
        """Note that another index is live, and in the file, with these stamps."""
        self.remember(index, state)
        self.stamps, self._stamps_read = stamps, state

    def note_stamps(self, live: FaissIndex, ids: Sequence[str], vectors: FloatArray, history: str, push: str) -> None:
        """Note that nodes hold a nudge if they hold these vectors; the next write keeps that behind the index."""
        self.stamps = self.known_stamps(live)
        self.stamps.add(ids, vectors, history, push)

    def known_stamps(self, live: FaissIndex) -> Stamps:
        """The stamps of the file, which are read if another process has written it, and those noted here."""
        state = None if self.path is None else file_state(self.path)
        if self.path is None or state is None or state == self._stamps_read:
            return self.stamps
        stored = read_stamps(self.path)
        if state != self.state:  # memory is not what the file holds, so that nothing can be left out
            return stored | self.stamps
        # Of nodes that are gone, or hold something else, none are carried along for ever.
        self.stamps, self._stamps_read = self.held_in(live, stored) | self.stamps, state
        return self.stamps

    def held_in(self, index: FaissIndex, stamps: Stamps) -> Stamps:
        """Those of nodes that hold the vector of theirs in an index."""
        if not stamps.nodes:
            return stamps
        vectors, positions = index.vectors(), index.positions(self._ids())
        return stamps.held({name: vectors[positions[name]] for name in stamps.nodes if name in positions})

    def catch_up(self, live: FaissIndex) -> None:
        """Take over the vectors that another process has written to the file since it was last read or written here.

        Node ids are in other files, which are not read: if these were written too, vectors may be of other nodes.

        Raises:
            StoreError: file and memory hold other nodes, or other vectors of which it cannot be told whose are newer.
        """
        state = None if self.path is None else file_state(self.path)
        if self.path is None or state is None:
            return
        if self._saved is not None and state == self._saved.state:
            if not np.array_equal(self._saved.labels, live.labels()):
                raise _other_nodes(self.path)
            return
        stored, state = _read(self.path)
        if not np.array_equal(stored.labels(), live.labels()):
            raise _other_nodes(self.path)
        # A graph that is searched is not built again if nothing has changed.
        if not np.array_equal(stored.vectors(), live.vectors()):
            if self._saved is None or self._saved.ids != states_of_id_files(self.path):
                raise StoreError(
                    f"{self.path} holds other vectors than memory, and whose are newer cannot be told: load the index"
                    " and its node ids anew, or save it by its framework; nothing was written"
                )
            live.put(list(range(len(live.labels()))), stored.vectors())
        self.remember(live.index, state)

    def find_outdated(self, live: FaissIndex) -> set[str]:
        """Find nodes that hold another vector in the file, which memory is too old to take over; all if they may."""
        try:
            self.catch_up(live)
        except StoreError:
            return set() if self.path is None else self._differing_from(self.path, live)
        return set()

    def _differing_from(self, path: Path, live: FaissIndex) -> set[str]:
        positions = live.positions(self._ids())
        try:
            stored, _ = _read(path)
        except StoreError:  # what it holds cannot be told
            return set()
        if not np.array_equal(stored.labels(), live.labels()):
            return set(positions)
        differs = (stored.vectors() != live.vectors()).any(axis=1)
        return {name for name, place in positions.items() if differs[place]}


def _read(path: Path) -> tuple[FaissIndex, FileState | None]:
    try:
        loaded, state = load_whole(path, read_index)
    except RuntimeError as error:
        raise StoreError(f"{path} cannot be read: {error}; nothing was written") from error
    return FaissIndex(loaded), state


def _other_nodes(path: Path) -> StoreError:
    return StoreError(
        f"another process has written other nodes to {path} since it was opened here, or nodes were changed here"
        " and not saved: load the index and its node ids anew, or save it by its framework; nothing was written"
    )
