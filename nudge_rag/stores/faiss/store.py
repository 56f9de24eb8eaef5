"""FAISS indexes: flat, IVF and HNSW over full vectors, bare or in an IDMap."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.files import load_whole
from nudge_rag.stores.adapter import StoreAdapter
from nudge_rag.stores.base import Capabilities, EmbeddingStore, SearchResult, StoreError
from nudge_rag.stores.checks import check_ids, check_label, check_queries
from nudge_rag.stores.copies import CopyNotes, NodesOfCopy
from nudge_rag.stores.faiss.id_files import find_ids, read_ids
from nudge_rag.stores.faiss.index import FaissCopy, FaissIndex, imported
from nudge_rag.stores.faiss.index_file import IndexFile, read_index
from nudge_rag.stores.faiss.late_writes import copy_caught_up
from nudge_rag.stores.faiss.positions import KnownPositions
from nudge_rag.stores.history import BlobStorage
from nudge_rag.stores.keys import path_key
from nudge_rag.stores.location import StoreLocation
from nudge_rag.stores.memory.copies import Copies, versions_of
from nudge_rag.stores.memory.files import file_guard, file_of, history_of, until_unchanged
from nudge_rag.stores.stamps import Stamps

__all__ = ["FaissStore"]

Ids = Mapping[int, str]


class FaissStore(StoreAdapter):
    """Adapter for a ``faiss.Index`` in memory. Stores float32; exact if the index is flat or probes every list.

    Flat indexes are changed in place; IVF and HNSW indexes are emptied and filled again, in the same object, with the
    same training, parameters and order. Scores are the inner product, or minus the squared distance. ``where`` is a
    predicate on the node id.

    Args:
        index: the index.
        ids: node id of each FAISS id (of each position, if there is no IDMap); or a function that gives them, called
            whenever they are needed. FAISS ids without a node id are left alone and never found.
        persist_path: the index's file; written, atomically, after every `replace`. Without it changes stay in memory.
            Other versions are then in memory as well, and otherwise in files beside it.
        held_by: the object and its attribute that hold the index, for those who search it. `switch` assigns another
            index to the attribute, once: a search has taken one or the other. Without it, no version is kept beside
            the live one.

    Raises:
        TypeError: anything but an index.
        ValueError: an index that does not keep full vectors, or ranks by another metric.

    Example:
        >>> import faiss
        >>> index = faiss.IndexFlatIP(2)
        >>> index.add(np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32))
        >>> FaissStore(index, {0: "a", 1: "b"}).search(np.array([[0.1, 1.0]]), 1).ids
        [['b']]
    """

    name = "faiss"

    def __init__(
        self,
        index: Any,
        ids: Ids | Callable[[], Ids],
        *,
        persist_path: str | Path | None = None,
        held_by: tuple[Any, str] | None = None,
    ) -> None:
        rows = FaissIndex(index)
        rows.labels()  # refuses an index whose vectors cannot be told apart
        self._index, self._held_by = index, held_by
        self._ids = ids if callable(ids) else lambda: ids
        self._path = file_of(self._owner, persist_path)
        self._file = IndexFile(self._path, self._ids)
        self._known = KnownPositions()
        self._capabilities = Capabilities(
            "l2" if index.metric_type == imported().METRIC_L2 else "dot",
            exact_search=rows.exact,
            persistent=self._path is not None,
            side_by_side=held_by is not None,
            atomic_switch=held_by is not None,
        )

    @classmethod
    def open(cls, persist_path: str | Path, ids: Ids | str | Path | None = None) -> FaissStore:
        """The index in a file.

        If ``ids`` are not given, they come from the ``id_map.json`` or ``index_store.json`` that LlamaIndex writes
        beside it. A path is that of a JSON file with a list by position, or an object of FAISS id to node id. LangChain
        keeps them in a pickle, which is not read: load the store with LangChain.
        """
        path = Path(persist_path)
        if not path.is_file():
            raise ValueError(f"no FAISS index at {path}")
        known = find_ids(path) if ids is None else read_ids(Path(ids)) if isinstance(ids, str | Path) else ids
        index, state = load_whole(path, read_index)
        store = cls(index, known, persist_path=path, held_by=(_Holder(index), "index"))
        store._file.remember(index, state)
        return store

    @classmethod
    def from_url(cls, location: StoreLocation) -> FaissStore:
        """The index that ``faiss://`` names."""
        return cls.open(location.needed_path, location.options.get("ids"))

    @property
    def index(self) -> Any:
        """The live index."""
        return self._index if self._held_by is None else getattr(*self._held_by)

    @property
    def key(self) -> str:
        """Names the index's file."""
        return "faiss-memory" if self._path is None else path_key("faiss", self._path)

    def unknown_file(self) -> str | None:
        """What is not known of an index in memory: FAISS does not tell which file it was read from; None if it is."""
        if self._path is not None:
            return None
        return (
            "this FAISS index does not say which file it was loaded from: if a nudge was pushed to that, name it by"
            " persist_path=, so that the map of queries that may belong to the nudge is found"
        )

    def count(self) -> int:
        """Number of vectors that have a node id."""
        return len(FaissIndex(self.index).positions(self._ids()))

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return int(self.index.d)

    def _possible(self, ids: Iterable[str]) -> list[str]:
        """Return all: a dictionary holds any text."""
        return list(ids)

    def _fetch(self, names: list[str]) -> dict[str, FloatArray]:
        with contextlib.suppress(StoreError), file_guard(self._path):  # a write says what is wrong
            self._file.catch_up(FaissIndex(self.index))
        rows = FaissIndex(self.index)
        positions, vectors = self._known.find(rows, self._ids(), names), rows.vectors()
        return {name: vectors[positions[name]] for name in names if name in positions}

    def vectors_in_memory(self, ids: Sequence[str]) -> dict[str, FloatArray]:
        """Return the vectors of those of ``ids`` that are in memory, without a look at the file."""
        rows, wanted = FaissIndex(self.index), set(ids)
        # The few labels alone: positions of all nodes take seconds if there are millions.
        names = {label: name for label, name in self._ids().items() if name in wanted}
        labels = rows.labels()
        places = np.flatnonzero(np.isin(labels, list(names)))
        vectors = rows.vectors_at(places)
        return {names[label]: vector for label, vector in zip(labels[places].tolist(), vectors, strict=True)}

    def _batches(self, batch_size: int) -> Iterator[tuple[list[str], FloatArray]]:
        """All nodes, in the index's order."""
        rows = FaissIndex(self.index)
        positions, vectors = rows.positions(self._ids()), rows.vectors()
        names, places = list(positions), list(positions.values())
        return (
            (names[first : first + batch_size], vectors[places[first : first + batch_size]])
            for first in range(0, len(names), batch_size)
        )

    def search(self, queries: FloatArray, k: int, *, where: Callable[[str], bool] | None = None) -> SearchResult:
        """The k best nodes of each query, as far as the index finds them."""
        rows = FaissIndex(self.index)
        checked = check_queries(queries, k, dimension=rows.index.d).astype(np.float32)
        ids = dict(self._ids())
        chosen = [label for label in rows.labels().tolist() if label in ids and (where is None or where(ids[label]))]
        if not chosen or not len(checked):
            return SearchResult([[] for _ in checked], [np.zeros(0) for _ in checked])
        every = len(chosen) == rows.index.ntotal
        options = {} if every else {"params": rows.selecting(np.array(chosen, dtype=np.int64))}
        scores, labels = rows.index.search(checked, min(int(k), len(chosen)), **options)
        sign = -1.0 if self.capabilities.similarity == "l2" else 1.0
        found = [line >= 0 for line in labels]
        return SearchResult(
            [[ids[label] for label in line[kept].tolist()] for line, kept in zip(labels, found, strict=True)],
            [sign * line[kept].astype(np.float64) for line, kept in zip(scores, found, strict=True)],
        )

    def matching(self, ids: Sequence[str], where: Callable[[str], bool] | None) -> set[str]:
        """Return those of ``ids`` that exist and pass ``where``."""
        asked = check_ids(ids)
        known = self._known.find(FaissIndex(self.index), self._ids(), asked)
        return {name for name in asked if name in known and (where is None or where(name))}

    def _write(self, names: list[str], rows: FloatArray) -> None:
        """Overwrite vectors; if the file cannot be written, those in memory are put back first."""

        def write() -> None:
            self._file.catch_up(FaissIndex(self.index))
            index = FaissIndex(self.index)
            places = self._places(index, names)
            self._put(index, places, rows, index.vectors(), dict(zip(names, places, strict=True)))

        with file_guard(self._path):
            until_unchanged(write)

    def _write_if(self, names: list[str], expected: FloatArray, rows: FloatArray) -> list[str]:
        """Compare with the vectors that are in the file by now, and set, in one write."""

        def write_if() -> list[str]:
            self._file.catch_up(FaissIndex(self.index))
            index = FaissIndex(self.index)
            positions, before = self._known.find(index, self._ids(), names), index.vectors()
            found = [row for row, name in enumerate(names) if name in positions]
            places = np.array([positions[names[row]] for row in found], dtype=np.int64)
            same = self._same_rows(before[places], expected[found])
            kept = [row for row, unchanged in zip(found, same, strict=True) if unchanged]
            if kept:
                looked_at = {names[row]: positions[names[row]] for row in found}
                self._put(index, places[same].tolist(), rows[kept], before, looked_at)
            written = set(kept)
            return [name for row, name in enumerate(names) if row not in written]

        with file_guard(self._path):
            return until_unchanged(write_if)

    def _put(
        self, index: FaissIndex, places: list[int], rows: FloatArray, before: FloatArray, looked_at: Mapping[str, int]
    ) -> None:
        """Write rows to these places, in memory and in the file, and of nodes that were looked at the stamps."""
        after = before.copy()
        after[places] = rows
        try:
            index.put(places, after)
            held = {name: after[place] for name, place in looked_at.items()}
            self._file.save(index.index, self._file.known_stamps(index).settled(held, held))
        except BaseException:
            index.put(places, before)
            raise

    def stamp_nudges(self, ids: Sequence[str], vectors: FloatArray, history: str, push: str) -> None:
        """Note that nodes hold a nudge if they hold these vectors; the next write keeps that behind the index."""
        with contextlib.suppress(StoreError), file_guard(self._path):  # a write says what is wrong
            self._file.catch_up(FaissIndex(self.index))
        self._file.note_stamps(FaissIndex(self.index), ids, vectors, history, push)

    def all_stamps(self) -> Stamps:
        """Return the stamps of all nodes, whatever these hold by now."""
        return self._file.known_stamps(FaissIndex(self.index))

    def find_stamped(self) -> Stamps:
        """Return the stamps of nodes that still hold the vector of theirs; FAISS itself keeps none if it saves."""
        live = FaissIndex(self.index)
        return self._file.held_in(live, self._file.known_stamps(live))

    def find_outdated(self) -> set[str]:
        """Return ids of nodes that hold another vector in the file, which memory is too old to take over."""
        with file_guard(self._path):
            return self._file.find_outdated(FaissIndex(self.index))

    def drop_stamps(self, ids: Collection[str] | None = None) -> None:
        """Forget the stamps of these nodes, or of all, in the file too.

        Raises:
            StoreError: the file holds other nodes than memory.
        """

        def drop() -> None:
            live = FaissIndex(self.index)
            self._file.catch_up(live)
            self._file.save(self.index, Stamps() if ids is None else self._file.known_stamps(live).without(ids))

        with file_guard(self._path):
            until_unchanged(drop)

    def rehearse(self, ids: Sequence[str], vectors: FloatArray) -> FaissStore:
        """Return a copy of the index, in memory, with other vectors for ``ids``."""
        copied = FaissStore(FaissIndex(self.index).copied(), dict(self._ids()))
        copied.replace(ids, vectors)
        return copied

    def history(self) -> BlobStorage:
        """The store's history: a folder next to the file; without a file in this process, with what holds the index."""
        return history_of(self._path, self._owner)

    def create_copy(self, label: str) -> EmbeddingStore:
        """Copy the index to a version ``label``."""
        with file_guard(self._path):
            self._file.catch_up(FaissIndex(self.index))
            ids = dict(self._ids())
            self._versions().put(check_label(label), FaissCopy(FaissIndex(self.index).copied(), ids))
        return self.open_copy(label)

    def open_copy(self, label: str) -> EmbeddingStore:
        """Return the adapter of the version ``label``.

        Raises:
            ValueError: there is none.
        """
        version, path = self._versions().get(label), self._versions().path(label)
        return FaissStore(version.index, version.ids, persist_path=path)

    def copy_labels(self) -> list[str]:
        """Labels of the versions beside the live one."""
        return self._versions().labels()

    def switch(self, label: str) -> None:
        """Swap the live index and the one at ``label``.

        Raises:
            ValueError: there is none.
            StoreError: FAISS ids belong to other nodes than when the index was copied; nothing was switched.
        """

        def switch() -> None:
            self._file.catch_up(FaissIndex(self.index))
            self._switch(label, self._versions().get(label))

        with file_guard(self._path):
            until_unchanged(switch)

    def catch_up_and_switch(self, label: str, moved: NodesOfCopy, notes: CopyNotes) -> int:
        """Give the copy ``label`` what was written since, and swap the two; gives the number of nodes caught up."""
        with file_guard(self._path):
            return until_unchanged(lambda: self._switch_caught_up(label, moved))

    def _switch_caught_up(self, label: str, moved: NodesOfCopy) -> int:
        self._file.catch_up(FaissIndex(self.index))
        copy, late = copy_caught_up(
            self._versions().get(label), FaissIndex(self.index), dict(self._ids()), moved, self._same_rows
        )
        self._switch(label, copy)
        return late

    def _switch(self, label: str, incoming: FaissCopy) -> None:
        versions, live = self._versions(), FaissIndex(self.index)
        outgoing = FaissCopy(live.index, dict(self._ids()))
        FaissIndex(incoming.index).search_as(live)
        incoming = replace(
            incoming, stamps=self._file.held_in(FaissIndex(incoming.index), self._file.known_stamps(live))
        )
        versions.prepare(label, incoming, outgoing)
        if incoming.named() != FaissCopy(live.index, dict(self._ids())).named():
            raise StoreError(
                "nodes no longer have the FAISS ids that they had when the index was copied: nothing was switched"
            )
        state = versions.make_live(label, self._file.state)
        setattr(*self._holder(), incoming.index)
        versions.settle(label, outgoing)
        self._file.replaced(incoming.index, incoming.stamps, state)

    def drop_copy(self, label: str) -> None:
        """Remove the version ``label``.

        Raises:
            ValueError: there is none.
        """
        self._versions().drop(label)

    @property
    def _owner(self) -> Any:
        return self._index if self._held_by is None else self._held_by[0]

    def _versions(self) -> Copies[FaissCopy]:
        owner, path = self._holder()[0], self._path
        return versions_of(owner, path, lambda version, place: version.save(place, path), FaissCopy.load)

    def _holder(self) -> tuple[Any, str]:
        if self._held_by is None:
            raise ValueError(
                "whoever holds this FAISS index would not see another take its place: give held_by=, the object and the"
                " attribute that it is searched through"
            )
        return self._held_by

    def _places(self, rows: FaissIndex, names: list[str]) -> list[int]:
        positions = self._known.find(rows, self._ids(), names)
        self._require(names, positions)
        return [positions[name] for name in names]


@dataclass
class _Holder:
    """Of an index that nobody else has."""

    index: Any
