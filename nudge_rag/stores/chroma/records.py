"""Records of a Chroma collection as a copy needs them: read in pages, compared and written with everything in them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.stores.base import StoreError
from nudge_rag.stores.chroma.rounding import space_of, written_to_read_back
from nudge_rag.stores.late_writes import Record

if TYPE_CHECKING:
    from chromadb import Collection

__all__ = ["ChromaRecords", "add_records", "read_pages", "require_same_records"]

RECORDS_PER_CALL = 500
# How often a record is asked for anew that a server does not find.
TRIES = 20
SECONDS_BETWEEN_READS = 0.05


class ChromaRecords:
    """Records of collections: documents, metadata, URIs and vectors.

    Args:
        rounding: how far off a number may be that is read back.
    """

    def __init__(self, rounding: float) -> None:
        self.rounding = rounding

    def pages(self, collection: Collection) -> Iterator[list[Record]]:
        """All records."""
        for part in read_pages(collection):
            yield _as_records(part)

    def fetch(self, collection: Collection, ids: Sequence[str]) -> dict[str, Record]:
        """Those of the records that exist."""
        found: dict[str, Record] = {}
        include: Any = ["documents", "metadatas", "uris", "embeddings"]
        for first in range(0, len(ids), RECORDS_PER_CALL):
            part = _patiently(collection, ids=list(ids[first : first + RECORDS_PER_CALL]), include=include)
            found.update((record.id, record) for record in _as_records(part))
        return found

    def put(self, collection: Collection, records: Sequence[Record], vectors: FloatArray) -> None:
        """Write records; Chroma would merge new metadata with the old, so they are deleted first."""
        for first in range(0, len(records), RECORDS_PER_CALL):
            part = records[first : first + RECORDS_PER_CALL]
            collection.delete(ids=[record.id for record in part])
            columns = dict(
                zip(("documents", "metadatas", "uris"), zip(*(one.raw for one in part), strict=True), strict=True)
            )
            given = {name: list(values) for name, values in columns.items()}
            rows = vectors[first : first + RECORDS_PER_CALL]
            add_records(collection, {"ids": [record.id for record in part], "embeddings": rows, **given})

    def remove(self, collection: Collection, ids: Sequence[str]) -> None:
        """Delete records."""
        for first in range(0, len(ids), RECORDS_PER_CALL):
            collection.delete(ids=list(ids[first : first + RECORDS_PER_CALL]))


def add_records(target: Collection, part: Mapping[str, Any]) -> None:
    """Add records as a collection's ``get`` gives them, with vectors that are read back as they were."""
    rows = np.asarray(part["embeddings"], dtype=np.float32)
    uris = part["uris"] if any(uri is not None for uri in part["uris"] or []) else None
    # Not Collection.add, which embeds if a schema asks for it.
    target._client._add(
        ids=part["ids"],
        collection_id=target.id,
        embeddings=list(written_to_read_back(rows) if space_of(target) == "cosine" else rows),
        metadatas=part["metadatas"],
        documents=part["documents"],
        uris=uris,
        tenant=target.tenant,
        database=target.database,
    )


def read_pages(collection: Collection, *, vectors: bool = True) -> Iterator[dict[str, Any]]:
    """All records, some hundred at a time, as the collection's ``get`` gives them."""
    include: Any = ["documents", "metadatas", "uris", *(["embeddings"] if vectors else [])]
    offset = 0
    while True:
        page = _patiently(collection, include=include, limit=RECORDS_PER_CALL, offset=offset)
        if not page["ids"]:
            return
        yield page
        offset += len(page["ids"])


def _patiently(collection: Collection, **query: Any) -> Any:
    """Records; a server that another process writes to may for a moment not find a vector whose id it has."""
    from chromadb.errors import InternalError

    for left in reversed(range(TRIES)):
        try:
            return collection.get(**query)
        except InternalError:
            if not left:
                raise
            time.sleep(SECONDS_BETWEEN_READS)
    return None


def require_same_records(live: Collection, copy: Collection, name: str) -> None:
    """Refuse two versions of the collection ``name`` that differ in more than their vectors.

    Raises:
        StoreError: a node's document or metadata is not the same in both.
    """
    changed: list[str] = []
    for part in read_pages(live, vectors=False):
        found: Any = copy.get(ids=part["ids"], include=["documents", "metadatas", "uris"])
        other = dict(zip(found["ids"], _but_vectors(found), strict=True))
        records = zip(part["ids"], _but_vectors(part), strict=True)
        changed += [node_id for node_id, record in records if other.get(node_id) != record]
    if changed:
        raise StoreError(
            f"{len(changed)} node(s) of {name!r} have another document or metadata in the two versions: switching would"
            f" lose it; nothing was switched: {', '.join(changed[:5])}"
        )


def _as_records(part: Any) -> list[Record]:
    uris = part["uris"] or [None] * len(part["ids"])
    raw = list(zip(part["documents"], part["metadatas"], uris, strict=True))
    vectors = np.asarray(part["embeddings"], dtype=np.float32)
    columns = zip(part["ids"], vectors, _but_vectors({**part, "uris": uris}), raw, strict=True)
    return [Record(*column) for column in columns]


def _but_vectors(records: Any) -> list[str]:
    # As text, since NaN is not equal to itself; Chroma gives metadata in any order.
    metadata = [sorted((one or {}).items()) for one in records["metadatas"]]
    return [repr(one) for one in zip(records["documents"], metadata, records["uris"], strict=True)]
