"""`killed_worker` for Qdrant's local mode: dies before and after every call of the client, and inside some of them."""

from __future__ import annotations

import shutil
from typing import Any

import qdrant_client.local.qdrant_local
from qdrant_client import QdrantClient, models

import nudge_rag.common.files
from nudge_rag.stores import QdrantStore
from tests.support import killed_worker

ALIAS = "live"
CALLS = (
    "collection_exists",
    "count",
    "create_collection",
    "create_payload_index",
    "delete_collection",
    "get_aliases",
    "get_collection",
    "get_collections",
    "query_batch_points",
    "retrieve",
    "scroll",
    "update_collection_aliases",
    "update_vectors",
    "upsert",
)


def open_store(kind: str, address: str) -> QdrantStore:
    """Local mode locks its folder: whoever opened it before must have closed it, or be dead."""
    return QdrantStore(QdrantClient(path=address), ALIAS)


def fill(client: QdrantClient, ids: list[str], vectors: Any) -> QdrantStore:
    """A collection of these points, with payload, and an alias of it."""
    parameters = models.VectorParams(size=vectors.shape[1], distance=models.Distance.DOT)
    client.create_collection("first", vectors_config=parameters)
    made = models.CreateAlias(collection_name="first", alias_name=ALIAS)
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=made)])
    points = [
        models.PointStruct(id=node, vector=row, payload={"number": at})
        for at, (node, row) in enumerate(zip(ids, vectors.tolist(), strict=True))
    ]
    client.upsert("first", points)
    return QdrantStore(client, ALIAS)


class ClientSteps(killed_worker.Steps):
    """Steps of the journal, of the client, and of what local mode writes."""

    def instrument(self, store: Any) -> Any:
        nudge_rag.common.files.write_synced = self.around(nudge_rag.common.files.write_synced)
        local = qdrant_client.local.qdrant_local.QdrantLocal
        local._save = self.around(local._save)
        shutil.rmtree = self.around(shutil.rmtree)
        for name in CALLS:
            setattr(store.client, name, self.around(getattr(store.client, name)))
        return store


if __name__ == "__main__":
    killed_worker.open_store = open_store
    killed_worker.Steps = ClientSteps
    killed_worker.main()
