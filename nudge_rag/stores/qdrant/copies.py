"""A second Qdrant collection under an alias of its own, and swapping the aliases of the two."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.stores.base import StoreError
from nudge_rag.stores.checks import check_label
from nudge_rag.stores.copies import CopyNotes, NodesOfCopy, unknown_copy
from nudge_rag.stores.late_writes import Record, Records, bring_noted, switch_collections

__all__ = ["QdrantCopies", "QdrantRecords", "aliases_of", "vector_named"]

POINTS_PER_CALL = 500
PARTS = ("shard_number", "replication_factor", "write_consistency_factor", "on_disk_payload")


class QdrantCopies:
    """Collections that hold copies of the one that ``alias`` stands for."""

    def __init__(self, client: Any, alias: str) -> None:
        self._client, self._alias = client, alias
        self._prefix, self._copies = f"{alias}__beside_", f"{alias}__copy_"

    def labels(self) -> list[str]:
        """Labels of the versions beside the live one, and of copies that were cut off, which can only be dropped."""
        return list(dict.fromkeys([*self._complete(), *self._cut_off()]))

    def _complete(self) -> list[str]:
        return [name.removeprefix(self._prefix) for name in aliases_of(self._client) if name.startswith(self._prefix)]

    def _cut_off(self) -> dict[str, str]:
        """Collections by label whose copying ended before they had an alias: points come after, so these are empty."""
        named = set(aliases_of(self._client).values())
        names = [one.name for one in self._client.get_collections().collections]
        return {
            name.removeprefix(self._copies).rpartition("_")[0]: name
            for name in names
            if name.startswith(self._copies) and name not in named and not self._client.count(name).count
        }

    def alias(self, label: str) -> str:
        """Return the alias of that label.

        Raises:
            ValueError: there is none.
        """
        labels = self._complete()
        if check_label(label) not in labels:
            raise unknown_copy(label, labels, self._alias)
        return self._prefix + label

    def create(self, label: str) -> None:
        """Copy all points, with payload, vectors of every name, configuration and payload indexes."""
        from qdrant_client import models

        if check_label(label) in self.labels():
            self.drop(label)
        live, new = self._live(), self._free_name(label)
        info = self._client.get_collection(live)
        self._client.create_collection(new, **_configuration(info.config))
        made = models.CreateAlias(collection_name=new, alias_name=self._prefix + label)
        self._client.update_collection_aliases([models.CreateAliasOperation(create_alias=made)])
        for field, index in (info.payload_schema or {}).items():
            self._client.create_payload_index(new, field, field_schema=index.params or index.data_type, wait=True)
        for points in _pages(self._client, live, with_vectors=True):
            copies = [models.PointStruct(id=one.id, payload=one.payload, vector=one.vector) for one in points]
            self._client.upsert(new, copies, wait=True)

    def switch(self, label: str) -> None:
        """Swap the two aliases in one call.

        Raises:
            StoreError: a node's payload is not the same in both.
        """
        live, copy = self._live(), aliases_of(self._client)[self.alias(label)]
        self._same_payload(live, copy)
        self._swap(label, live, copy)

    def catch_up_and_switch(self, label: str, records: Records, moved: NodesOfCopy, notes: CopyNotes) -> int:
        """Bring points that were added, changed or deleted into the other collection, and swap the two aliases."""
        live, copy = self._live(), aliases_of(self._client)[self.alias(label)]
        return switch_collections(records, live, copy, moved, notes, lambda: self._swap(label, live, copy))

    def bring_late(self, label: str, records: Records, moved: NodesOfCopy, notes: CopyNotes) -> int | None:
        """Bring what was written to the other collection since it was live to the live one."""
        live, copy = self._live(), aliases_of(self._client)[self.alias(label)]
        return bring_noted(records, copy, live, moved.reversed(), notes)

    def _swap(self, label: str, live: str, copy: str) -> None:
        from qdrant_client import models

        other = self._prefix + label
        operations: list[Any] = [
            models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=name))
            for name in (self._alias, other)
        ]
        for name, collection in ((self._alias, copy), (other, live)):
            made = models.CreateAlias(collection_name=collection, alias_name=name)
            operations.append(models.CreateAliasOperation(create_alias=made))
        self._client.update_collection_aliases(operations)

    def drop(self, label: str) -> None:
        """Delete the collection of that label; its alias goes with it."""
        cut_off = self._cut_off().get(check_label(label))
        self._client.delete_collection(cut_off or aliases_of(self._client)[self.alias(label)])

    def _live(self) -> str:
        found = aliases_of(self._client).get(self._alias)
        if found is None:
            raise ValueError(
                f"{self._alias!r} is a Qdrant collection, not an alias: two versions are swapped by their aliases. Make"
                " one with client.update_collection_aliases(), and let the application open the collection by it"
            )
        return found

    def _free_name(self, label: str) -> str:
        """A name for the copy; one that a crash left without an alias is deleted."""
        taken, number = set(aliases_of(self._client).values()), 0
        while f"{self._copies}{label}_{number}" in taken:
            number += 1
        name = f"{self._copies}{label}_{number}"
        if self._client.collection_exists(name):
            self._client.delete_collection(name)
        return name

    def _same_payload(self, live: str, copy: str) -> None:
        changed = []
        for points in _pages(self._client, live, with_vectors=False):
            found = self._client.retrieve(copy, [one.id for one in points], with_payload=True, with_vectors=False)
            other = {one.id: one.payload or {} for one in found}
            changed += [str(one.id) for one in points if other.get(one.id, {}) != (one.payload or {})]
        if changed:
            raise StoreError(
                f"{len(changed)} node(s) of {self._alias!r} have another payload in the two versions: switching would"
                f" lose it; nothing was switched: {', '.join(changed[:5])}"
            )


class QdrantRecords:
    """Points of collections, with payload and vectors of every name.

    Args:
        client: a ``qdrant_client.QdrantClient``.
        vector_name: the named vector that nudges move, None for an unnamed one.
        rounding: of the collection.
        point_ids: turns node ids into those of points.
    """

    def __init__(
        self, client: Any, vector_name: str | None, rounding: float, point_ids: Callable[[Sequence[str]], list[Any]]
    ) -> None:
        self._client, self._vector_name, self.rounding, self._point_ids = client, vector_name, rounding, point_ids

    def pages(self, collection: str) -> Iterator[list[Record]]:
        """All points."""
        for points in _pages(self._client, collection, with_vectors=True):
            yield [self._record(point) for point in points]

    def fetch(self, collection: str, ids: Sequence[str]) -> dict[str, Record]:
        """Those of the points that exist."""
        found: dict[str, Record] = {}
        for first in range(0, len(ids), POINTS_PER_CALL):
            part = self._point_ids(ids[first : first + POINTS_PER_CALL])
            points = self._client.retrieve(collection, part, with_payload=True, with_vectors=True)
            found.update((str(point.id), self._record(point)) for point in points)
        return found

    def put(self, collection: str, records: Sequence[Record], vectors: FloatArray) -> None:
        """Upsert points."""
        from qdrant_client import models

        points = [
            models.PointStruct(id=one.raw.id, payload=one.raw.payload, vector=self._with(one.raw.vector, row.tolist()))
            for one, row in zip(records, vectors, strict=True)
        ]
        for first in range(0, len(points), POINTS_PER_CALL):
            self._client.upsert(collection, points[first : first + POINTS_PER_CALL], wait=True)

    def remove(self, collection: str, ids: Sequence[str]) -> None:
        """Delete points."""
        from qdrant_client import models

        self._client.delete(collection, models.PointIdsList(points=self._point_ids(ids)), wait=True)

    def _record(self, point: Any) -> Record:
        vectors = point.vector or {}
        vector = vector_named(self._vector_name, vectors)
        if vector is None:
            raise StoreError(f"point {point.id} has no vector {self._vector_name!r}: it cannot be copied")
        named = vectors if isinstance(vectors, dict) else {}
        others = {name: repr(other) for name, other in named.items() if name != (self._vector_name or "")}
        content = json.dumps([point.payload or {}, others], sort_keys=True, default=repr)
        return Record(str(point.id), np.array(vector, dtype=np.float32), content, point)

    def _with(self, vectors: Any, vector: list[float]) -> Any:
        return {**vectors, self._vector_name or "": vector} if isinstance(vectors, dict) else vector


def vector_named(name: str | None, vectors: Any) -> Any:
    """Choose a point's vector; the unnamed one (None) stands alone, or under an empty name beside sparse ones."""
    return (vectors or {}).get(name or "") if name is not None or isinstance(vectors, dict) else vectors


