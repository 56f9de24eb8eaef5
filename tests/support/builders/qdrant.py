"""Qdrant's local mode, in memory and on disk, with every distance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from langchain_qdrant import QdrantVectorStore
from llama_index.vector_stores.qdrant import QdrantVectorStore as LlamaIndexQdrant
from qdrant_client import QdrantClient, models

from nudge_rag.stores import QdrantStore
from tests.support.builders.common import (
    DIMENSION,
    Built,
    LangChainEmbeddings,
    documents,
    expected_vectors,
    llama_index,
    uuid_id,
)
from tests.support.qdrant_schemas import keep_schemas

keep_schemas()


def qdrant(
    folder: Path, n: int, servers: Any, *, by: str, distance: str, name: str, on_disk: bool, alias: bool = False
) -> Built:
    path = folder / "qdrant"
    client = QdrantClient(path=str(path)) if on_disk else QdrantClient(":memory:")
    parameters = models.VectorParams(size=DIMENSION, distance=models.Distance(distance))
    client.create_collection("first" if alias else "nodes", vectors_config={name: parameters} if name else parameters)
    if alias:
        made = models.CreateAlias(collection_name="first", alias_name="nodes")
        client.update_collection_aliases([models.CreateAliasOperation(create_alias=made)])
    if by == "llama-index":
        vector_store = LlamaIndexQdrant("nodes", client=client, dense_vector_name=name or None)
        llama_index(vector_store, n, uuid_id)
    else:
        vectorstore = QdrantVectorStore(
            client, "nodes", LangChainEmbeddings(), vector_name=name, distance=models.Distance(distance)
        )
        vectorstore.add_documents(documents(n, uuid_id))
    vectors = expected_vectors(n, uuid_id)
    if distance == "Cosine":
        vectors = {node: vector / sum(vector**2) ** 0.5 for node, vector in vectors.items()}

    def contents() -> Any:
        points, _ = built.store.client.scroll("nodes", limit=n, with_payload=True)
        return sorted((str(point.id), repr(sorted((point.payload or {}).items()))) for point in points)

    def reopen() -> QdrantStore:
        # Local mode locks its folder: another process waits until this one lets go.
        client.close()
        built.store = QdrantStore(QdrantClient(path=str(path)), "nodes")
        return built.store

    key = "even" if by == "llama-index" else "metadata.even"
    even = models.Filter(must=[models.FieldCondition(key=key, match=models.MatchValue(value=True))])
    delete = vector_store.delete_nodes if by == "llama-index" else vectorstore.delete
    built = Built(QdrantStore(client, "nodes"), vectors, contents, reopen if on_disk else None, even, delete, uuid_id)
    return built


BUILDERS = {
    f"qdrant-{by}-{distance.lower()}{'-on-disk' if on_disk else ''}": (
        qdrant,
        {"by": by, "distance": distance, "name": name, "on_disk": on_disk},
    )
    for by, distance, name, on_disk in [
        ("llama-index", "Cosine", "", False),
        ("llama-index", "Dot", "text", True),
        ("langchain", "Cosine", "", False),
        ("langchain", "Euclid", "", False),
    ]
}
BUILDERS |= {
    f"qdrant-{by}-{distance.lower()}-alias": (
        qdrant,
        {"by": by, "distance": distance, "name": name, "on_disk": on_disk, "alias": True},
    )
    for by, distance, name, on_disk in [("llama-index", "Cosine", "", False), ("langchain", "Dot", "text", True)]
}
