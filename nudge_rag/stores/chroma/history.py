"""The history of a Chroma collection, in a collection next to it."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from nudge_rag.common import lock
from nudge_rag.errors import StoreError
from nudge_rag.stores.blob_records import BlobRecord, RecordStorage
from nudge_rag.stores.history import BlobStorage, copy_advice, local_path

__all__ = ["ChromaHistory", "embedded_file"]

# Chroma indexes documents for full text, so that content is metadata.
PART_SIZE = 500_000
PREFIX = "nudge-rag."
FIELDS = ("kind", "name", "version", "content")
RECORDS_PER_CALL = 100
# The database's file of each embedded client, when it was seen first: a relative path may mean another one later.
_FILES: weakref.WeakKeyDictionary[Any, Path] = weakref.WeakKeyDictionary()


class ChromaHistory(RecordStorage):
    """Blobs in the collection ``nudge-rag.<id>``; the id is that of the nodes' collection.

    The id stays if the collection is renamed, switched or moved. Processes that share the folder of an embedded client
    exclude each other by a lock of the operating system in that folder, those of a server by a lease.

    Args:
        collection: a handle of the nodes' collection.
        origin: the id by which the store is known.
    """

    def __init__(self, collection: Any, origin: str) -> None:
        self._api, self._nodes, self._origin = collection._client, collection, origin
        self._place = {"tenant": collection.tenant, "database": collection.database}
        self._name = f"{PREFIX}{origin}"
        super().__init__(f"chroma {origin}", PART_SIZE, _local_lock(self._api, origin))

    @property
    def location(self) -> str:
        """The collection."""
        return f"the Chroma collection {self._name!r}"

    def place(self) -> Path | None:
        """The database's file of an embedded client."""
        file = embedded_file(self._api)
        return None if file is None else local_path(str(file))

    def neighbors(self) -> list[tuple[BlobStorage, str]]:
        """The histories of other collections, from one of which this collection may have been made."""
        return [
            (ChromaHistory(self._nodes, origin), copy_advice(f"the collection {name or origin!r}"))
            for origin, name in self._others()
        ]

    def orphans(self) -> list[BlobStorage]:
        """The histories of collections that are gone."""
        return [ChromaHistory(self._nodes, origin) for origin, name in self._others() if name is None]

    def _others(self) -> list[tuple[str, str | None]]:
        """The ids of other collections that have a history, and their names; None for those that are gone."""
        from chromadb.errors import AuthorizationError, ChromaError

        try:
            names = {str(model.id): model.name for model in self._api.list_collections(**self._place)}
        except (AuthorizationError, ChromaError):
            # Without the right to list collections there is nothing to compare with.
            return []
        origins = [name.removeprefix(PREFIX) for name in names.values() if name.startswith(PREFIX)]
        return [(origin, names.get(origin)) for origin in sorted(origins) if origin != self._origin]

    def put(self, records: Sequence[BlobRecord]) -> None:
        """Write or replace records, whose vectors say nothing."""
        self._called(
            "written to",
            self._made().upsert,
            ids=[record.id for record in records],
            embeddings=[[0.0]] * len(records),
            metadatas=[{field: getattr(record, field) for field in FIELDS} for record in records],
        )

    def get(self, ids: Sequence[str]) -> list[BlobRecord]:
        """Those of the records that exist."""
        return self._records(ids=list(ids)) if ids else []

    def remove(self, ids: Sequence[str]) -> None:
        """Delete records; Chroma takes ids that it does not know."""
        collection = self._opened() if ids else None
        if collection is not None:
            self._called("deleted from", collection.delete, ids=list(ids))

    def listed(self, kind: str) -> list[BlobRecord]:
        """All records of a kind."""
        found: list[BlobRecord] = []
        while True:
            page = self._records(where={"kind": kind}, limit=RECORDS_PER_CALL, offset=len(found))
            found += page
            if len(page) < RECORDS_PER_CALL:
                return found

    def _records(self, **options: Any) -> list[BlobRecord]:
        collection = self._opened()
        if collection is None:
            return []
        answer = self._called("read", collection.get, include=["metadatas"], **options)
        pairs = zip(answer["ids"], answer["metadatas"], strict=True)
        return [BlobRecord(one, *(str((fields or {}).get(field, "")) for field in FIELDS)) for one, fields in pairs]

    def _opened(self) -> Any:
        from chromadb import Collection
        from chromadb.errors import NotFoundError

        _refuse_other_folder(self._api)
        try:
            model = self._api.get_collection(self._name, **self._place)
        except NotFoundError:
            return None
        return Collection(client=self._api, model=model, embedding_function=None)

    def _made(self) -> Any:
        opened = self._opened()
        if opened is None:
            self._called("made", self._api.create_collection, self._name, get_or_create=True, **self._place)
            opened = self._opened()
        return opened

    def _called(self, what: str, function: Callable[..., Any], *values: Any, **options: Any) -> Any:
        from chromadb.errors import AuthorizationError, ChromaError

        try:
            return function(*values, **options)
        except (AuthorizationError, ChromaError) as error:
            raise StoreError(
                f"{self.location}, which is to hold the history of pushes, cannot be {what}: {error}; give the client"
                " the right to, or keep the history in a folder with versions=PATH"
            ) from error


def embedded_file(api: Any) -> Path | None:
    """The database's file of an embedded client; None for a client of a server, or one in memory."""
    settings = api.get_settings() if hasattr(api, "get_settings") else None
    if settings is None or settings.chroma_server_host or not settings.is_persistent:
        return None
    file = Path(settings.persist_directory).resolve() / "chroma.sqlite3"
    with contextlib.suppress(TypeError):  # an object that cannot be referred to weakly
        _FILES.setdefault(api, file)
    return file


def _local_lock(api: Any, origin: str) -> Callable[[], AbstractContextManager[None]] | None:
    """The lock in the folder of an embedded client; None for a client of a server."""
    file = embedded_file(api)
    if file is None:
        return None
    path = file.with_name(f"nudge-rag.{origin}.lock")
    return lambda: _lock_of_file(api, path)


def _lock_of_file(api: Any, path: Path) -> AbstractContextManager[None]:
    """Lock the folder of an embedded client.

    Raises:
        StoreError: it is another one by now.
    """
    _refuse_other_folder(api)
    return lock.locked_file(path, "a push or rollback")


def _refuse_other_folder(api: Any) -> None:
    """Raise StoreError if an embedded client makes its next connections, at any time, in another folder than before.

    Raises:
        StoreError: a relative path means another folder by now.
    """
    file = embedded_file(api)
    known = None if file is None else _FILES.get(api, file)
    if known is not None and known != file:
        raise StoreError(
            f"the working folder has changed since the Chroma client opened {known.parent}: give it an absolute path;"
            " nothing was written"
        )
