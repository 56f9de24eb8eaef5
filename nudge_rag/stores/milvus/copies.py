"""Versions of a Milvus collection beside the one that an alias names."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.stores.base import StoreError
from nudge_rag.stores.checks import check_label
from nudge_rag.stores.copies import CopyNotes, NodesOfCopy, unknown_copy
from nudge_rag.stores.late_writes import Record, bring_noted, switch_collections
from nudge_rag.stores.milvus.schema import STRONG, Schema, among, pages

__all__ = ["MilvusCopies"]

ROWS_PER_CALL = 200  # of up to 64 kB of text each
# Entries of describe_index that are not parameters that the index was made with.
STATE = {"index_name", "field_name", "index_type", "metric_type", "state", "total_rows", "indexed_rows"}
STATE |= {"pending_index_rows", "min_index_version", "max_index_version"}


class MilvusCopies:
    """An alias, and the aliases ``<alias>__beside_<label>`` of its copies.

    Milvus can re-point one alias atomically, but not two. Readers see only the main alias, so that one moves in the
    atomic step. ``<alias>__switching_<label>`` records the old target first; if the process dies after the step, the
    next call finishes the switch from it. A collection that is being copied or dropped is called
    ``<alias>__scrap_<number>``: whatever was cut off, one of that name holds nothing that is needed.
    """

    def __init__(self, client: Any, alias: str, schema: Schema) -> None:
        self.client, self.alias, self.schema = client, alias, schema
        self._beside, self._switching, self._scrap = f"{alias}__beside_", f"{alias}__switching_", f"{alias}__scrap_"

    def labels(self) -> list[str]:
        """Labels of all versions."""
        targets = {label: self._target(self._beside + label) for label in self._labels(self._beside)}
        kept = {label: target for label, target in targets.items() if not target.startswith(self._scrap)}
        return [label for label, target in kept.items() if self.client.has_collection(target)]

    def collection_of(self, label: str) -> str:
        """The collection of the version ``label``."""
        labels = self.labels()
        if check_label(label) not in labels:
            raise unknown_copy(label, labels, self.alias)
        if label in self._labels(self._switching):
            before = self._target(self._switching + label)
            if before != self._target(self.alias):
                return before
        return self._target(self._beside + label)

    def create(self, label: str) -> str:
        """Copy the live collection to a new one at ``label``; gives its name."""
        check_label(label)
        if self.schema.auto_id or self.schema.opaque:
            reason = ", ".join(self.schema.opaque) or "auto_id: Milvus would give the copies new ids"
            raise ValueError(f"the rows of {self.alias!r} cannot be copied because of {reason}")
        self._settle()
        number = secrets.token_hex(4)
        live, copy, scrap = self._target(self.alias), f"{self.alias}__copy_{number}", self._scrap + number
        try:
            _copy_collection(self.client, live, scrap, self.schema)
            _copy_rows(self.client, live, scrap, self.schema)
        except Exception:
            self._settle()
            raise
        if label in self.labels():
            self._drop(label)
        self.client.create_alias(scrap, self._beside + label)
        self.client.rename_collection(scrap, copy)
        self._settle()
        return copy

    def switch(self, label: str) -> None:
        """Swap the collections of the alias and of ``label``."""
        self._settle()
        new, live = self._load(self.collection_of(label)), self._load(self._target(self.alias))
        self._same_rows(live, new)
        self._swap(label, live, new)

    def catch_up_and_switch(self, label: str, moved: NodesOfCopy, notes: CopyNotes) -> int:
        """Bring rows that were added, changed or deleted into the other collection, and re-point the alias."""
        self._settle()
        new, live = self._load(self.collection_of(label)), self._load(self._target(self.alias))
        records = MilvusRecords(self.client, self.schema)
        return switch_collections(records, live, new, moved, notes, lambda: self._swap(label, live, new))

    def bring_late(self, label: str, moved: NodesOfCopy, notes: CopyNotes) -> int | None:
        """Bring what was written to the other collection since it was live to the live one."""
        self._settle()
        copy, live = self._load(self.collection_of(label)), self._load(self._target(self.alias))
        records = MilvusRecords(self.client, self.schema)
        return bring_noted(records, copy, live, moved.reversed(), notes)

    def _swap(self, label: str, live: str, new: str) -> None:
        self.client.load_collection(new)
        self.client.create_alias(live, self._switching + label)
        self.client.alter_alias(new, self.alias)
        self._settle()

    def drop(self, label: str) -> None:
        """Remove ``label``, and its collection unless a further alias names it."""
        self._settle()
        self._drop(label)
        self._settle()

    def _drop(self, label: str) -> None:
        collection = self.collection_of(label)
        if self.client.list_aliases(collection)["aliases"] == [self._beside + label]:
            self.client.rename_collection(collection, self._scrap + secrets.token_hex(4))
        self.client.drop_alias(self._beside + label)

    def _settle(self) -> None:
        """Complete switches that were cut off, forget those that had not begun, drop collections of no use."""
        for label in self._labels(self._switching):
            before = self._target(self._switching + label)
            if self._target(self.alias) != before:
                self.client.alter_alias(before, self._beside + label)
            self.client.drop_alias(self._switching + label)
        for collection in self.client.list_collections():
            if re.fullmatch(f"{self._scrap}[0-9a-f]{{8}}", collection):
                for name in self.client.list_aliases(collection)["aliases"]:
                    self.client.drop_alias(name)
                self.client.drop_collection(collection)
        for label in self._labels(self._beside):
            # Milvus Lite renames a collection and its aliases in two steps.
            if not self.client.has_collection(self._target(self._beside + label)):
                self.client.drop_alias(self._beside + label)

    def _load(self, collection: str) -> str:
        """Load a collection for reading, if it is not: Milvus Lite forgets it when its last process ends."""
        if getattr(self.client.get_load_state(collection)["state"], "name", "") != "Loaded":
            self.client.load_collection(collection)
        return collection

    def _same_rows(self, live: str, copy: str) -> None:
        id_field, changed = self.schema.id_field, []
        for rows in pages(self.client, live, id_field, ["*"], ROWS_PER_CALL):
            condition = among(id_field, [row[id_field] for row in rows])
            found = self.client.query(copy, filter=condition, output_fields=["*"], **STRONG)
            other = {row[id_field]: self._but_vector(row) for row in found}
            changed += [str(row[id_field]) for row in rows if other.get(row[id_field]) != self._but_vector(row)]
        if changed:
            raise StoreError(
                f"{len(changed)} node(s) of {self.alias!r} are not the same in the two versions but for their vectors:"
                f" switching would lose that; nothing was switched: {', '.join(changed[:5])}"
            )

    def _but_vector(self, row: dict[str, Any]) -> str:
        # As text, since NaN is not equal to itself.
        return repr(sorted((name, value) for name, value in row.items() if name != self.schema.vector_field))

    def _labels(self, prefix: str) -> list[str]:
        names = self.client.list_aliases()["aliases"]
        return sorted(name.removeprefix(prefix) for name in names if name.startswith(prefix))

    def _target(self, alias: str) -> str:
        return str(self.client.describe_alias(alias)["collection_name"])


def _copy_collection(client: Any, source: str, target: str, schema: Schema) -> None:
    """An empty collection with the fields, partitions and indexes of another."""
    from pymilvus import CollectionSchema

    description = client.describe_collection(source)
    options: dict[str, Any] = {"num_partitions": description["num_partitions"]} if schema.partition_key else {}
    if description.get("properties"):
        options["properties"] = description["properties"]
    client.create_collection(
        target,
        schema=CollectionSchema.construct_from_dict(description),
        index_params=_indexes(client, source),
        num_shards=description["num_shards"],
        consistency_level=description["consistency_level"],
        **options,
    )
    for partition in _partitions(client, source, schema):
        if not client.has_partition(target, partition):
            client.create_partition(target, partition)


def _indexes(client: Any, collection: str) -> Any:
    parameters = client.prepare_index_params()
    for name in client.list_indexes(collection):
        index = client.describe_index(collection, name)
        metric = {} if index.get("metric_type") in (None, "", "NONE") else {"metric_type": index["metric_type"]}
        built = {key: value for key, value in index.items() if key not in STATE}
        parameters.add_index(
            index["field_name"], index_type=index["index_type"], index_name=name, params=built, **metric
        )
    return parameters


def _copy_rows(client: Any, source: str, target: str, schema: Schema) -> None:
    client.load_collection(target)
    for partition in _partitions(client, source, schema) or [""]:
        options: dict[str, Any] = {"partition_names": [partition]} if partition else {}
        for rows in pages(client, source, schema.id_field, ["*"], ROWS_PER_CALL, **options):
            client.insert(target, [schema.plain(row) for row in rows], partition_name=partition)


class MilvusRecords:
    """Rows of collections, with the partitions that they are in.

    Args:
        client: a ``pymilvus.MilvusClient``.
        schema: of the collections.
    """

    rounding = 0.0

    def __init__(self, client: Any, schema: Schema) -> None:
        self._client, self._schema = client, schema

    def pages(self, collection: str) -> Iterator[list[Record]]:
        """All rows, partition by partition."""
        for partition, options in self._parts(collection):
            for rows in pages(self._client, collection, self._schema.id_field, ["*"], ROWS_PER_CALL, **options):
                yield [self._record(row, partition) for row in rows]

    def fetch(self, collection: str, ids: Sequence[str]) -> dict[str, Record]:
        """Those of the rows that exist."""
        found: dict[str, Record] = {}
        keys = list(self._schema.keys(list(ids)).values())
        for first in range(0, len(keys), ROWS_PER_CALL):
            condition = among(self._schema.id_field, keys[first : first + ROWS_PER_CALL])
            for partition, options in self._parts(collection):
                rows = self._client.query(collection, filter=condition, output_fields=["*"], **options, **STRONG)
                found.update((record.id, record) for record in (self._record(row, partition) for row in rows))
        return found

    def put(self, collection: str, records: Sequence[Record], vectors: FloatArray) -> None:
        """Upsert rows, each into its partition."""
        by_partition: dict[str, list[dict[str, Any]]] = {}
        for record, vector in zip(records, vectors, strict=True):
            row, partition = record.raw
            changed = self._schema.plain(row) | {self._schema.vector_field: vector.tolist()}
            by_partition.setdefault(partition, []).append(changed)
        for partition, rows in by_partition.items():
            for first in range(0, len(rows), ROWS_PER_CALL):
                self._client.upsert(collection, rows[first : first + ROWS_PER_CALL], partition_name=partition)

    def remove(self, collection: str, ids: Sequence[str]) -> None:
        """Delete rows."""
        keys = list(self._schema.keys(list(ids)).values())
        for first in range(0, len(keys), ROWS_PER_CALL):
            self._client.delete(collection, ids=keys[first : first + ROWS_PER_CALL])

    def _parts(self, collection: str) -> list[tuple[str, dict[str, Any]]]:
        names = _partitions(self._client, collection, self._schema)
        return [(name, {"partition_names": [name]}) for name in names] or [("", {})]

    def _record(self, row: dict[str, Any], partition: str) -> Record:
        id_field, vector = self._schema.id_field, self._schema.vector_field
        content = repr((partition, sorted((name, value) for name, value in row.items() if name != vector)))
        return Record(str(row[id_field]), np.array(row[vector], dtype=np.float32), content, (row, partition))


def _partitions(client: Any, collection: str, schema: Schema) -> list[str]:
    """Those that rows are put into by name."""
    return [] if schema.partition_key else list(client.list_partitions(collection))
