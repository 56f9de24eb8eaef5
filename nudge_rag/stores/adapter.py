"""`StoreAdapter`: the base class of all adapters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nudge_rag.common.arrays import BoolArray, FloatArray
from nudge_rag.common.progress import track
from nudge_rag.stores.base import Capabilities, EmbeddingStore, SearchResult, UnknownIdError
from nudge_rag.stores.checks import at_unit_length, check_batch_size, check_ids, check_replacement, encodable

__all__ = ["StoreAdapter"]

# How many nodes are compared and written in one step, if the database cannot compare by itself.
NODES_PER_STEP = 200


class StoreAdapter(ABC):
    """Base of the adapters: it checks arguments and orders answers; a subclass talks to its database.

    A subclass sets ``name`` and ``_capabilities``, and ``_dimension`` unless it overrides `dimension`.

    Attributes:
        name: the database's name, such as ``chroma``.
        ids_note: what an UnknownIdError says of the ids that the database takes.
    """

    name: str
    ids_note: str = ""
    _capabilities: Capabilities
    _dimension: int | None

    @property
    def capabilities(self) -> Capabilities:
        """Describe what the store can do."""
        return self._capabilities

    @property
    def dimension(self) -> int | None:
        """Length of the vectors; None if the store holds none."""
        return self._dimension or None

    @property
    @abstractmethod
    def key(self) -> str:
        """A string that names this store among all stores, fit for a folder name."""

    @abstractmethod
    def count(self) -> int:
        """Number of nodes."""

    @abstractmethod
    def search(self, queries: FloatArray, k: int, *, where: Any = None) -> SearchResult:
        """The k best nodes of each query."""

    @abstractmethod
    def matching(self, ids: Sequence[str], where: Any) -> set[str]:
        """Return those of ``ids`` that exist and pass ``where``."""

    def read(self, ids: Sequence[str]) -> FloatArray:
        """Read the vectors of ``ids``, in the order asked.

        Args:
            ids: node ids; one may be asked for more than once.

        Returns:
            Array (len(ids), d) of the store's dtype.

        Raises:
            UnknownIdError: some are not in the store.
            ValueError: an id that several rows of the database have.
        """
        names = check_ids(ids)
        found = self._fetch(self._possible(dict.fromkeys(names)))
        self._require(names, found)
        return self._matrix([found[name] for name in names])

    def scan(self, batch_size: int = 1000) -> Iterator[tuple[list[str], FloatArray]]:
        """Give all nodes in batches of at most ``batch_size``: ids and vectors."""
        return self._batches(check_batch_size(batch_size))

    def as_stored(self, vectors: FloatArray) -> FloatArray:
        """Give ``vectors`` as they will be read back: in the store's dtype, at unit length if it keeps no other."""
        if not self.capabilities.keeps_norms:
            return at_unit_length(vectors)
        return np.asarray(vectors, dtype=self.capabilities.dtype)

    def search_with_defaults(self, queries: FloatArray, k: int) -> SearchResult:
        """Search as an application does that sets no options of the index; `search` may look more widely."""
        return self.search(queries, k)

    def default_width(self) -> int | None:
        """Return how many nodes `search_with_defaults` gives at most, whatever k; None if there is no such limit."""
        return None

    @property
    def write_problem(self) -> str | None:
        """Why no vector of this store can be replaced, whatever it is; None if they can."""
        return None

    def rehearse(self, ids: Sequence[str], vectors: FloatArray) -> EmbeddingStore | None:
        """Return a store that searches as this one would after `replace`, of which nothing is written.

        Args:
            ids: stored nodes.
            vectors: (len(ids), d) their vectors.

        Returns:
            A store in memory; None if only a write can tell how the index would answer.
        """
        return None

    def replace(self, ids: Sequence[str], vectors: FloatArray) -> None:
        """Overwrite the vectors of ``ids``; text and metadata stay.

        Args:
            ids: node ids, each once.
            vectors: (len(ids), d) their new vectors.

        Raises:
            UnknownIdError: some are not in the store; nothing is written.
            ValueError: vectors that do not fit; nothing is written.
        """
        names, rows = self._check_vectors(ids, vectors)
        self._require(names, set(self._possible(names)))
        self._write(names, rows)

    def replace_vectors_if(self, ids: Sequence[str], expected: FloatArray, vectors: FloatArray) -> list[str]:
        """Overwrite the vectors of those of ``ids`` that still have the ``expected`` ones: compare and set.

        PostgreSQL, DuckDB, SQLite and Redis compare and set in one step. LanceDB finds in its versions what was written
        in between, and puts it back. The others have no such call: each chunk is read again just before it is written.

        Args:
            ids: node ids, each once.
            expected: (len(ids), d) vectors as `read` gave them.
            vectors: (len(ids), d) new vectors.

        Returns:
            The ids that were not written, in the order given: deleted nodes, and nodes that have another vector by now.

        Raises:
            ValueError: vectors that do not fit; nothing is written.

        Example:
            >>> from nudge_rag.stores.memory.mapping import MappingStore
            >>> store = MappingStore({"a": [1.0, 0.0], "b": [9.0, 9.0]})
            >>> store.replace_vectors_if(["a", "b", "c"], np.eye(3, 2), np.zeros((3, 2)))
            ['b', 'c']
            >>> store.read(["a", "b"]).tolist()
            [[0.0, 0.0], [9.0, 9.0]]
        """
        names, rows = self._check_vectors(ids, vectors)
        _, before = self._check_vectors(ids, expected)
        skipped = set(names).difference(self._possible(names))
        if skipped:
            there = np.array([name not in skipped for name in names], dtype=np.bool_)
            kept, before, rows = [name for name in names if name not in skipped], before[there], rows[there]
        else:
            kept = names
        if kept:
            skipped |= set(self._write_if(kept, before, rows))
        return [name for name in names if name in skipped]

    def _possible(self, ids: Iterable[str]) -> list[str]:
        """Return those of ``ids`` that the database could hold; for others it is not asked."""
        return encodable(list(ids))

    @abstractmethod
    def _fetch(self, names: list[str]) -> Mapping[str, Any]:
        """Vectors by id of those of ``names``, all distinct, that exist."""

    @abstractmethod
    def _batches(self, batch_size: int) -> Iterator[tuple[list[str], FloatArray]]:
        """All nodes."""

    @abstractmethod
    def _write(self, names: list[str], rows: FloatArray) -> None:
        """Overwrite vectors that were checked.

        Raises:
            UnknownIdError: an id is not in the store; nothing was written.
        """

    def _write_if(self, names: list[str], expected: FloatArray, rows: FloatArray) -> list[str]:
        """Compare and set, chunk by chunk: ids that were not written."""
        skipped: list[str] = []
        write = self._prepare_write(names, rows)
        for first in track(range(0, len(names), NODES_PER_STEP), "writing vectors"):
            chunk = names[first : first + NODES_PER_STEP]
            unchanged = self._unchanged(chunk, expected[first : first + NODES_PER_STEP])
            kept = [first + int(place) for place in np.flatnonzero(unchanged)]
            if kept:
                skipped += write(kept)
            skipped += [name for name, same in zip(chunk, unchanged, strict=True) if not same]
        return skipped

    def _prepare_write(self, names: list[str], rows: FloatArray) -> Callable[[list[int]], list[str]]:
        """Make ready what can be before nodes are looked at: who writes between the look and the write is overwritten.

        Args:
            names: ids of nodes.
            rows: (len(names), d) their new vectors.

        Returns:
            A function that writes some of them, given by their places, and returns the ids of those that are gone.
        """
        return lambda places: self._write_present([names[place] for place in places], rows[places])

    def _write_present(self, names: list[str], rows: FloatArray) -> list[str]:
        """Overwrite vectors of nodes that were there a moment ago: ids of those that are gone."""
        row_of = dict(zip(names, rows, strict=True))
        gone: list[str] = []
        while row_of:
            try:
                self.replace(list(row_of), np.stack(list(row_of.values())))
            except UnknownIdError as error:
                gone += error.ids
                row_of = {name: row for name, row in row_of.items() if name not in error.ids}
            else:
                return gone
        return gone

    def _unchanged(self, names: list[str], expected: FloatArray) -> BoolArray:
        """For each node, whether it has the expected vector: bit for bit, or to the store's rounding."""
        found = self._fetch(names)
        unchanged = np.array([name in found for name in names], dtype=np.bool_)
        if unchanged.any():
            current = self._matrix([found[name] for name in names if name in found])
            unchanged[unchanged] = self._same_rows(current, expected[unchanged])
        return unchanged

    def _same_rows(self, current: FloatArray, expected: FloatArray) -> BoolArray:
        if self.capabilities.rounding:
            return np.asarray((np.abs(current - expected) <= self.capabilities.rounding).all(axis=1))
        return np.asarray((current == expected).all(axis=1))

    def _check_vectors(self, ids: Sequence[str], vectors: ArrayLike) -> tuple[list[str], FloatArray]:
        return check_replacement(ids, vectors, dimension=self.dimension, dtype=self.capabilities.dtype)

    def _require(self, names: Iterable[str], present: Collection[str]) -> None:
        """Raise UnknownIdError for those of ``names`` that are not ``present``."""
        unknown = [name for name in names if name not in present]
        if unknown:
            raise UnknownIdError(unknown, self.name + self.ids_note)

    def _require_once(self, answered: Sequence[str]) -> None:
        """Raise ValueError if an answer of the database names an id more than once."""
        if len(set(answered)) != len(answered):
            twice = next(name for row, name in enumerate(answered) if name in answered[:row])
            raise ValueError(f"id {twice!r} is more than once in {self.name}: each node must have one vector")

    def _matrix(self, rows: Sequence[Any]) -> FloatArray:
        """Vectors as one array (n, d) of the store's dtype."""
        if not len(rows):
            return np.zeros((0, self.dimension or 0), dtype=self.capabilities.dtype)
        return np.array(rows, dtype=self.capabilities.dtype)
