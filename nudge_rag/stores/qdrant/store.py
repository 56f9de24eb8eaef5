"""Qdrant collections: a server, or the client's local mode."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nudge_rag.common.arrays import Float64Array, FloatArray
from nudge_rag.common.packages import import_package
from nudge_rag.common.spelling import other_spellings
from nudge_rag.stores.adapter import StoreAdapter
from nudge_rag.stores.base import Capabilities, SearchResult, Similarity
from nudge_rag.stores.checks import check_ids, check_queries, chunks
from nudge_rag.stores.copies import CopiesMixin, CopyNotes, NodesOfCopy
from nudge_rag.stores.history import BlobStorage
from nudge_rag.stores.keys import store_key
from nudge_rag.stores.location import StoreLocation
from nudge_rag.stores.qdrant.copies import QdrantCopies, QdrantRecords, aliases_of, vector_named
from nudge_rag.stores.qdrant.history import QdrantHistory, history_name

__all__ = ["QdrantStore"]

SIMILARITY: dict[str, Similarity] = {"Cosine": "cosine", "Dot": "dot", "Euclid": "l2"}
IDS_PER_CALL = 500
QUERIES_PER_CALL = 128
# A cosine collection scales vectors to unit length in float32, and local mode does so again at every search: the last
# bit or two of each number are not the store's to keep.
COSINE_ROUNDING = 1e-6


class QdrantStore(CopiesMixin, StoreAdapter):
    """Adapter for a Qdrant collection. ``where`` is a ``qdrant_client.models.Filter``; ids are UUIDs or integers.

    Scores are larger-is-better: cosine or inner product as Qdrant gives them, minus the squared distance for Euclid.
    Cosine collections keep directions only: vectors come back at unit length, to within 1e-6.

    Args:
        client: a ``qdrant_client.QdrantClient``.
        collection: the collection's name, or an alias of it. By an alias the store holds copies, each in a
            collection of its own; switching to one swaps the aliases.
        vector_name: the named vector to move, if the collection has several.
        exact: search without the HNSW index on a server; local mode always does.

    Raises:
        TypeError: anything but a client.
        ValueError: a collection that does not exist; an unknown or missing vector name; Manhattan distance; vectors
            stored as anything but float32.
    """

    name = "qdrant"
    ids_note = " (whose ids are UUIDs or integers)"

    def __init__(self, client: Any, collection: str, *, vector_name: str | None = None, exact: bool = False) -> None:
        if not all(hasattr(client, part) for part in ("query_batch_points", "update_vectors", "get_collection")):
            raise TypeError(f"expected a QdrantClient, got {type(client).__name__}")
        aliased = self._is_alias = collection in aliases_of(client)
        if not aliased and not client.collection_exists(collection):
            raise ValueError(f"there is no Qdrant collection {collection!r}")
        self.client, self.collection = client, collection
        self.vector_name, params = _vector_params(client, collection, vector_name)
        self._dimension = int(params.size)
        self._location = _location(client)
        local = hasattr(client._client, "collections")
        distance = str(getattr(params.distance, "value", params.distance))
        if distance not in SIMILARITY:
            raise ValueError(f"Qdrant distance {distance!r} is not one of {', '.join(SIMILARITY)}")
        cosine = distance == "Cosine"
        self._exact = exact
        self._capabilities = Capabilities(
            SIMILARITY[distance],
            keeps_norms=not cosine,
            exact_search=exact or local,
            persistent=self._location != ":memory:",
            rounding=COSINE_ROUNDING if cosine else 0.0,
            side_by_side=aliased,
            atomic_switch=aliased,
        )
        self._copies: QdrantCopies = QdrantCopies(client, collection)

    @classmethod
    def from_url(cls, location: StoreLocation) -> QdrantStore:
        """The collection that ``qdrant://`` names, in a folder or on a server."""
        options = location.options
        path = location.path
        if path is not None and not Path(path).is_dir():
            raise ValueError(f"there is no Qdrant folder at {path!r}")  # Qdrant would make an empty one
        place = {"path": path} if path else {"url": location.address(6333), "api_key": options.get("api_key")}
        client = import_package("qdrant_client", "qdrant://", "qdrant").QdrantClient(**place)
        return cls(client, options["collection"], vector_name=options.get("vector"))

    @property
    def key(self) -> str:
        """A hash of the collection's place, its name and the vector's."""
        place = f"{self._location} {self.collection} {self.vector_name}"
        return store_key("qdrant", place)

    def count(self) -> int:
        """Number of nodes."""
        return int(self.client.count(self.collection, exact=True).count)

    def _fetch(self, names: list[str]) -> dict[str, Any]:
        collection = self._place(len(names) > IDS_PER_CALL)
        found: dict[str, Any] = {}
        for chunk in chunks(names, IDS_PER_CALL):
            points = self.client.retrieve(
                collection, _point_ids(chunk), with_payload=False, with_vectors=self._with_vectors
            )
            found.update((str(point.id), self._vector_of(point)) for point in points)
        keys = {name: str(_canonical(name)) for name in names}
        return {name: found[key] for name, key in keys.items() if key in found}

    def _batches(self, batch_size: int) -> Iterator[tuple[list[str], FloatArray]]:
        """All nodes, page by page; by an alias, those of the collection that it names at the start."""
        return self._pages(batch_size)

    def _pages(self, batch_size: int) -> Iterator[tuple[list[str], FloatArray]]:
        place, offset = self._place(pinned=True), None
        while True:
            points, offset = self.client.scroll(
                place, limit=batch_size, offset=offset, with_payload=False, with_vectors=self._with_vectors
            )
            if points:
                vectors = np.array([self._vector_of(point) for point in points], dtype=np.float32)
                yield [str(point.id) for point in points], vectors
            if offset is None:
                return

    def search(self, queries: FloatArray, k: int, *, where: Any = None) -> SearchResult:
        """The k best nodes of each query."""
        from qdrant_client import models

        checked = check_queries(queries, k, dimension=self._dimension).astype(np.float32)
        parameters = models.SearchParams(exact=True) if self._exact else None
        place = self._place(len(checked) > QUERIES_PER_CALL)
        ids: list[list[str]] = []
        scores: list[Float64Array] = []
        for first in range(0, len(checked), QUERIES_PER_CALL):
            requests = [
                models.QueryRequest(
                    query=row.tolist(), limit=k, filter=where, using=self.vector_name, params=parameters
                )
                for row in checked[first : first + QUERIES_PER_CALL]
            ]
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Local mode performs exact")
                answers = self.client.query_batch_points(place, requests)
            for answer in answers:
                ids.append([str(point.id) for point in answer.points])
                scores.append(self._scores(np.array([point.score for point in answer.points], dtype=np.float64)))
        return SearchResult(ids, scores)

    def _scores(self, given: Float64Array) -> Float64Array:
        return -(given**2) if self.capabilities.similarity == "l2" else given

    def spell_ids(self, ids: Sequence[str]) -> list[str]:
        """Spell ids as the database gives them back; ids of another kind stay as they are."""
        return [_canonical(name) or name for name in check_ids(ids)]

    def matching(self, ids: Sequence[str], where: Any) -> set[str]:
        """Return those of ``ids`` that exist and pass ``where``; ids of another kind than Qdrant's do not exist."""
        names = check_ids(ids)
        return self._matching(self._place(len(names) > IDS_PER_CALL), names, where)

    def _matching(self, place: str, names: Sequence[str], where: Any) -> set[str]:
        from qdrant_client import models

        named = {key: name for name in names if (key := _canonical(name)) is not None}
        found: set[str] = set()
        for chunk in chunks(sorted(named), IDS_PER_CALL):
            conditions: list[Any] = [models.HasIdCondition(has_id=_point_ids(chunk))]
            points, _ = self.client.scroll(
                place,
                scroll_filter=models.Filter(must=conditions if where is None else [*conditions, where]),
                limit=len(chunk),
                with_payload=False,
                with_vectors=False,
            )
            found.update(named[str(point.id)] for point in points)
        return found

    def _write(self, names: list[str], rows: FloatArray) -> None:
        """Overwrite vectors. Qdrant ignores, or stops halfway at, an id it lacks: every id is looked up first."""
        collection = self._place(pinned=True)
        self._require(names, self._matching(collection, names, None))
        points = self._points(names, rows)
        for first in range(0, len(points), IDS_PER_CALL):
            self.client.update_vectors(collection, points[first : first + IDS_PER_CALL], wait=True)

    def _prepare_write(self, names: list[str], rows: FloatArray) -> Callable[[list[int]], list[str]]:
        """Make all points ready, which takes longer than the look at them and the write."""
        known = [row for row, name in enumerate(names) if _canonical(name) is not None]
        points = dict(zip(known, self._points([names[row] for row in known], rows[known]), strict=True))

        def write(places: list[int]) -> list[str]:
            chosen = [names[place] for place in places]
            return self._update_present(chosen, [points[place] for place in places], rows[places])

        return write

    def _update_present(self, names: list[str], points: list[Any], rows: FloatArray) -> list[str]:
        """Overwrite vectors of nodes that were there a moment ago: ids of those that were not written.

        If a node is gone by now, Qdrant has written the others, or stopped there: what has another vector than its new
        one, written by somebody else or not at all, is left alone.
        """
        try:
            self.client.update_vectors(self._place(pinned=True), points, wait=True)
        except Exception:
            present = self._fetch(names)
            if len(present) == len(names):
                raise
            here = [row for row, name in enumerate(names) if name in present]
            found, wanted = self._matrix([present[names[row]] for row in here]), self.as_stored(rows)
            written = {names[row] for row, same in zip(here, self._same_rows(found, wanted[here]), strict=True) if same}
            return [name for name in names if name not in written]
        return []

    def _points(self, names: list[str], rows: FloatArray) -> list[Any]:
        from qdrant_client import models

        written = self.as_stored(rows).tolist()
        return [
            models.PointVectors(id=point, vector=vector if self.vector_name is None else {self.vector_name: vector})
            for point, vector in zip(_point_ids(names), written, strict=True)
        ]

    def history(self) -> BlobStorage:
        """The store's history: a collection of its own, the same by the collection's name and by its aliases."""
        concrete = self._place(pinned=True)
        names = [self.collection, concrete, *(name for name, at in aliases_of(self.client).items() if at == concrete)]
        holder = history_name(self.client, list(dict.fromkeys(names)))
        return QdrantHistory(self.client, holder, self.vector_name or "")

    def create_copy(self, label: str) -> QdrantStore:
        """Copy all points to another collection.

        Raises:
            ValueError: this one was not opened by an alias.
        """
        self._copies.create(label)
        return self.open_copy(label)

    def open_copy(self, label: str) -> QdrantStore:
        """The store on the collection ``label``."""
        alias = self._copies.alias(label)
        return QdrantStore(self.client, alias, vector_name=self.vector_name, exact=self._exact)

    def catch_up_and_switch(self, label: str, moved: NodesOfCopy, notes: CopyNotes) -> int:
        """Bring what was written since to the copy ``label``, and swap the aliases; gives the number of nodes."""
        return self._copies.catch_up_and_switch(label, self._records, moved, notes)

    def bring_late_writes(self, label: str, moved: NodesOfCopy, notes: CopyNotes) -> int | None:
        """Bring what was written to the copy ``label`` since it was live to the live version."""
        return self._copies.bring_late(label, self._records, moved, notes)

    @property
    def _records(self) -> QdrantRecords:
        return QdrantRecords(self.client, self.vector_name, self.capabilities.rounding, _point_ids)

    def _place(self, pinned: bool) -> str:
        """Name the target of a call; if ``pinned``, for several in a row, the collection that the alias names now."""
        if not (pinned and self._is_alias):
            return self.collection
        return aliases_of(self.client).get(self.collection, self.collection)

    @property
    def _with_vectors(self) -> Any:
        return True if self.vector_name is None else [self.vector_name]

    def _vector_of(self, point: Any) -> Any:
        vector = vector_named(self.vector_name, point.vector)
        if vector is None:
            raise ValueError(f"node {str(point.id)!r} has no vector {self.vector_name!r} in {self.name}")
        return vector


