"""LlamaIndex on PostgreSQL by the application's own connections: its engines, roles, schemas and query functions."""

from __future__ import annotations

import itertools

import psycopg
import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

pytest.importorskip("llama_index.vector_stores.postgres")
import sqlalchemy
from llama_index.retrievers.nudge import NudgeRetriever, embedding_store, rollback, status, tune
from llama_index.vector_stores.postgres import PGVectorStore
from sqlalchemy import event
from sqlalchemy.ext.asyncio import create_async_engine

import nudge_rag
from tests.support.builders.postgres import new_database, with_driver

numbers = itertools.count()
POLICY = """
CREATE ROLE {role} NOLOGIN;
GRANT USAGE, CREATE ON SCHEMA public TO {role};
GRANT SELECT, UPDATE ON public.{table} TO {role};
ALTER TABLE public.{table} ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON public.{table} TO {role} USING (metadata_ ->> 'tenant' = current_setting('app.tenant'));
"""


@pytest.fixture
def address(servers):
    return new_database(servers)


@pytest.fixture
def no_addresses(monkeypatch):
    """From here on no connection is opened by address: the adapter uses engines alone."""
    monkeypatch.setattr("nudge_rag.stores.postgres.connection.AddressConnections.cursor", None)
    monkeypatch.setattr("nudge_rag.stores.postgres.connection.AddressConnections.stream", None)


def vector_store(address, table, **options):
    return PGVectorStore(
        connection_string=with_driver(address, "psycopg2"),
        async_connection_string=with_driver(address, "asyncpg"),
        table_name=table,
        embed_dim=16,
        **options,
    )


def index_of(world, store, tenants=("",)):
    nodes = [
        TextNode(
            id_=tenant + node,
            text=text,
            metadata={**metadata, "tenant": tenant},
            excluded_embed_metadata_keys=[*metadata, "tenant"],
        )
        for tenant in tenants
        for node, text, metadata in world.rows
    ]
    context = StorageContext.from_defaults(vector_store=store)
    return VectorStoreIndex(nodes, storage_context=context, embed_model=world.llama_index)


def rows_of(address, query):
    with psycopg.connect(address) as connection:
        return connection.execute(query).fetchall()


def engines_of(address, how, role, tenant):
    """Engines, synchronous and not, that see one tenant, as applications make them."""
    settings = {"role": role, "app.tenant": tenant}
    if how == "connect_args":
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        return (
            sqlalchemy.create_engine(with_driver(address, "psycopg2"), connect_args={"options": options}),
            create_async_engine(with_driver(address, "psycopg"), connect_args={"options": options}),
        )
    engine = sqlalchemy.create_engine(with_driver(address, "psycopg2"))
    later = create_async_engine(with_driver(address, "psycopg"))
    for listened in (engine, later.sync_engine):

        @event.listens_for(listened, "begin")
        def set_role(connection):
            connection.exec_driver_sql(f"SET LOCAL ROLE {role}")
            connection.exec_driver_sql(f"SET LOCAL app.tenant = '{tenant}'")

    return engine, later


@pytest.mark.parametrize("how", ["connect_args", "begin"])
async def test_row_level_security_hides_the_other_tenant_from_every_step(address, world, tmp_path, how, no_addresses):
    table = f"secured{next(numbers)}"
    index_of(world, vector_store(address, table), tenants=("a-", "b-"))
    role = f"reader_{table}"
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(POLICY.format(role=role, table=f"data_{table}"))
    of_b = f"SELECT node_id, embedding::text FROM data_{table} WHERE metadata_ ->> 'tenant' = 'b-' ORDER BY node_id"
    before = rows_of(address, of_b)
    assert len(before) == 60
    engine, later = engines_of(address, how, role, "a-")
    store = vector_store(address, table, engine=engine, async_engine=later, perform_setup=False)
    index = VectorStoreIndex.from_vector_store(store, embed_model=world.llama_index)
    adapter = embedding_store(index)
    assert adapter.count() == 60
    assert {node[:2] for ids, _ in adapter.scan() for node in ids} == {"a-"}
    labels = nudge_rag.LabeledPairs.from_pairs(
        (f"question {j} about {i}", f"{tenant}{world.node_id(i)}")
        for i in range(20)
        for j in range(8)
        for tenant in ("a-", "b-")
    )
    with pytest.warns(UserWarning, match="not in the store"):
        nudge = tune(index, labels, versions=tmp_path, solver="nudge-n")
    assert {node[:2] for node in nudge.ids} == {"a-"}
    odd = MetadataFilters(filters=[MetadataFilter(key="number", value=30, operator=">")])
    for options in ({}, {"overlay": nudge}, {"filters": odd}, {"overlay": nudge, "filters": odd}):
        retriever = NudgeRetriever(index, similarity_top_k=200, **options)
        for found in (retriever.retrieve(world.queries[0]), await retriever.aretrieve(world.queries[0])):
            assert {one.node.metadata["tenant"] for one in found} == {"a-"}
            assert len(found) == (29 if "filters" in options else 60)
    chosen = NudgeRetriever(index, node_ids=[f"{tenant}{world.node_id(3)}" for tenant in ("a-", "b-")])
    assert [one.node_id for one in chosen.retrieve(world.queries[0])] == [f"a-{world.node_id(3)}"]
    assert nudge.push().pushed
    assert rows_of(address, of_b) == before
    assert set(status(index, tmp_path).nudged) == set(nudge.ids)
    assert rollback(index, tmp_path).exact
    assert rows_of(address, of_b) == before
    await later.dispose()
    engine.dispose()


