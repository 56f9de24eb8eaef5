"""Weaviate collections (experimental)."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlparse

import numpy as np

from nudge_rag.common.arrays import Float64Array, FloatArray
from nudge_rag.common.packages import import_package
from nudge_rag.stores.adapter import StoreAdapter
from nudge_rag.stores.base import Capabilities, SearchResult, Similarity
from nudge_rag.stores.checks import check_ids, check_queries, check_synchronous, chunks, warn_experimental
from nudge_rag.stores.keys import store_key
from nudge_rag.stores.location import StoreLocation

__all__ = ["WeaviateStore"]

SIMILARITY: dict[str, Similarity] = {"cosine": "cosine", "dot": "dot", "l2-squared": "l2"}
IDS_PER_CALL = 500
# QUERY_MAXIMUM_RESULTS of a server that was not told otherwise.
LARGEST_K = 10_000
# The documentation does not say whether vectors are scaled for cosine; those of unit length come back within this.
COSINE_ROUNDING = 1e-6


class WeaviateStore(StoreAdapter):
    """Adapter for a ``weaviate`` (v4) collection. ``where`` is a ``weaviate.classes.query.Filter``; ids are UUIDs.

    Scores are larger-is-better, from the distance that Weaviate answers: 1 - distance for cosine, minus the distance
    for dot and l2-squared. Each query and each written vector is a call of its own; properties stay.

    Experimental: no running Weaviate has answered this adapter yet; its calls are bound to the client's signatures.
    Opening one warns.

    Args:
        collection: from ``client.collections.get(name)``, with its tenant if it has tenants.
        vector_name: the named vector to move, if the collection has several.

    Raises:
        TypeError: anything but a synchronous collection.
        ValueError: an unknown or missing vector name; a distance that is no similarity here; an empty collection.

    Example:
        >>> WeaviateStore("Docs")
        Traceback (most recent call last):
        ...
        TypeError: expected a weaviate collection, got str
    """

    name = "weaviate"
    ids_note = " (whose ids are UUIDs)"

    def __init__(self, collection: Any, *, vector_name: str | None = None) -> None:
        if not all(hasattr(collection, part) for part in ("query", "data", "config", "iterator", "aggregate")):
            raise TypeError(f"expected a weaviate collection, got {type(collection).__name__}")
        check_synchronous(collection, "weaviate collection")
        warn_experimental("Weaviate")
        self.collection = collection
        self.vector_name, index = _vector_index(collection, vector_name)
        distance = _word(getattr(index, "distance_metric", None))
        if distance not in SIMILARITY:
            raise ValueError(f"Weaviate distance {distance!r} is not one of {', '.join(SIMILARITY)}")
        self._dimension = self._first_dimension()
        self._capabilities = Capabilities(
            SIMILARITY[distance],
            exact_search=False,
            batch_search=False,
            persistent=True,
            rounding=COSINE_ROUNDING if distance == "cosine" else 0.0,
            experimental=True,
        )

    @classmethod
    def from_url(cls, location: StoreLocation) -> WeaviateStore:
        """The collection that ``weaviate://`` names."""
        options = location.options
        weaviate = import_package("weaviate", "weaviate://", "weaviate")
        address = urlparse(location.address(8080))
        secure = address.scheme == "https"
        client = weaviate.connect_to_custom(
            http_host=str(address.hostname),
            http_port=address.port,
            http_secure=secure,
            grpc_host=str(address.hostname),
            grpc_port=int(options.get("grpc_port", "50051")),
            grpc_secure=secure,
            auth_credentials=weaviate.auth.AuthApiKey(options["api_key"]) if "api_key" in options else None,
        )
        return cls(client.collections.get(options["collection"]), vector_name=options.get("vector"))

    @property
    def key(self) -> str:
        """From the server's address, the collection, its tenant and the vector's name."""
        address = getattr(getattr(self.collection, "_connection", None), "url", "")
        place = f"{address} {self.collection.name} {self.collection.tenant} {self.vector_name}"
        return store_key("weaviate", place)

    def count(self) -> int:
        """Number of nodes."""
        return int(self.collection.aggregate.over_all(total_count=True).total_count)

    def _fetch(self, names: list[str]) -> dict[str, Any]:
        keys = {name: key for name in names if (key := _canonical(name)) is not None}
        found: dict[str, Any] = {}
        for chunk in chunks(list(dict.fromkeys(keys.values())), IDS_PER_CALL):
            answer = self.collection.query.fetch_objects_by_ids(
                chunk, limit=len(chunk), include_vector=self._with_vector, return_properties=False
            )
            found.update((str(one.uuid), self._vector_of(one)) for one in answer.objects)
        return {name: found[key] for name, key in keys.items() if key in found}

    def _batches(self, batch_size: int) -> Iterator[tuple[list[str], FloatArray]]:
        page: list[Any] = []
        for one in self.collection.iterator(include_vector=self._with_vector, return_properties=False):
            page.append(one)
            if len(page) == batch_size:
                yield self._rows(page)
                page = []
        if page:
            yield self._rows(page)

    def search(self, queries: FloatArray, k: int, *, where: Any = None) -> SearchResult:
        """Find the k best nodes of each query, a call each.

        Raises:
            ValueError: k above 10,000, the servers' own limit.
        """
        checked = check_queries(queries, k, dimension=self._dimension).astype(np.float32)
        if k > LARGEST_K:
            raise ValueError(f"{self.name} answers a search with at most {LARGEST_K} nodes, k is {k}")
        offset = 1.0 if self.capabilities.similarity == "cosine" else 0.0
        ids: list[list[str]] = []
        scores: list[Float64Array] = []
        for query in checked.tolist():
            objects = self.collection.query.near_vector(
                query,
                limit=int(k),
                filters=where,
                target_vector=self.vector_name,
                return_metadata=["distance"],
                return_properties=False,
            ).objects
            ids.append([str(one.uuid) for one in objects])
            scores.append(offset - np.array([one.metadata.distance for one in objects], dtype=np.float64))
        return SearchResult(ids, scores)

    def spell_ids(self, ids: Sequence[str]) -> list[str]:
        """Spell ids as the database gives them back; ids of another kind stay as they are."""
        return [_canonical(name) or name for name in check_ids(ids)]

    def matching(self, ids: Sequence[str], where: Any) -> set[str]:
        """Return those of ``ids`` that exist and pass ``where``; ids that are no UUIDs do not exist."""
        from weaviate.classes.query import Filter

        key_of = {name: key for name in check_ids(ids) if (key := _canonical(name)) is not None}
        found: set[str] = set()
        for chunk in chunks(sorted(set(key_of.values())), IDS_PER_CALL):
            among = Filter.by_id().contains_any(chunk)
            filters = among if where is None else among & where
            objects = self.collection.query.fetch_objects(
                filters=filters, limit=len(chunk), return_properties=False
            ).objects
            found.update(str(one.uuid) for one in objects)
        return {name for name, key in key_of.items() if key in found}

    def _write(self, names: list[str], rows: FloatArray) -> None:
        """Overwrite vectors one by one, every id looked up first: an update to an id that is missing fails halfway."""
        self._require(names, self.matching(names, None))
        keys = [str(_canonical(name)) for name in names]
        if len(set(keys)) != len(keys):
            at = next(at for at, key in enumerate(keys) if key in keys[:at])
            raise ValueError(f"{names[at]!r} is the UUID {keys[at]}, which is given already: each node has one vector")
        for key, row in zip(keys, rows.tolist(), strict=True):
            vector = row if self.vector_name is None else {self.vector_name: row}
            self.collection.data.update(uuid=key, vector=vector)

    @property
    def _with_vector(self) -> Any:
        return True if self.vector_name is None else [self.vector_name]

    def _vector_of(self, one: Any) -> Any:
        vector = one.vector.get(self.vector_name or "default")
        if vector is None:
            raise ValueError(f"node {str(one.uuid)!r} has no vector {self.vector_name or ''!r} in {self.name}")
        return vector

    def _rows(self, page: list[Any]) -> tuple[list[str], FloatArray]:
        return [str(one.uuid) for one in page], np.array([self._vector_of(one) for one in page], dtype=np.float32)

    def _first_dimension(self) -> int:
        objects = self.collection.query.fetch_objects(
            limit=1, include_vector=self._with_vector, return_properties=False
        ).objects
        if not objects:
            raise ValueError(f"collection {self.collection.name!r} is empty: it has no dimension yet")
        return len(self._vector_of(objects[0]))


def _vector_index(collection: Any, vector_name: str | None) -> tuple[str | None, Any]:
    """The name (None for a collection with one unnamed vector) and the index of the vector to move."""
    config = collection.config.get()
    named = config.vector_config
    if not named:
        if vector_name:
            raise ValueError(f"collection {collection.name!r} has one unnamed vector, not {vector_name!r}")
        return None, config.vector_index_config
    name = vector_name if vector_name is not None or len(named) != 1 else next(iter(named))
    if name not in named:
        raise ValueError(f"vector_name must be one of {', '.join(map(repr, named))}, got {vector_name!r}")
    return name, named[name].vector_index_config


def _word(value: Any) -> str:
    return str(getattr(value, "value", value))


def _canonical(name: str) -> str | None:
    try:
        return str(uuid.UUID(name))
    except ValueError:
        return None
