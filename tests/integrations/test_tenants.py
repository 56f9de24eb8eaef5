"""Tenants, schemas, partitions, half precision, integer ids: ours answers as the framework, for one tenant alone.

Each kind holds the same nodes twice: for tenant "a", and for tenant "b" with other texts. Nothing of "b" is shown,
moved or pushed through "a".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_nudge import NudgeRetriever, embedding_store

from nudge_rag import Nudge, rollback
from nudge_rag.solvers import ValidationCurve
from tests.integrations.conftest import NODES, LangChainWorld, node_id
from tests.support.builders.registry import here

KINDS = {
    "chroma-tenants": "chroma",
    "chroma-databases": "chroma",
    "qdrant-payload": "qdrant",
    "postgres-schemas": "postgres",
    "postgres-halfvec": "postgres",
    "milvus-partition-key": "milvus",
    "milvus-integers": "milvus",
}
N, K = 24, 6
QUERY = "question 3 about 7"


@dataclass
class Tenant:
    """One tenant's vector store, the options that keep a search to it, and its ids in the order of its nodes."""

    store: Any
    ids: list[str]
    options: dict[str, Any] = field(default_factory=dict)


def documents(tenant: str, ids: list[str]) -> list[Document]:
    return [
        Document(id=node, page_content=f"topic {number}", metadata={"tenant": tenant, "number": number})
        for number, node in enumerate(ids)
    ]


def ids_of(tenant: str) -> list[str]:
    return [node_id(number + (0 if tenant == "a" else 1_000)) for number in range(N)]


def make_chroma(kind: str, folder: Any, servers: Any) -> dict[str, Tenant]:
    import chromadb
    from chromadb.config import Settings
    from langchain_chroma import Chroma

    settings = Settings(is_persistent=True, persist_directory=str(folder))
    admin = chromadb.AdminClient(settings)
    made = {}
    for tenant in ("a", "b"):
        place = {"tenant": f"tenant-{tenant}", "database": "docs"}
        if kind == "chroma-databases":
            place = {"tenant": "shared", "database": f"docs-{tenant}"}
        if tenant == "a" or kind == "chroma-tenants":
            admin.create_tenant(place["tenant"])
        admin.create_database(place["database"], place["tenant"])
        client = chromadb.PersistentClient(str(folder), **place)
        store = Chroma("docs", LangChainWorld(), client=client)
        # The same ids in both: only the place tells them apart.
        store.add_documents(documents(tenant, ids_of("a")))
        made[tenant] = Tenant(store, ids_of("a"))
    return made


def make_qdrant(kind: str, folder: Any, servers: Any) -> dict[str, Tenant]:
    from langchain_qdrant import QdrantVectorStore
    from qdrant_client import QdrantClient, models

    client = QdrantClient(":memory:")
    client.create_collection("s", models.VectorParams(size=16, distance=models.Distance.COSINE))
    store = QdrantVectorStore(client, "s", LangChainWorld(), validate_collection_config=False)
    made = {}
    for tenant in ("a", "b"):
        store.add_documents(documents(tenant, ids_of(tenant)), ids=ids_of(tenant))
        has = models.FieldCondition(key="metadata.tenant", match=models.MatchValue(value=tenant))
        made[tenant] = Tenant(store, ids_of(tenant), {"filter": models.Filter(must=[has])})
    return made


def make_postgres(kind: str, folder: Any, servers: Any) -> dict[str, Tenant]:
    import psycopg
    from langchain_postgres import Column, PGEngine, PGVectorStore

    from tests.support.builders.postgres import new_database, with_driver

    address = new_database(servers)
    engine = PGEngine.from_connection_string(with_driver(address, "psycopg"))
    columns = [Column("tenant", "text"), Column("number", "integer")]
    made = {}
    for tenant in ("a", "b"):
        schema = f"schema_{tenant}"
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {schema}")
        engine.init_vectorstore_table("docs", 16, schema_name=schema, metadata_columns=columns)
        if kind == "postgres-halfvec":
            with psycopg.connect(address, autocommit=True) as connection:
                connection.execute(f"ALTER TABLE {schema}.docs ALTER COLUMN embedding TYPE halfvec(16)")
        names_of_columns = [column.name for column in columns]
        store = PGVectorStore.create_sync(
            engine, LangChainWorld(), "docs", schema_name=schema, metadata_columns=names_of_columns
        )
        store.add_documents(documents(tenant, ids_of("a")), ids=ids_of("a"))
        made[tenant] = Tenant(store, ids_of("a"))
    return made


