"""The history of a Qdrant collection, in a collection next to it."""

from __future__ import annotations

import contextlib
import sqlite3
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from nudge_rag.common import lock
from nudge_rag.errors import StoreError
from nudge_rag.stores.blob_records import BlobRecord, RecordStorage
from nudge_rag.stores.history import BlobStorage, copy_advice, local_path

__all__ = ["QdrantHistory", "history_name"]

PART_SIZE = 1_000_000
RECORDS_PER_CALL = 256
SUFFIX = "__nudge_rag_history"
FIELDS = ("id", "kind", "name", "version", "content")


class QdrantHistory(RecordStorage):
    """Blobs as payloads, in base64, of the points of a collection without vectors.

    Local mode lets one process at a time open a folder; processes of a server exclude each other by a lease.

    Args:
        client: the client.
        collection: the collection that holds, or is to hold, the history.
        scope: tells the histories in that collection apart: the name of the vector.
    """

    def __init__(self, client: Any, collection: str, scope: str) -> None:
        self._client, self._collection, self._scope = client, collection, scope
        place = self._folder = _folder(client)
        super().__init__(f"qdrant {place or id(client)} {collection} {scope}", PART_SIZE, _local_lock(client, place))

    @property
    def location(self) -> str:
        """The collection."""
        return f"the Qdrant collection {self._collection!r}"

    def place(self) -> Path | None:
        """The folder of local mode."""
        return local_path(None if self._folder is None else str(Path(self._folder).resolve()))

    def neighbors(self) -> list[tuple[BlobStorage, str]]:
        """The histories of other collections, from one of which this collection may have been made."""
        from qdrant_client.http.exceptions import UnexpectedResponse

        try:
            names = [found.name for found in self._client.get_collections().collections]
        except UnexpectedResponse:
            # Without the right to list collections there is nothing to compare with.
            return []
        others = sorted(name for name in names if name.endswith(SUFFIX) and name != self._collection)
        return [
            (
                QdrantHistory(self._client, name, self._scope),
                copy_advice(f"the collection {name.removesuffix(SUFFIX)!r}"),
            )
            for name in others
        ]

    def put(self, records: Sequence[BlobRecord]) -> None:
        """Write or replace points."""
        from qdrant_client import models

        if not self._client.collection_exists(self._collection):
            self._called("made", self._client.create_collection, self._collection, vectors_config={})
        points = [
            models.PointStruct(
                id=self._point(record.id),
                vector={},
                payload={"scope": self._scope, **{field: getattr(record, field) for field in FIELDS}},
            )
            for record in records
        ]
        self._called("written to", self._client.upsert, self._collection, points, wait=True)

    def get(self, ids: Sequence[str]) -> list[BlobRecord]:
        """Those of the records that exist."""
        if not ids or not self._client.collection_exists(self._collection):
            return []
        points = [self._point(one) for one in ids]
        return _records(self._called("read", self._client.retrieve, self._collection, points, with_payload=True))

    def remove(self, ids: Sequence[str]) -> None:
        """Delete points; Qdrant takes ids that it does not know."""
        if ids and self._client.collection_exists(self._collection):
            points = [self._point(one) for one in ids]
            self._called("deleted from", self._client.delete, self._collection, points, wait=True)

    def listed(self, kind: str) -> list[BlobRecord]:
        """All records of a kind, without content."""
        from qdrant_client import models

        if not self._client.collection_exists(self._collection):
            return []
        wanted = {"kind": kind, "scope": self._scope}
        conditions: list[Any] = [
            models.FieldCondition(key=key, match=models.MatchValue(value=value)) for key, value in wanted.items()
        ]
        found: list[BlobRecord] = []
        offset: Any = None
        while True:
            points, offset = self._called(
                "read",
                self._client.scroll,
                self._collection,
                scroll_filter=models.Filter(must=conditions),
                limit=RECORDS_PER_CALL,
                offset=offset,
                with_payload=["id", "kind", "name", "version"],
            )
            found += _records(points)
            if offset is None:
                return found

    def _point(self, record_id: str) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self._scope} {record_id}"))

    def _called(self, what: str, function: Callable[..., Any], *values: Any, **options: Any) -> Any:
        from qdrant_client.http.exceptions import UnexpectedResponse

        try:
            return function(*values, **options)
        except UnexpectedResponse as error:
            raise StoreError(
                f"{self.location}, which is to hold the history of pushes, cannot be {what}: {error.status_code}"
                f" {error.reason_phrase}; give the client the right to, or keep the history in a folder with"
                " versions=PATH"
            ) from error


def history_name(client: Any, names: Sequence[str]) -> str:
    """The history collection of a collection that has several ``names``: the first that exists, or is to be made."""
    candidates = [name + SUFFIX for name in names]
    return next((name for name in candidates if client.collection_exists(name)), candidates[0])


def _records(points: Sequence[Any]) -> list[BlobRecord]:
    payloads = [point.payload or {} for point in points]
    return [BlobRecord(*(str(payload.get(field, "")) for field in FIELDS)) for payload in payloads]


def _folder(client: Any) -> str | None:
    """The folder of local mode, ``:memory:``, or None for a server."""
    location = getattr(client._client, "location", None)
    return None if location is None else str(location)


def _local_lock(client: Any, place: str | None) -> Callable[[], AbstractContextManager[None]] | None:
    if place is None:
        return None
    # Local mode locks its folder against other processes itself: only threads are left to exclude.
    if place == ":memory:":
        return _nothing
    return lambda: _lock_of_folder(client, place)


def _lock_of_folder(client: Any, place: str) -> AbstractContextManager[None]:
    """Lock the folder of a client.

    Raises:
        StoreError: it is another one by now: a new collection, and the list of all, would be written there.
    """
    path, opened = Path(place).resolve(), _opened_folder(client)
    if opened is not None and opened != path:
        raise StoreError(
            f"the working folder has changed since the Qdrant client opened {place!r}, in {opened.parent}: give it an"
            " absolute path; nothing was written"
        )
    return lock.locked_file(path / "nudge-rag.lock", "a push or rollback") if path.is_dir() else _nothing()


def _opened_folder(client: Any) -> Path | None:
    """The folder that a client of local mode has its collections open in; None if it has none, or hides it."""
    for collection in client._client.collections.values():
        with contextlib.suppress(AttributeError, TypeError, sqlite3.Error):
            file = collection.storage.storage.execute("PRAGMA database_list").fetchone()[2]
            return Path(file).parents[2].resolve()
    return None


def _nothing() -> AbstractContextManager[None]:
    from contextlib import nullcontext

    return nullcontext()
