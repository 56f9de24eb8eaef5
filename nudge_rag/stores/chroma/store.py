"""Chroma collections, embedded or on a server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

import numpy as np

from nudge_rag.common.arrays import Float64Array, FloatArray
from nudge_rag.common.files import file_state
from nudge_rag.common.packages import import_package
from nudge_rag.stores.adapter import StoreAdapter
from nudge_rag.stores.base import Capabilities, SearchResult, Similarity
from nudge_rag.stores.checks import check_ids, check_queries, chunks
from nudge_rag.stores.chroma.copies import ChromaCopies, origin_of, recovered
from nudge_rag.stores.chroma.history import ChromaHistory, embedded_file
from nudge_rag.stores.chroma.records import ChromaRecords
from nudge_rag.stores.chroma.rounding import read_back, space_of, written_to_read_back
from nudge_rag.stores.copies import CopiesMixin, CopyNotes, NodesOfCopy
from nudge_rag.stores.history import BlobStorage
from nudge_rag.stores.location import StoreLocation

if TYPE_CHECKING:
    from chromadb import Collection

__all__ = ["ChromaFilter", "ChromaStore"]

SIMILARITY: dict[str, Similarity] = {"cosine": "cosine", "ip": "dot", "l2": "l2"}
# SQLite, under the embedded client, takes so many variables in one statement; servers take their own batch size.
IDS_PER_CALL = 1_000
QUERIES_PER_CALL = 256
# An id that no node has.
NOBODY = "nudge-rag: nobody"


@dataclass(frozen=True)
class ChromaFilter:
    """A filter by metadata, by text, and by id, all of which a node must pass.

    Attributes:
        where: Chroma's metadata filter, such as ``{"year": {"$gte": 2020}}``.
        where_document: Chroma's text filter, such as ``{"$contains": "python"}``.
        ids: the only ids to consider.
    """

    where: Mapping[str, Any] | None = None
    where_document: Mapping[str, Any] | None = None
    ids: Sequence[str] | None = None


class ChromaStore(CopiesMixin, StoreAdapter):
    """Adapter for a ``chromadb.Collection``. Stores float32; its search is approximate (HNSW).

    Scores are larger-is-better: 1 - distance for cosine and inner product, minus the squared distance for l2.

    A copy is a second collection. `switch` renames both, so for a few milliseconds no collection has the live name;
    ``switch(accept_gap=True)`` allows that. A process that holds a Collection keeps reading the one it opened; the
    Collection given to this adapter follows the switch.

    Args:
        collection: the collection, from any client.

    Raises:
        TypeError: anything but a collection.
    """

    name = "chroma"

    def __init__(self, collection: Collection) -> None:
        if not all(hasattr(collection, part) for part in ("configuration", "query", "update", "id")):
            raise TypeError(f"expected a chromadb Collection, got {type(collection).__name__}")
        self.collection = collection
        self._copies: ChromaCopies = ChromaCopies(collection)
        if not collection.count():  # made anew between the steps of a switch?
            self._copies.wait_for_a_switch()
        space = space_of(collection)
        if space not in SIMILARITY:
            raise ValueError(f"Chroma space {space!r} is not one of {', '.join(SIMILARITY)}")
        self._dimension: int | None = None
        self._file = embedded_file(collection._client)
        self._state = None if self._file is None else file_state(self._file)
        self._key = f"chroma-{origin_of(collection)}"
        self._capabilities = Capabilities(SIMILARITY[space], exact_search=False, persistent=True, side_by_side=True)

    @classmethod
    def open(cls, path: str | Path, collection: str) -> ChromaStore:
        """Open a collection in a persistent Chroma folder; a switch of it that died is repaired first.

        Raises:
            ValueError: there is no such folder; Chroma would make an empty one.
        """
        chromadb = import_package("chromadb", "ChromaStore.open", "chroma")
        if not Path(path).is_dir():
            raise ValueError(f"there is no Chroma folder at {str(path)!r}")
        return cls(recovered(chromadb.PersistentClient(path=str(path)), collection))

    @classmethod
    def from_url(cls, location: StoreLocation) -> ChromaStore:
        """The collection that ``chroma://`` names, in a folder or on a server."""
        if location.path is not None:
            return cls.open(location.path, location.options["collection"])
        address = urlparse(location.address(8000))
        chromadb = import_package("chromadb", "chroma://", "chroma")
        names = {name: location.options[name] for name in ("tenant", "database") if name in location.options}
        client = chromadb.HttpClient(
            host=str(address.hostname), port=address.port, ssl=address.scheme == "https", **names
        )
        return cls(recovered(client, location.options["collection"]))

    @property
    def key(self) -> str:
        """The UUID of the collection, or of the one that it is a version of; one made anew is another store."""
        return self._key

    def count(self) -> int:
        """Number of nodes."""
        return self.collection.count()

    @property
    def dimension(self) -> int | None:
        """Length of the vectors, asked for once: a collection keeps the dimension of its first one."""
        if self._dimension is None:
            first = self.collection.get(include=["embeddings"], limit=1)["embeddings"]
            self._dimension = None if first is None or not len(first) else len(first[0])
        return self._dimension

    def _fetch(self, names: list[str]) -> dict[str, FloatArray]:
        self._catch_up()
        found: dict[str, FloatArray] = {}
        for chunk in chunks(names, IDS_PER_CALL):
            answer = self.collection.get(ids=chunk, include=["embeddings"])
            found.update(zip(answer["ids"], np.asarray(answer["embeddings"], dtype=np.float32), strict=True))
        return found

    def _batches(self, batch_size: int) -> Iterator[tuple[list[str], FloatArray]]:
        offset = 0
        while True:
            page = self.collection.get(include=["embeddings"], limit=batch_size, offset=offset)
            if not page["ids"]:
                return
            yield page["ids"], np.asarray(page["embeddings"], dtype=np.float32)
            offset += len(page["ids"])

    def search(
        self, queries: FloatArray, k: int, *, where: Mapping[str, Any] | ChromaFilter | None = None
    ) -> SearchResult:
        """The k best nodes of each query, as far as Chroma's index finds them."""
        checked = check_queries(queries, k, dimension=self.dimension).astype(np.float32)
        ids: list[list[str]] = []
        scores: list[Float64Array] = []
        if self.dimension is None:
            return SearchResult([[] for _ in checked], [np.zeros(0) for _ in checked])
        offset = 0.0 if self.capabilities.similarity == "l2" else 1.0
        for first in range(0, len(checked), QUERIES_PER_CALL):
            answer = self.collection.query(
                query_embeddings=checked[first : first + QUERIES_PER_CALL],
                n_results=k,
                include=["distances"],
                **_arguments(where),
            )
            ids.extend(answer["ids"])
            scores.extend(offset - np.asarray(line, dtype=np.float64) for line in answer["distances"] or [])
        return SearchResult(ids, scores)

    def matching(self, ids: Sequence[str], where: Mapping[str, Any] | ChromaFilter | None) -> set[str]:
        """Return those of ``ids`` that exist and pass ``where``."""
        arguments = _arguments(where)
        names = set(self._possible(check_ids(ids))) & set(arguments.pop("ids", ids))
        found: set[str] = set()
        for chunk in chunks(sorted(names), IDS_PER_CALL):
            found.update(self.collection.get(ids=chunk, include=[], **arguments)["ids"])
        return found

    def _write(self, names: list[str], rows: FloatArray) -> None:
        """Overwrite vectors. Chroma ignores an update to an id it lacks, so every id is looked up first."""
        self._require(names, self.matching(names, None))
        self._update(names, rows)

    def _write_present(self, names: list[str], rows: FloatArray) -> list[str]:
        """Overwrite vectors that were read a moment ago, at once: whoever writes in between is overwritten."""
        if not names:
            return []
        self._update(names, rows)
        present = self.matching(names, None)
        return [name for name in names if name not in present]

    def _update(self, names: list[str], rows: FloatArray) -> None:
        written = written_to_read_back(rows) if self.capabilities.similarity == "cosine" else rows
        for first in range(0, len(names), IDS_PER_CALL):
            part = slice(first, first + IDS_PER_CALL)
            self.collection.update(ids=names[part], embeddings=written[part])
        self._state = None if self._file is None else file_state(self._file)

    def _catch_up(self) -> None:
        """Let an embedded client see what other processes have written to its folder: it does so when it writes.

        An update of an id that is not there writes nothing but brings its index up to date (chromadb 1.5).
        """
        if self._file is None or (state := file_state(self._file)) == self._state:
            return
        if self._state is not None:
            self.collection.update(ids=[NOBODY], metadatas=[{"nudge-rag": "refresh"}])
            state = file_state(self._file)
        self._state = state

    def follow_live(self) -> None:
        """Let the collection that was given be the live one again, if another process has switched since."""
        self._copies.follow()

    def history(self) -> BlobStorage:
        """The store's history: a collection of its own."""
        return ChromaHistory(self.collection, origin_of(self.collection))

    def create_copy(self, label: str) -> ChromaStore:
        """Copy all nodes to a collection ``<name>.<label>.beside``."""
        return self._adapter_of_copy(self._copies.create(label), label)

    def open_copy(self, label: str) -> ChromaStore:
        """Return the adapter of the collection at ``label``.

        Raises:
            ValueError: there is none.
        """
        return self._adapter_of_copy(self._copies.collection(label), label)

    def catch_up_and_switch(self, label: str, moved: NodesOfCopy, notes: CopyNotes) -> int:
        """Bring what was written since to the copy ``label``, and rename both; gives the number of nodes."""
        self._catch_up()
        return self._copies.catch_up_and_switch(label, self._records, moved, notes)

    def bring_late_writes(self, label: str, moved: NodesOfCopy, notes: CopyNotes) -> int | None:
        """Bring what was written to the copy ``label`` since it was live to the live version."""
        self._catch_up()
        return self._copies.bring_late(label, self._records, moved, notes)

    @property
    def _records(self) -> ChromaRecords:
        return ChromaRecords(self.capabilities.rounding)

    def _adapter_of_copy(self, collection: Collection, label: str) -> ChromaStore:
        copied = ChromaStore(collection)
        copied._key = f"{self._key}-{label}"
        copied._capabilities = replace(self._capabilities, side_by_side=False)
        return copied

    def as_stored(self, vectors: FloatArray) -> FloatArray:
        """``vectors`` as they will be read back: a cosine space changes their last bits."""
        rows = np.asarray(vectors, dtype=np.float32)
        return read_back(written_to_read_back(rows)) if self.capabilities.similarity == "cosine" else rows


def _arguments(where: Mapping[str, Any] | ChromaFilter | None) -> dict[str, Any]:
    """Keyword arguments of Chroma's get and query; it takes no empty ones."""
    given = where if isinstance(where, ChromaFilter) else ChromaFilter(where=where)
    arguments: dict[str, Any] = {}
    if given.where:
        arguments["where"] = dict(given.where)
    if given.where_document:
        arguments["where_document"] = dict(given.where_document)
    if given.ids is not None:
        arguments["ids"] = list(given.ids)
    return arguments