def make_milvus(kind: str, folder: Any, servers: Any) -> dict[str, Tenant]:
    from langchain_milvus import Milvus
    from pymilvus import DataType, MilvusClient

    uri, integers = str(folder / "milvus.db"), kind == "milvus-integers"
    client = MilvusClient(uri)
    schema = client.create_schema(auto_id=False)
    if integers:
        schema.add_field("pk", DataType.INT64, is_primary=True)
    else:
        schema.add_field("pk", DataType.VARCHAR, is_primary=True, max_length=64)
    schema.add_field("tenant", DataType.VARCHAR, max_length=8, is_partition_key=not integers)
    schema.add_field("text", DataType.VARCHAR, max_length=64)
    schema.add_field("number", DataType.INT64)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=16)
    index = client.prepare_index_params()
    index.add_index("vector", index_type="FLAT", metric_type="COSINE")
    client.create_collection("docs", schema=schema, index_params=index)
    made_ids = {}
    for tenant, first in (("a", 0), ("b", 1_000)):
        ids = [first + number for number in range(N)] if integers else ids_of(tenant)
        rows = [
            {
                "pk": node,
                "tenant": tenant,
                "text": f"topic {number}",
                "number": number,
                "vector": NODES[number].tolist(),
            }
            for number, node in enumerate(ids)
        ]
        client.insert("docs", rows)
        made_ids[tenant] = [str(node) for node in ids]
    store = Milvus(
        LangChainWorld(),
        "docs",
        connection_args={"uri": uri},
        index_params={"index_type": "FLAT", "metric_type": "COSINE"},
        auto_id=False,
        **({} if integers else {"partition_key_field": "tenant"}),
    )
    return {tenant: Tenant(store, ids, {"expr": f'tenant == "{tenant}"'}) for tenant, ids in made_ids.items()}


MAKERS = {"chroma": make_chroma, "qdrant": make_qdrant, "postgres": make_postgres, "milvus": make_milvus}


@pytest.fixture(scope="module")
def tenants_of(tmp_path_factory, servers):
    """Makes the stores of a kind at their first use."""
    made: dict[str, dict[str, Tenant]] = {}

    def get(kind: str) -> dict[str, Tenant]:
        if kind not in made:
            made[kind] = MAKERS[KINDS[kind]](kind, tmp_path_factory.mktemp(kind), servers)
        return made[kind]

    return get


def ask(tenant: Tenant, **options: Any) -> list[tuple[str | None, str]]:
    retriever = NudgeRetriever(vectorstore=tenant.store, search_kwargs={"k": K, **tenant.options}, **options)
    return [(found.id, found.page_content) for found in retriever.invoke(QUERY)]


def nudge_of(tenant: Tenant, chosen: list[int], towards: float) -> Nudge:
    """Some of a tenant's nodes, moved towards the query."""
    adapter = embedding_store(tenant.store)
    ids = [tenant.ids[number] for number in chosen]
    held = adapter.read(ids)
    query = np.array(LangChainWorld().embed_query(QUERY), dtype=held.dtype)
    vectors = held + towards * query
    if towards:
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    curve = ValidationCurve([0.0], [0.0], "nDCG@10")
    return Nudge(adapter, tuple(ids), adapter.as_stored(vectors), held, 0.1, curve, True, "moved by hand", "none")


@pytest.mark.parametrize("kind", here(KINDS))
def test_ours_answers_as_the_framework_for_one_tenant(kind, tenants_of):
    for tenant in tenants_of(kind).values():
        own = tenant.store.as_retriever(search_kwargs={"k": K, **tenant.options}).invoke(QUERY)
        expected = [(tenant.ids[document.metadata["number"]], document.page_content) for document in own]
        assert len(expected) == K
        assert ask(tenant) == expected
        assert ask(tenant, overlay=nudge_of(tenant, list(range(0, N, 2)), 0.0)) == expected


@pytest.mark.parametrize("kind", here(KINDS))
def test_a_push_for_one_tenant_leaves_the_other_alone(kind, tenants_of):
    tenants = tenants_of(kind)
    ours, other = tenants["a"], tenants["b"]
    nudge = nudge_of(ours, [1, 5, 11, 20], 3.0)
    before = {name: (ask(tenant), embedding_store(tenant.store).read(tenant.ids)) for name, tenant in tenants.items()}
    shown = ask(ours, overlay=nudge)
    assert {node for node, _ in shown} > set(nudge.ids)
    assert ask(other) == before["b"][0]
    assert nudge.push(force=True).pushed
    assert ask(ours) == shown
    assert ask(other) == before["b"][0]
    # Qdrant in memory normalises what it holds at every search, which may turn the last bit.
    off = 1e-7 if kind == "qdrant-payload" else 0
    np.testing.assert_allclose(embedding_store(other.store).read(other.ids), before["b"][1], rtol=0, atol=off)
    assert rollback(nudge.store).restored == len(nudge.ids)
    assert ask(ours) == before["a"][0]
    np.testing.assert_allclose(embedding_store(ours.store).read(ours.ids), before["a"][1], atol=1e-7)
