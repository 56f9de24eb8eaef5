"""A double of the collections of Weaviate's client: Weaviate talks gRPC, so this stands one step nearer than HTTP.

Every call is bound to the signature of the real client's method first, filters are the client's own objects, and
answers are the client's own classes.
"""

from __future__ import annotations

import contextlib
import inspect
import uuid
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
from weaviate.collections import Collection
from weaviate.collections.aggregate import _AggregateCollection
from weaviate.collections.classes.aggregate import AggregateReturn
from weaviate.collections.classes.config import VectorDistances, _NamedVectorConfig, _VectorIndexConfigFlat
from weaviate.collections.classes.internal import MetadataReturn, Object, QueryReturn
from weaviate.collections.collections import _Collections
from weaviate.collections.config import _ConfigCollection
from weaviate.collections.data import _DataCollection
from weaviate.collections.query import _QueryCollection

DISTANCES: dict[str, Callable[[Any, Any], Any]] = {
    "cosine": lambda q, v: 1 - q @ v / np.sqrt((q @ q) * (v @ v)),
    "dot": lambda q, v: -(q @ v),
    "l2-squared": lambda q, v: ((q - v) ** 2).sum(),
}


def bound(real: Callable[..., Any], answer: Callable[..., Any]) -> Callable[..., Any]:
    """``answer`` with the arguments by name, once they fit ``real``, a method of a class."""
    signature = inspect.signature(real)

    def call(*args: Any, **kwargs: Any) -> Any:
        arguments = signature.bind(None, *args, **kwargs).arguments
        arguments.pop("self")
        return answer(**arguments)

    return call


def function_bound(real: Callable[..., Any], answer: Callable[..., Any]) -> Callable[..., Any]:
    """The same for a function."""
    signature = inspect.signature(real)
    return lambda *args, **kwargs: answer(**signature.bind(*args, **kwargs).arguments)