def test_a_customized_query_holds_under_an_overlay_too(address, world, tmp_path):
    """The application adds its own condition to every query, with an option of its own."""

    def only_parity(statement, table, parity="odd", **options):
        return statement.where(table.metadata_["parity"].astext == parity)

    store = vector_store(address, f"custom{next(numbers)}", customize_query_fn=only_parity)
    index = index_of(world, store)
    nudge = tune(index, world.pairs, versions=tmp_path, solver="nudge-n")
    odd = {world.node_id(number) for number in range(1, 60, 2)}
    even = {world.node_id(number) for number in range(0, 60, 2)}
    for overlay in (None, nudge):
        found = NudgeRetriever(index, 60, overlay=overlay).retrieve(world.queries[0])
        assert {one.node_id for one in found} == odd
        options = {"vector_store_kwargs": {"parity": "even", "hnsw_ef_search": 50}}
        found = NudgeRetriever(index, 60, overlay=overlay, **options).retrieve(world.queries[0])
        assert {one.node_id for one in found} == even
        few = [world.node_id(number) for number in range(10)]
        found = NudgeRetriever(index, 60, overlay=overlay, node_ids=few, **options).retrieve(world.queries[0])
        assert {one.node_id for one in found} == even & set(few)


def test_options_of_the_index_are_used_and_others_refused(address, world):
    hnsw = {"hnsw_m": 4, "hnsw_ef_construction": 8, "hnsw_ef_search": 40}
    store = vector_store(address, f"indexed{next(numbers)}", hnsw_kwargs=hnsw)
    index = index_of(world, store)
    statements = []
    event.listen(store._engine, "before_cursor_execute", lambda *event_: statements.append((event_[2], event_[3])))
    for options in ({"hnsw_ef_search": 17}, {"ivfflat_probes": 3}):
        statements.clear()
        retriever = NudgeRetriever(index, vector_store_kwargs=options)
        own = index.as_retriever(vector_store_kwargs=options)
        found, expected = retriever.retrieve(world.queries[0]), own.retrieve(world.queries[0])
        assert [one.node_id for one in found] == [one.node_id for one in expected]
        (name, value) = next(iter(options.items()))
        setting = name.replace("_", ".", 1)
        sent = [values for statement, values in statements if setting in statement]
        assert len(sent) == 2
        assert all(str(value) in str(values) for values in sent)
    with pytest.raises(ValueError, match="PGVectorStore takes no vector_store_kwargs ef; it takes hnsw_ef_search"):
        NudgeRetriever(index, vector_store_kwargs={"ef": 3})


def test_halfvec_is_served_tuned_pushed_and_rolled_back(address, world, tmp_path):
    index = index_of(world, vector_store(address, f"half{next(numbers)}", use_halfvec=True))
    nudge = tune(index, world.pairs, versions=tmp_path, solver="nudge-n")
    overlay = NudgeRetriever(index, 7, overlay=nudge)
    served = [overlay.retrieve(query) for query in world.queries]
    assert nudge.push().pushed
    for query, found in zip(world.queries, served, strict=True):
        pushed = index.as_retriever(similarity_top_k=7).retrieve(query)
        assert [one.node_id for one in pushed] == [one.node_id for one in found]
        assert [one.score for one in pushed] == pytest.approx([one.score for one in found], abs=1e-5)
    assert rollback(index, tmp_path).exact


def test_the_schema_is_the_vector_stores(address, world, tmp_path):
    index = index_of(world, vector_store(address, "shared", schema_name="elsewhere"))
    other = index_of(world, vector_store(address, "shared"))
    assert tune(index, world.pairs, versions=tmp_path, solver="nudge-n").push().pushed
    assert status(index, tmp_path).version == "0001"
    assert status(other, tmp_path).version is None