def aliases_of(client: Any) -> dict[str, str]:
    """Collection of each alias; empty if the client may not list them."""
    from qdrant_client.http.exceptions import UnexpectedResponse

    try:
        return {one.alias_name: one.collection_name for one in client.get_aliases().aliases}
    except UnexpectedResponse as error:
        if error.status_code not in (401, 403):
            raise
        return {}


def _pages(client: Any, collection: str, *, with_vectors: bool) -> Any:
    offset: Any = None
    while True:
        points, offset = client.scroll(
            collection, limit=POINTS_PER_CALL, offset=offset, with_payload=True, with_vectors=with_vectors
        )
        if points:
            yield points
        if offset is None:
            return


def _configuration(config: Any) -> dict[str, Any]:
    """Arguments of ``create_collection`` for a collection like the one that has ``config``."""
    from qdrant_client import models

    params = config.params
    method = str(getattr(params.sharding_method, "value", params.sharding_method) or "auto")
    if method != "auto":
        raise ValueError("collections with custom sharding are not copied: their points belong to shards by key")
    made: dict[str, Any] = {part: getattr(params, part) for part in PARTS}
    made |= {"vectors_config": params.vectors, "sparse_vectors_config": params.sparse_vectors}
    for name, kind, given in (
        ("hnsw_config", models.HnswConfigDiff, config.hnsw_config),
        ("optimizers_config", models.OptimizersConfigDiff, config.optimizer_config),
        ("wal_config", models.WalConfigDiff, config.wal_config),
    ):
        if given is not None:
            known = {
                key: value for key, value in given.model_dump(exclude_none=True).items() if key in kind.model_fields
            }
            made[name] = kind(**known)
    made["quantization_config"] = config.quantization_config
    return {name: value for name, value in made.items() if value is not None}
