"""FAISS indexes: flat, IVF and HNSW over full vectors, bare or in an IDMap."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nudge_rag.common.arrays import FloatArray, IntArray
from nudge_rag.common.files import FileState, file_state, load_whole
from nudge_rag.stores.adapter import StoreAdapter
from nudge_rag.stores.base import Capabilities, EmbeddingStore, SearchResult, StoreError
from nudge_rag.stores.checks import check_ids, check_label, check_queries
from nudge_rag.stores.copies import CopyNotes, NodesOfCopy
from nudge_rag.stores.faiss.index import FaissCopy, FaissIndex, imported, index_writer
from nudge_rag.stores.history import BlobStorage
from nudge_rag.stores.keys import path_key
from nudge_rag.stores.location import StoreLocation
from nudge_rag.stores.memory.copies import Copies, versions_of
from nudge_rag.stores.memory.files import file_guard, file_of, history_of, save_over, until_unchanged
from nudge_rag.stores.stamps import Stamps, read_stamps

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
        self._index, self._held_by = index, held_by
        self._ids = ids if callable(ids) else lambda: ids
        self._path = file_of(self._owner, persist_path)
        self._saved: _Saved | None = None
        self._known: _Positions | None = None
        self._stamps = Stamps()
        # The file as it was when the stamps in it were read, or written.
        self._stamps_read: FileState | None = None
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
        known = _ids_beside(path) if ids is None else _ids_in(Path(ids)) if isinstance(ids, str | Path) else ids
        index, state = load_whole(path, _read_index)
        store = cls(index, known, persist_path=path, held_by=(_Holder(index), "index"))
        store._remember(state)
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
            self._catch_up()
        rows = FaissIndex(self.index)
        positions, vectors = self._positions(rows, names), rows.vectors()
        return {name: vectors[positions[name]] for name in names if name in positions}

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
        known = self._positions(FaissIndex(self.index), asked)
        return {name for name in asked if name in known and (where is None or where(name))}

    def _write(self, names: list[str], rows: FloatArray) -> None:
        """Overwrite vectors; if the file cannot be written, those in memory are put back first."""

        def write() -> None:
            self._catch_up()
            index = FaissIndex(self.index)
            places = self._places(index, names)
            self._put(index, places, rows, index.vectors(), dict(zip(names, places, strict=True)))

        with file_guard(self._path):
            until_unchanged(write)

    def _write_if(self, names: list[str], expected: FloatArray, rows: FloatArray) -> list[str]:
        """Compare with the vectors that are in the file by now, and set, in one write."""

        def write_if() -> list[str]:
            self._catch_up()
            index = FaissIndex(self.index)
            positions, before = self._positions(index, names), index.vectors()
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
            stamps = self._known_stamps().settled(held, held)
            if self._path is not None:
                state = save_over(self._path, index_writer(index.index, stamps), self._state)
                self._remember(state)
                self._stamps_read = state
            self._stamps = stamps
        except BaseException:
            index.put(places, before)
            raise

    def stamp_nudges(self, ids: Sequence[str], vectors: FloatArray, history: str) -> None:
        """Note that nodes hold a nudge if they hold these vectors; the next write keeps that behind the index."""
        with contextlib.suppress(StoreError), file_guard(self._path):  # a write says what is wrong
            self._catch_up()
        self._stamps = self._known_stamps()
        self._stamps.add(ids, vectors, history)

    def find_stamped(self) -> Stamps:
        """Return the stamps of nodes that still hold the vector of theirs; FAISS itself keeps none if it saves."""
        return self._held_in(FaissIndex(self.index), self._known_stamps())

    def drop_stamps(self) -> None:
        """Forget all stamps, in the file too.

        Raises:
            StoreError: the file holds other nodes than memory.
        """

        def drop() -> None:
            self._catch_up()
            if self._path is not None:
                self._remember(save_over(self._path, index_writer(self.index, Stamps()), self._state))

        with file_guard(self._path):
            until_unchanged(drop)
        self._stamps, self._stamps_read = Stamps(), self._state

    def _known_stamps(self) -> Stamps:
        """The stamps of the file, which are read if another process has written it, and those noted here."""
        state = None if self._path is None else file_state(self._path)
        if self._path is None or state is None or state == self._stamps_read:
            return self._stamps
        stored = read_stamps(self._path)
        if state != self._state:  # memory is not what the file holds, so that nothing can be left out
            return stored | self._stamps
        # Of nodes that are gone, or hold something else, none are carried along for ever.
        self._stamps, self._stamps_read = self._held_in(FaissIndex(self.index), stored) | self._stamps, state
        return self._stamps

    def _held_in(self, index: FaissIndex, stamps: Stamps) -> Stamps:
        """Those of nodes that hold the vector of theirs in an index."""
        if not stamps.nodes:
            return stamps
        vectors, positions = index.vectors(), index.positions(self._ids())
        return stamps.held({name: vectors[positions[name]] for name in stamps.nodes if name in positions})

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
            self._catch_up()
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
            self._catch_up()
            self._switch(label, self._versions().get(label))

        with file_guard(self._path):
            until_unchanged(switch)

    def catch_up_and_switch(self, label: str, moved: NodesOfCopy, notes: CopyNotes) -> int:
        """Give the copy ``label`` what was written since, and swap the two; gives the number of nodes caught up."""
        with file_guard(self._path):
            return until_unchanged(lambda: self._switch_caught_up(label, moved))

    def _switch_caught_up(self, label: str, moved: NodesOfCopy) -> int:
        self._catch_up()
        copy, live, ids = self._versions().get(label), FaissIndex(self.index), dict(self._ids())
        positions, vectors = live.positions(ids), live.vectors()
        names, places = list(positions), list(positions.values())
        wanted = vectors.copy()
        held = FaissIndex(copy.index)
        known, copied = held.positions(copy.ids), held.vectors()
        if names:
            beside = np.full_like(vectors[places], np.nan)
            there = [row for row, name in enumerate(names) if name in known]
            beside[there] = copied[[known[names[row]] for row in there]]
            wanted[places] = moved.wanted(names, vectors[places], self._same_rows, beside)
        stale = [
            name
            for name, place in positions.items()
            if name not in known or (copied[known[name]] != wanted[place]).any()
        ]
        deleted = known.keys() - positions.keys()
        if stale or deleted or copy.named() != FaissCopy(live.index, ids).named():
            copy = FaissCopy(live.copied(), ids)
            FaissIndex(copy.index).put(np.flatnonzero((wanted != vectors).any(axis=1)).tolist(), wanted)
        self._switch(label, copy)
        return len(stale) + len(deleted)

    def _switch(self, label: str, incoming: FaissCopy) -> None:
        versions, live = self._versions(), FaissIndex(self.index)
        outgoing = FaissCopy(live.index, dict(self._ids()))
        FaissIndex(incoming.index).search_as(live)
        incoming = replace(incoming, stamps=self._held_in(FaissIndex(incoming.index), self._known_stamps()))
        versions.prepare(label, incoming, outgoing)
        if incoming.named() != FaissCopy(live.index, dict(self._ids())).named():
            raise StoreError(
                "nodes no longer have the FAISS ids that they had when the index was copied: nothing was switched"
            )
        state = versions.make_live(label, self._state)
        setattr(*self._holder(), incoming.index)
        versions.settle(label, outgoing)
        self._remember(state)
        self._stamps, self._stamps_read = incoming.stamps, state

    def drop_copy(self, label: str) -> None:
        """Remove the version ``label``.

        Raises:
            ValueError: there is none.
        """
        self._versions().drop(label)

    def _catch_up(self) -> None:
        """Take over the vectors that another process has written to the file since it was last read or written here.

        Node ids are in other files, which are not read: if these were written too, vectors may be of other nodes.

        Raises:
            StoreError: file and memory hold other nodes, or other vectors of which it cannot be told whose are newer.
        """
        state = None if self._path is None else file_state(self._path)
        live = FaissIndex(self.index)
        if self._path is None or state is None:
            return
        if self._saved is not None and state == self._saved.state:
            if not np.array_equal(self._saved.labels, live.labels()):
                raise self._other_nodes(self._path)
            return
        try:
            loaded, state = load_whole(self._path, _read_index)
        except RuntimeError as error:
            raise StoreError(f"{self._path} cannot be read: {error}; nothing was written") from error
        stored = FaissIndex(loaded)
        if not np.array_equal(stored.labels(), live.labels()):
            raise self._other_nodes(self._path)
        # A graph that is searched is not built again if nothing has changed.
        if not np.array_equal(stored.vectors(), live.vectors()):
            if self._saved is None or self._saved.ids != _ids_state(self._path):
                raise StoreError(
                    f"{self._path} holds other vectors than memory, and whose are newer cannot be told: load the index"
                    " and its node ids anew, or save it by its framework; nothing was written"
                )
            live.put(list(range(len(live.labels()))), stored.vectors())
        self._remember(state)

    def _other_nodes(self, path: Path) -> StoreError:
        return StoreError(
            f"another process has written other nodes to {path} since it was opened here, or nodes were changed here"
            " and not saved: load the index and its node ids anew, or save it by its framework; nothing was written"
        )

    @property
    def _state(self) -> FileState | None:
        return None if self._saved is None else self._saved.state

    def _remember(self, state: FileState | None) -> None:
        """Note that memory holds what the file held in that state."""
        if self._path is not None:
            self._saved = _Saved(state, FaissIndex(self.index).labels(), _ids_state(self._path))

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

    def _positions(self, rows: FaissIndex, names: Sequence[str]) -> Mapping[str, int]:
        """Positions of nodes, by name; those looked up before, if these names still have them."""
        ids, labels, known = self._ids(), rows.labels(), self._known
        if known is not None and len(ids) == known.n_ids and np.array_equal(labels, known.labels):
            places = np.array([known.positions.get(name, -1) for name in names], dtype=np.int64)
            if (places >= 0).all() and [ids.get(label) for label in labels[places].tolist()] == list(names):
                return known.positions
        self._known = _Positions(len(ids), labels, rows.positions(ids))
        return self._known.positions

    def _places(self, rows: FaissIndex, names: list[str]) -> list[int]:
        positions = self._positions(rows, names)
        self._require(names, positions)
        return [positions[name] for name in names]


def _read_index(path: Path) -> Any:
    return imported().read_index(str(path))


@dataclass(frozen=True, eq=False)
class _Saved:
    """The file as it was when memory held the same: its state, FAISS ids, and the states of files of node ids."""

    state: FileState | None
    labels: IntArray
    ids: tuple[FileState | None, ...]


@dataclass(frozen=True, eq=False)
class _Positions:
    """Where nodes were when that was looked up last: of so many ids, with these FAISS ids."""

    n_ids: int
    labels: IntArray
    positions: dict[str, int]


def _ids_state(path: Path) -> tuple[FileState | None, ...]:
    """The states of the files beside an index that may hold its node ids."""
    places = (path.with_suffix(".pkl"), path.with_name("id_map.json"), path.with_name("index_store.json"))
    return tuple(file_state(place) for place in places)


@dataclass
class _Holder:
    """Of an index that nobody else has."""

    index: Any


def _ids_beside(path: Path) -> dict[int, str]:
    """Node ids from the files that LlamaIndex persists in the same folder."""
    mapped, structs = path.with_name("id_map.json"), path.with_name("index_store.json")
    if mapped.is_file():
        return {int(label): name for label, name in json.loads(mapped.read_text())["faiss_id_to_node_id_map"].items()}
    if not structs.is_file():
        raise ValueError(f"no id_map.json or index_store.json beside {path}: give ids=")
    entries = list(json.loads(structs.read_text())["index_store/data"].values())
    if len(entries) != 1:
        raise ValueError(f"{structs} describes {len(entries)} indexes: give ids=")
    data = entries[0]["__data__"]
    nodes = (json.loads(data) if isinstance(data, str) else data)["nodes_dict"]
    return {int(label): name for label, name in nodes.items()}


def _ids_in(path: Path) -> dict[int, str]:
    try:
        given = json.loads(path.read_text())
        pairs = enumerate(given) if isinstance(given, list) else ((int(k), name) for k, name in given.items())
        return {label: name for label, name in pairs if isinstance(name, str)}
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not a JSON list or object of node ids: {error}") from error