class Weaviate:
    """One collection: objects by id, each with properties and a vector."""

    def __init__(self, name: str, distance: str, vector_name: str | None = None) -> None:
        self.name, self.tenant, self.distance, self.vector_name = name, None, distance, vector_name
        self.objects: dict[str, tuple[dict[str, Any], np.ndarray]] = {}
        self.updates = 0
        self.config = SimpleNamespace(get=bound(_ConfigCollection.get, self.configuration))
        self.aggregate = SimpleNamespace(over_all=bound(_AggregateCollection.over_all, self.total))
        self.data = SimpleNamespace(
            update=bound(_DataCollection.update, self.update),
            delete_many=bound(_DataCollection.delete_many, self.delete_many),
        )
        self.iterator = bound(Collection.iterator, self.everything)
        self.query = SimpleNamespace(
            near_vector=bound(_QueryCollection.near_vector, self.nearest),
            fetch_objects=bound(_QueryCollection.fetch_objects, self.fetched),
            fetch_objects_by_ids=bound(_QueryCollection.fetch_objects_by_ids, self.fetched_by_ids),
        )

    def configuration(self, simple: bool = False) -> Any:
        index = _VectorIndexConfigFlat(None, None, VectorDistances(self.distance), 1)
        named = {self.vector_name: _NamedVectorConfig(None, index)} if self.vector_name else None
        tenancy = SimpleNamespace(enabled=False)
        unnamed = None if named else index
        return SimpleNamespace(
            vector_config=named, vector_index_config=unnamed, multi_tenancy_config=tenancy, properties=[]
        )

    def total(self, total_count: bool = True) -> AggregateReturn:
        return AggregateReturn(properties={}, total_count=len(self.objects) if total_count else None)

    def update(self, uuid: str, vector: Any) -> None:
        properties, _ = self.objects[uuid]
        self.updates += 1
        self.objects[uuid] = (properties, self.row(vector))

    def delete_many(self, where: Any) -> None:
        for name in [name for name, (properties, _) in self.objects.items() if passes(where, name, properties)]:
            del self.objects[name]

    def row(self, vector: Any) -> np.ndarray:
        return np.array(vector[self.vector_name] if self.vector_name else vector, dtype=np.float32)

    def answered(self, name: str, include_vector: Any = False, distance: Any = None, properties: Any = None) -> Object:
        wanted = include_vector is True or (include_vector and self.vector_name in include_vector)
        kept, row = self.objects[name]
        return Object(
            uuid=uuid.UUID(name),
            metadata=MetadataReturn(distance=distance),
            properties={} if properties is False else dict(kept),
            references=None,
            vector={self.vector_name or "default": row.tolist()} if wanted else {},
            collection=self.name,
        )

    def everything(self, include_vector: Any = False, return_properties: Any = None) -> Iterator[Object]:
        return iter([self.answered(name, include_vector, None, return_properties) for name in sorted(self.objects)])

    def nearest(
        self,
        near_vector: Any,
        limit: int,
        filters: Any = None,
        target_vector: Any = None,
        return_metadata: Any = None,
        return_properties: Any = None,
    ) -> QueryReturn:
        if target_vector != self.vector_name or limit > 10_000:
            raise ValueError(f"target vector {target_vector!r}, limit {limit}")
        asked = np.array(near_vector, dtype=np.float64)
        far = {
            name: float(np.float32(DISTANCES[self.distance](asked, row.astype(np.float64))))
            for name, (_, row) in self.objects.items()
            if passes(filters, name, self.objects[name][0])
        }
        shown = far if "distance" in (return_metadata or []) else {}
        best = sorted(far, key=lambda name: far[name])[:limit]
        return QueryReturn([self.answered(name, False, shown.get(name), return_properties) for name in best])

    def fetched(
        self, limit: int = 10, filters: Any = None, include_vector: Any = False, return_properties: Any = None
    ) -> QueryReturn:
        names = [name for name in self.objects if passes(filters, name, self.objects[name][0])][:limit]
        return QueryReturn([self.answered(name, include_vector, None, return_properties) for name in names])

    def fetched_by_ids(
        self, ids: Any, limit: int = 10, include_vector: Any = False, return_properties: Any = None
    ) -> QueryReturn:
        names = [name for name in sorted(ids) if name in self.objects][:limit]
        return QueryReturn([self.answered(name, include_vector, None, return_properties) for name in names])


def passes(filters: Any, name: str, properties: dict[str, Any]) -> bool:
    """The client's filter objects: and, or, equality, less than and membership."""
    if filters is None:
        return True
    operator = filters.operator.value
    if operator in ("And", "Or"):
        found = [passes(part, name, properties) for part in filters.filters]
        return all(found) if operator == "And" else any(found)
    value = name if filters.target == "_id" else properties.get(filters.target)
    if operator == "Equal":
        return bool(value == filters.value)
    if operator == "LessThan":
        return bool(value < filters.value)
    if operator == "ContainsAny":
        return value in [str(one) for one in filters.value]
    raise ValueError(f"the double knows no filter {operator}")


def client_of(collection: Weaviate, base: type) -> Any:
    """A client (an instance of ``base`` that was never connected) whose only collection is this."""

    class Client(base):  # type: ignore[misc]
        def __init__(self) -> None:
            pass

    client = Client()
    client.collections = SimpleNamespace(
        exists=bound(_Collections.exists, lambda name: True), get=bound(_Collections.get, lambda name: collection)
    )

    def add_object(collection: str, properties: Any, uuid: Any, vector: Any, tenant: Any = None) -> None:
        one.objects[str(uuid)] = (dict(properties), one.row({one.vector_name: vector} if one.vector_name else vector))

    one = collection
    writer = SimpleNamespace(add_object=add_object)
    client.batch = SimpleNamespace(dynamic=lambda: contextlib.nullcontext(writer), failed_objects=[])
    return client
