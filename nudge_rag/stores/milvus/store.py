"""Milvus collections, in a Milvus Lite file or on a server."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nudge_rag.common.arrays import Float64Array, FloatArray
from nudge_rag.common.packages import import_package
from nudge_rag.stores.adapter import StoreAdapter
from nudge_rag.stores.base import Capabilities, SearchResult, Similarity
from nudge_rag.stores.checks import check_ids, check_queries, chunks
from nudge_rag.stores.copies import CopyNotes, NodesOfCopy
from nudge_rag.stores.history import BlobStorage
from nudge_rag.stores.keys import store_key
from nudge_rag.stores.location import StoreLocation
from nudge_rag.stores.milvus.copies import MilvusCopies
from nudge_rag.stores.milvus.history import MilvusHistory, history_name
from nudge_rag.stores.milvus.schema import STRONG, Schema, address_of, among, check_client, count, pages, schema_of

__all__ = ["MilvusStore"]

SIMILARITY: dict[str, Similarity] = {"COSINE": "cosine", "IP": "dot", "L2": "l2"}
EXACT_INDEXES = ("FLAT", "GPU_BRUTE_FORCE")
IDS_PER_CALL = 1_000
QUERIES_PER_CALL = 256
ROWS_PER_ANSWER = 16_384  # Milvus gives no more in one answer
WHOLE_ROWS_PER_CALL = 200  # a text has up to 64 kB
BYTES_PER_WRITE = 16_000_000  # a server takes messages of 64 MB


class MilvusStore(StoreAdapter):
    """Adapter for a collection, or an alias of one, of a ``pymilvus.MilvusClient``.

    Ranks by the metric of the vector field's index: exactly with FLAT, approximately with any other index. ``where`` is
    a Milvus filter expression. Every read sees every earlier write. A collection that is not loaded is loaded. Opened
    on an alias it is a `SideBySideStore`: versions are collections, and a switch points the alias at another one.

    Vectors are replaced by an upsert of the id and the vector, which Milvus merges into the row; a server that is older
    than 2.6.2 cannot, and there whole rows are read and written back, losing edits made to them in between.

    Args:
        client: the client; from a file's path or a URL, `open` makes one.
        collection: name of the collection or alias.
        vector_field: name of the vector field; not needed if there is only one.
        search_params: of the index, such as ``{"ef": 128}`` for HNSW.
        merge: whether the server merges upserts into rows; None asks for its version.

    Raises:
        TypeError: anything but a synchronous client.
        ValueError: no such collection or field, a vector that is not a FLOAT_VECTOR, no index, another metric.
    """

    name = "milvus"

    def __init__(
        self,
        client: Any,
        collection: str,
        *,
        vector_field: str | None = None,
        search_params: dict[str, Any] | None = None,
        merge: bool | None = None,
    ) -> None:
        check_client(client)
        if not client.has_collection(collection):
            raise ValueError(f"there is no Milvus collection {collection!r}")
        self.client, self.collection = client, collection
        self._schema = schema_of(client.describe_collection(collection), vector_field)
        self._dimension = self._schema.dimension
        index = _index(client, collection, self._schema)
        self._search_params = {"metric_type": index["metric_type"], "params": search_params or {}}
        self._merges = _merges(client.get_server_version()) if merge is None else merge
        self._is_alias = collection in client.list_aliases()["aliases"]
        self._capabilities = Capabilities(
            SIMILARITY[index["metric_type"]],
            exact_search=index["index_type"] in EXACT_INDEXES,
            persistent=True,
            side_by_side=self._is_alias,
            atomic_switch=self._is_alias,
        )
        if getattr(client.get_load_state(collection)["state"], "name", "") != "Loaded":
            client.load_collection(collection)

    @classmethod
    def open(
        cls, uri: str | Path, collection: str, *, token: str = "", db_name: str = "", **options: Any
    ) -> MilvusStore:
        """The collection or alias at ``http://host:port`` or in a Milvus Lite file ``….db``; ``options`` as above."""
        client_class = import_package("pymilvus", "MilvusStore.open", "milvus").MilvusClient
        if "://" not in str(uri) and (not Path(uri).exists() or Path(uri).suffix != ".db"):
            raise ValueError(f"there is no Milvus Lite file at {str(uri)!r}: its name must end with .db")
        return cls(client_class(str(uri), token=token, db_name=db_name), collection, **options)

    @classmethod
    def from_url(cls, location: StoreLocation) -> MilvusStore:
        """The collection or alias that ``milvus://`` names, in a Milvus Lite file or on a server."""
        options, path = location.options, location.path
        return cls.open(
            location.address(19530) if path is None else path,
            options["collection"],
            token=options.get("token", ""),
            db_name=options.get("db", ""),
            vector_field=options.get("vector"),
        )

    @property
    def key(self) -> str:
        """From the server or file, the collection or alias, and the vector field."""
        place = f"{address_of(self.client)} {self.collection} {self._schema.vector_field}"
        return store_key("milvus", place)

    def count(self) -> int:
        """Number of nodes."""
        return count(self.client, self.collection)

    def _fetch(self, names: list[str]) -> dict[str, FloatArray]:
        return self._vectors(self._place(len(names) > IDS_PER_CALL), names)

    def _vectors(self, collection: str, names: Sequence[str]) -> dict[str, FloatArray]:
        found: dict[str, FloatArray] = {}
        for rows in self._rows(collection, names, [self._schema.vector_field]):
            answered, vectors = self._parts(rows)
            self._require_once([*found, *answered])
            found.update(zip(answered, vectors, strict=True))
        return found

    def _batches(self, batch_size: int) -> Iterator[tuple[list[str], FloatArray]]:
        """All nodes by their primary key; on a server those at the start of the scan, in Lite as they are by then."""
        batch_size = min(batch_size, ROWS_PER_ANSWER)
        fields = [self._schema.id_field, self._schema.vector_field]
        for rows in pages(self.client, self._place(pinned=True), self._schema.id_field, fields, batch_size):
            yield self._parts(rows)

    def search(self, queries: FloatArray, k: int, *, where: str | None = None) -> SearchResult:
        """Search the k best nodes of each query.

        Raises:
            ValueError: ``k`` is more than Milvus returns.
        """
        checked = check_queries(queries, k, dimension=self._schema.dimension).astype(np.float32)
        if k > ROWS_PER_ANSWER and (nodes := self.count()) > ROWS_PER_ANSWER:
            raise ValueError(f"Milvus finds at most {ROWS_PER_ANSWER} of the {nodes} nodes per query, k is {k}")
        place = self._place(len(checked) > QUERIES_PER_CALL)
        sign = -1.0 if self.capabilities.similarity == "l2" else 1.0
        ids: list[list[str]] = []
        scores: list[Float64Array] = []
        for first in range(0, len(checked), QUERIES_PER_CALL):
            for hits in self.client.search(
                place,
                data=list(checked[first : first + QUERIES_PER_CALL]),
                anns_field=self._schema.vector_field,
                limit=min(int(k), ROWS_PER_ANSWER),
                filter=where or "",
                output_fields=[self._schema.id_field],
                search_params=self._search_params,
                **STRONG,
            ):
                ids.append([str(hit[self._schema.id_field]) for hit in hits])
                scores.append(sign * np.array([hit["distance"] for hit in hits], dtype=np.float64))
        return SearchResult(ids, scores)

    def matching(self, ids: Sequence[str], where: str | None) -> set[str]:
        """Return those of ``ids`` that exist and pass ``where``."""
        names = sorted(set(self._possible(check_ids(ids))))
        place = self._place(len(names) > IDS_PER_CALL)
        found = self._rows(place, names, [], where=where)
        return {str(row[self._schema.id_field]) for rows in found for row in rows}

    def _write(self, names: list[str], rows: FloatArray) -> None:
        """Overwrite vectors by upserts, each row in its partition; refuse a collection with auto_id."""
        problem = self.write_problem
        if problem is not None:
            raise ValueError(problem)
        place = self._place(pinned=True)
        self._require(names, self._vectors(place, names))
        new = dict(zip(names, rows, strict=True))
        size = max(1, BYTES_PER_WRITE // (4 * self._schema.dimension))
        size = min(size, IDS_PER_CALL if self._merges else WHOLE_ROWS_PER_CALL)
        for partition, members in self._by_partition(place, names):
            for chunk in chunks(members, size):
                self._upsert(place, partition, {node_id: new[node_id] for node_id in chunk})

    @property
    def write_problem(self) -> str | None:
        """Name ids that Milvus makes, or fields that an older server would lose."""
        if self._schema.auto_id:
            return f"{self.collection!r} has auto_id: Milvus would give each node that it replaces a new id"
        if not self._merges and self._schema.opaque:
            return f"rows with {', '.join(self._schema.opaque)} need Milvus 2.6.2 to have a vector replaced"
        return None

    def history(self) -> BlobStorage:
        """The store's history: a collection of its own, the same by the collection's name and by its aliases."""
        concrete = self._place(pinned=True)
        names = [self.collection, concrete, *self.client.list_aliases(concrete)["aliases"]]
        holder = history_name(self.client, list(dict.fromkeys(names)))
        return MilvusHistory(self.client, holder, self._schema.vector_field)

    def create_copy(self, label: str) -> MilvusStore:
        """Copy the collection and all rows.

        Raises:
            ValueError: the store was not opened by an alias, or the collection has auto_id.
        """
        return self._adapter_of_copy(self._versions().create(label))

    def open_copy(self, label: str) -> MilvusStore:
        """Return the adapter of the collection at ``label``.

        Raises:
            ValueError: there is none.
        """
        return self._adapter_of_copy(self._versions().collection_of(label))

    def copy_labels(self) -> list[str]:
        """Labels of the versions beside the live one."""
        return self._versions().labels()

    def switch(self, label: str) -> None:
        """Point the alias at the version ``label``, in one call.

        Raises:
            ValueError: there is none, or the store was not opened by an alias.
            StoreError: more than vectors differ.
        """
        self._versions().switch(label)

    def catch_up_and_switch(self, label: str, moved: NodesOfCopy, notes: CopyNotes) -> int:
        """Bring what was written since to the copy ``label``, and re-point the alias; gives the number of nodes."""
        return self._versions().catch_up_and_switch(label, moved, notes)

    def bring_late_writes(self, label: str, moved: NodesOfCopy, notes: CopyNotes) -> int | None:
        """Bring what was written to the copy ``label`` since it was live to the live version."""
        return self._versions().bring_late(label, moved, notes)

    def drop_copy(self, label: str) -> None:
        """Drop the collection at ``label``, unless another alias names it."""
        self._versions().drop(label)

    def _versions(self) -> MilvusCopies:
        if not self._is_alias:
            raise ValueError(
                f"{self.collection!r} is a Milvus collection, not an alias: two versions are swapped by an alias."
                " Make one with client.create_alias(), and let the application open the collection by it"
            )
        return MilvusCopies(self.client, self.collection, self._schema)

    def _adapter_of_copy(self, collection: str) -> MilvusStore:
        options: dict[str, Any] = {"search_params": self._search_params["params"], "merge": self._merges}
        return MilvusStore(self.client, collection, vector_field=self._schema.vector_field, **options)

    def _upsert(self, place: str, partition: str, new: dict[str, FloatArray]) -> None:
        id_field, vector = self._schema.id_field, self._schema.vector_field
        if self._merges:
            keys = self._schema.keys(list(new))
            merged = [{id_field: keys[node_id], vector: row.tolist()} for node_id, row in new.items()]
            self.client.upsert(place, merged, partition_name=partition, partial_update=True)
            return
        whole = [
            self._schema.plain(row) | {vector: new[str(row[id_field])].tolist()}
            for rows in self._rows(place, list(new), ["*"])
            for row in rows
        ]
        self.client.upsert(place, whole, partition_name=partition)

    def _by_partition(self, place: str, names: list[str]) -> list[tuple[str, list[str]]]:
        """Ids by partition: an upsert that names none moves its rows to the default one."""
        partitions = self.client.list_partitions(place)
        if self._schema.partition_key or len(partitions) == 1:
            return [("", names)]
        members = []
        for partition in partitions:
            found = self._rows(place, names, [], partition_names=[partition])
            members.append((partition, [str(row[self._schema.id_field]) for rows in found for row in rows]))
        return members

    def _rows(
        self, place: str, names: Sequence[str], fields: list[str], *, where: str | None = None, **options: Any
    ) -> Iterator[list[dict[str, Any]]]:
        keys = self._schema.keys(list(dict.fromkeys(names)))
        for chunk in chunks(list(keys), IDS_PER_CALL):
            condition = among(self._schema.id_field, [keys[node_id] for node_id in chunk])
            condition += f" and ({where})" if where else ""
            wanted = [self._schema.id_field, *fields]
            yield self.client.query(place, filter=condition, output_fields=wanted, **options, **STRONG)

    def _parts(self, rows: Sequence[dict[str, Any]]) -> tuple[list[str], FloatArray]:
        vectors = np.array([row[self._schema.vector_field] for row in rows], dtype=np.float32)
        ids = [str(row[self._schema.id_field]) for row in rows]
        return ids, vectors.reshape(len(rows), self._schema.dimension)

    def _place(self, pinned: bool) -> str:
        """Name the target of a call; if ``pinned``, for several in a row, the collection that the alias names now."""
        if not (pinned and self._is_alias):
            return self.collection
        return str(self.client.describe_alias(self.collection)["collection_name"])


def _index(client: Any, collection: str, schema: Schema) -> dict[str, Any]:
    for name in client.list_indexes(collection, field_name=schema.vector_field):
        index: dict[str, Any] = client.describe_index(collection, name)
        if index["metric_type"] not in SIMILARITY:
            raise ValueError(f"Milvus metric {index['metric_type']!r} is not one of {', '.join(SIMILARITY)}")
        return index
    raise ValueError(f"field {schema.vector_field!r} of {collection!r} has no index: create one with a metric")


def _merges(version: str) -> bool:
    """Whether a server of that version, or Milvus Lite, has partial updates."""
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", version)
    return found is not None and tuple(map(int, found.groups())) >= (2, 6, 2)