def _vector_params(client: Any, collection: str, vector_name: str | None) -> tuple[str | None, Any]:
    """The name (None for a collection with one unnamed vector) and parameters of the vector to move."""
    vectors = client.get_collection(collection).config.params.vectors
    if not isinstance(vectors, dict):
        if vector_name:
            raise ValueError(f"collection {collection!r} has one unnamed vector, not {vector_name!r}")
        name, params = None, vectors
    else:
        if not vectors:
            raise ValueError(f"collection {collection!r} has no dense vectors, which nudges move")
        name = vector_name if vector_name is not None or len(vectors) != 1 else next(iter(vectors))
        if name not in vectors:
            raise ValueError(f"vector_name must be one of {', '.join(map(repr, vectors))}, got {vector_name!r}")
        params = vectors[name]
        # LangChain makes collections of one vector with an empty name, which is the unnamed one.
        name = name or None
    kind = str(getattr(params.datatype, "value", params.datatype) or "float32")
    if kind != "float32" or params.multivector_config is not None:
        raise ValueError(f"vectors of collection {collection!r} must be single float32 vectors, they are {kind}")
    return name, params


def _location(client: Any) -> str:
    inner = client._client
    return str(getattr(inner, "location", None) or getattr(inner, "rest_uri", None) or type(inner).__name__)


def _canonical(name: str) -> str | None:
    """An id as Qdrant gives it back: a decimal integer or a hyphenated UUID, or None if it is neither."""
    plain = _plain(name)
    return plain if plain is not None else next(filter(None, map(_plain, other_spellings(name))), None)


def _plain(name: str) -> str | None:
    if name.isascii() and name.isdigit():
        return str(int(name))
    try:
        return str(uuid.UUID(name))
    except ValueError:
        return None


def _point_ids(names: Sequence[str]) -> list[Any]:
    keys = [key for key in map(_canonical, names) if key is not None]
    return [int(key) if key.isdigit() else key for key in keys]
