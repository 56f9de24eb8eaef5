"""The history of a Milvus collection, in a collection next to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from nudge_rag.common import lock
from nudge_rag.errors import StoreError
from nudge_rag.stores.blob_records import BlobRecord, RecordStorage
from nudge_rag.stores.history import BlobStorage, copy_advice, local_path
from nudge_rag.stores.milvus.schema import STRONG, address_of, among, literal

__all__ = ["MilvusHistory", "history_name"]

# Milvus holds 65,535 bytes in a string.
PART_SIZE = 60_000
ROWS_PER_CALL = 200
SUFFIX = "__nudge_rag_history"
FIELDS = ("id", "kind", "name", "version", "content")
LENGTHS = {"key": 1_280, "id": 1_024, "scope": 255, "kind": 16, "name": 512, "version": 64, "content": 65_535}


class MilvusHistory(RecordStorage):
    """Blobs as rows of strings; the vector that Milvus asks of every collection says nothing.

    Milvus Lite lets one process at a time open a file; processes of a server exclude each other by a lease.

    Args:
        client: the client.
        collection: the collection that holds, or is to hold, the history.
        scope: tells the histories in that collection apart: the field of vectors.
    """

    def __init__(self, client: Any, collection: str, scope: str) -> None:
        self._client, self._collection, self._scope = client, collection, scope
        # Asked whether it is there and loaded until it has answered: two of three calls that a read would cost.
        self._answers = False
        place = address_of(client)
        super().__init__(f"milvus {place} {collection} {scope}", PART_SIZE, _local_lock(place))

    @property
    def location(self) -> str:
        """The collection."""
        return f"the Milvus collection {self._collection!r}"

    def neighbors(self) -> list[tuple[BlobStorage, str]]:
        """Histories of other collections: this one may have had the name of one that is gone, or be a copy."""
        from pymilvus.exceptions import MilvusException

        try:
            names = self._client.list_collections()
        except MilvusException:
            # Without the right to list collections there is nothing to compare with.
            return []
        left = [name for name in names if name.endswith(SUFFIX) and name != self._collection]
        return [(MilvusHistory(self._client, name, self._scope), self._advice(name)) for name in sorted(left)]

    def _advice(self, history: str) -> str:
        owner = history.removesuffix(SUFFIX)
        if self._client.has_collection(owner):
            return copy_advice(f"the collection {owner!r}")
        return f"Call client.rename_collection({history!r}, {self._collection!r})"

    def place(self) -> Path | None:
        """The file of Milvus Lite."""
        return local_path(address_of(self._client).rpartition(" ")[0])

    def put(self, records: Sequence[BlobRecord]) -> None:
        """Write or replace rows."""
        if not self._client.has_collection(self._collection):
            self._called("made", self._make)
        rows = [
            {
                "key": self._key(record.id),
                "scope": self._scope,
                "vector": [0.0, 0.0],
                **{field: getattr(record, field) for field in FIELDS},
            }
            for record in records
        ]
        self._called("written to", self._client.upsert, self._collection, rows)

    def get(self, ids: Sequence[str]) -> list[BlobRecord]:
        """Those of the records that exist."""
        found: list[BlobRecord] = []
        for first in range(0, len(ids), ROWS_PER_CALL):
            found += self._found(among("key", map(self._key, ids[first : first + ROWS_PER_CALL])), FIELDS)
        return found

    def remove(self, ids: Sequence[str]) -> None:
        """Delete rows; Milvus takes ids that it does not know."""
        if not ids or not self._is_ready():
            return
        for first in range(0, len(ids), ROWS_PER_CALL):
            part = [self._key(one) for one in ids[first : first + ROWS_PER_CALL]]
            self._called("deleted from", self._client.delete, self._collection, ids=part)

    def listed(self, kind: str) -> list[BlobRecord]:
        """All records of a kind, without content."""
        return self._found(f"kind == {literal(kind)} and scope == {literal(self._scope)}", FIELDS[:-1], limit=16_384)

    def _found(self, condition: str, fields: Sequence[str], **options: Any) -> list[BlobRecord]:
        query = {"filter": condition, "output_fields": list(fields), **options, **STRONG}
        rows = self._asked_again(query) if self._answers else None
        if rows is None:
            if not self._is_ready():
                return []
            rows = self._called("read", self._client.query, self._collection, **query)
            self._answers = True
        return [BlobRecord(*(str(row.get(field, "")) for field in FIELDS)) for row in rows]

    def _asked_again(self, query: dict[str, Any]) -> Any:
        """The rows of a collection that has answered before; None if it does not now: dropped, or no longer loaded."""
        try:
            return self._called("read", self._client.query, self._collection, **query)
        except StoreError:
            self._answers = False
            return None

    def _key(self, record_id: str) -> str:
        return f"{self._scope} {record_id}"

    def _is_ready(self) -> bool:
        """Whether the collection is there, which is loaded then: none is after a start of Milvus, and none answers."""
        if not self._client.has_collection(self._collection):
            return False
        if getattr(self._client.get_load_state(self._collection)["state"], "name", "") != "Loaded":
            self._called("read", self._client.load_collection, self._collection)
        return True

    def _make(self) -> None:
        from pymilvus import DataType

        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        for field, length in LENGTHS.items():
            schema.add_field(field, DataType.VARCHAR, max_length=length, is_primary=field == "key")
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
        index = self._client.prepare_index_params()
        index.add_index("vector", index_type="FLAT", metric_type="L2")
        self._client.create_collection(self._collection, schema=schema, index_params=index, **STRONG)
        self._client.load_collection(self._collection)

    def _called(self, what: str, function: Callable[..., Any], *values: Any, **options: Any) -> Any:
        from pymilvus.exceptions import MilvusException

        try:
            return function(*values, **options)
        except MilvusException as error:
            raise StoreError(
                f"{self.location}, which is to hold the history of pushes, cannot be {what}: {error.message}; give the"
                " client the right to, or keep the history in a folder with versions=PATH"
            ) from error


def history_name(client: Any, names: Sequence[str]) -> str:
    """The history collection of a collection that has several ``names``: the first that exists, or is to be made."""
    candidates = [name + SUFFIX for name in names]
    return next((name for name in candidates if client.has_collection(name)), candidates[0])


def _local_lock(place: str) -> Callable[[], AbstractContextManager[None]] | None:
    """The lock next to a Milvus Lite file; None for a server."""
    address = place.rpartition(" ")[0]
    if not Path(address).is_absolute():
        return None
    path = Path(address)
    return lambda: lock.locked_file(path.with_name(path.name + ".nudge-rag.lock"), "a push or rollback")
