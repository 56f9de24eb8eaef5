"""LangChain on PostgreSQL by the application's own connections: its engines, pools, roles and search paths."""

from __future__ import annotations

import asyncio
import itertools

import numpy as np
import psycopg
import pytest
from langchain_core.documents import Document

import nudge_rag

pytest.importorskip("langchain_postgres")
import sqlalchemy
from langchain_nudge import NudgeRetriever, embedding_store, tune
from langchain_postgres import PGEngine, PGVector, PGVectorStore
from sqlalchemy import event
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import AssertionPool, NullPool, SingletonThreadPool, StaticPool

from nudge_rag.stores import PgVectorStore, StoreError
from tests.support.builders.postgres import new_database, with_driver

numbers = itertools.count()
SYNC = ("psycopg", "psycopg2")
ASYNC = ("psycopg", "asyncpg")
POOLS = (
    {},
    *({"poolclass": pool} for pool in (NullPool, StaticPool, SingletonThreadPool, AssertionPool)),
    {"pool_size": 1, "max_overflow": 0, "pool_timeout": 3},
)


@pytest.fixture
def address(servers):
    return new_database(servers)


def documents(world, tenant=None):
    extra = {} if tenant is None else {"tenant": tenant}
    prefix = "" if tenant is None else f"{tenant}-"
    return [
        Document(id=prefix + node, page_content=text, metadata=metadata | extra) for node, text, metadata in world.rows
    ]


def pairs_of(world, prefix=""):
    return nudge_rag.LabeledPairs.from_pairs(
        (f"question {j} about {i}", prefix + world.node_id(i)) for i in range(20) for j in range(8)
    )


def no_addresses(monkeypatch):
    """From here on psycopg opens connections for SQLAlchemy alone: the adapter itself must not."""
    monkeypatch.setattr("nudge_rag.stores.postgres.connection.AddressConnections.cursor", None)
    monkeypatch.setattr("nudge_rag.stores.postgres.connection.AddressConnections.stream", None)


def rows_of(address, query, *values):
    with psycopg.connect(address) as connection:
        return connection.execute(query, values).fetchall()


@pytest.mark.parametrize("driver", SYNC)
@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: getattr(pool.get("poolclass"), "__name__", "QueuePool"))
def test_every_engine_and_pool_is_used_as_it_is(address, world, monkeypatch, driver, pool):
    engine = sqlalchemy.create_engine(with_driver(address, driver), **pool)
    made = []
    event.listen(engine, "connect", lambda connection, record: made.append(connection))
    store = PGVector(world.langchain, connection=engine)
    store.add_documents(documents(world))
    no_addresses(monkeypatch)
    adapter = embedding_store(store)
    before = adapter.read([world.node_id(3)])
    assert np.array_equal(before[0], np.array(world.vector("topic 3"), dtype=np.float32))
    assert {node for ids, _ in adapter.scan(7) for node in ids} == {row[0] for row in world.rows}
    nudge = tune(store, pairs_of(world), solver="nudge-n")  # its history is in the store, behind a lock
    overlay = NudgeRetriever(vectorstore=store, overlay=nudge)
    served = [overlay.invoke(query) for query in world.queries[:5]]
    assert nudge.push().pushed
    assert [NudgeRetriever(vectorstore=store).invoke(query) for query in world.queries[:5]] == served
    assert nudge.rollback().exact
    assert np.array_equal(adapter.read([world.node_id(3)]), before)
    assert len(made) <= 2 or pool.get("poolclass") is NullPool
    monkeypatch.undo()
    if driver == "psycopg":
        assert adapter.key == PgVectorStore(address, "langchain_pg_embedding", only=adapter._options["only"]).key
    engine.dispose()


@pytest.mark.parametrize("driver", SYNC)
@pytest.mark.parametrize("moment", ["connect", "checkout", "begin"])
def test_listeners_may_begin_a_transaction(address, world, driver, moment):
    engine = sqlalchemy.create_engine(with_driver(address, driver))
    if moment == "begin":
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("SET LOCAL app.tenant = 'a'"))
    else:
        event.listen(engine, moment, lambda connection, *_: connection.cursor().execute("SET app.tenant = 'a'"))
    store = PGVector(world.langchain, connection=engine)
    store.add_documents(documents(world))
    nudge = tune(store, pairs_of(world), solver="nudge-n")
    assert nudge.push(force=True).pushed
    assert nudge_rag.status(nudge.store).version == "0001"
    assert nudge.rollback().exact
    engine.dispose()


def test_a_pool_of_one_connection_says_what_needs_a_second(address, world):
    engine = sqlalchemy.create_engine(with_driver(address, "psycopg"), pool_size=1, max_overflow=0, pool_timeout=0.1)
    store = PGVector(world.langchain, connection=engine)
    store.add_documents(documents(world))
    batches = embedding_store(store).scan(7)
    next(batches)
    with pytest.raises(StoreError, match="the engine's QueuePool gives no second connection"):
        embedding_store(store).count()
    batches.close()
    assert embedding_store(store).count() == len(world.rows)
    engine.dispose()


@pytest.mark.parametrize("driver", ASYNC)
async def test_a_pgvector_with_an_asynchronous_engine(address, world, monkeypatch, tmp_path, driver):
    engine = create_async_engine(with_driver(address, driver))
    store = PGVector(world.langchain, connection=engine, async_mode=True, create_extension=False)
    await store.aadd_documents(documents(world))
    no_addresses(monkeypatch)
    # While this test's own loop runs, and waits.
    nudge = tune(store, pairs_of(world), versions=tmp_path, solver="nudge-n")
    overlay = NudgeRetriever(vectorstore=store, overlay=nudge)
    served = [overlay.invoke(query) for query in world.queries[:3]]
    assert await asyncio.gather(*(overlay.ainvoke(query) for query in world.queries[:3])) == served
    assert nudge.push().pushed
    retriever = NudgeRetriever(vectorstore=store)
    assert [await retriever.ainvoke(query) for query in world.queries[:3]] == served
    assert [found.page_content for found in await store.asimilarity_search(world.queries[0])] == [
        found.page_content for found in served[0]
    ]
    assert [retriever.invoke(query) for query in world.queries[:3]] == served, "which the framework cannot"
    assert nudge.rollback().exact
    await engine.dispose()


@pytest.mark.parametrize("driver", ASYNC)
@pytest.mark.parametrize("own_loop", [False, True])
async def test_a_pgvectorstore_on_an_engine_of_the_application(address, world, monkeypatch, tmp_path, driver, own_loop):
    engine = create_async_engine(with_driver(address, driver))
    wrapped = (
        PGEngine.from_engine(engine)
        if own_loop
        else PGEngine.from_connection_string(with_driver(address, driver), pool_size=2)
    )
    await wrapped.ainit_vectorstore_table("world", 16)
    store = await PGVectorStore.create(wrapped, world.langchain, "world")
    await store.aadd_documents(documents(world))
    no_addresses(monkeypatch)
    nudge = tune(store, pairs_of(world), versions=tmp_path, solver="nudge-n")
    overlay = NudgeRetriever(vectorstore=store, overlay=nudge)
    served = [overlay.invoke(query) for query in world.queries[:3]]
    assert nudge.push().pushed
    assert [await NudgeRetriever(vectorstore=store).ainvoke(query) for query in world.queries[:3]] == served
    assert [NudgeRetriever(vectorstore=store).invoke(query) for query in world.queries[:3]] == served
    assert nudge.rollback().exact
    await engine.dispose()


POLICY = """
CREATE ROLE app{n} LOGIN;
ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
CREATE POLICY one_tenant ON {table} USING ({column} ->> 'tenant' = current_setting('app.tenant', true));
GRANT ALL ON ALL TABLES IN SCHEMA public TO app{n};
GRANT ALL ON SCHEMA public TO app{n};
"""


def as_tenant(address, how, role, tenant):
    """An engine that sees one tenant, as applications make one."""
    if how == "connect_args":
        options = f"-c role={role} -c app.tenant={tenant}"
        return sqlalchemy.create_engine(with_driver(address, "psycopg"), connect_args={"options": options})
    if how == "creator":
        return sqlalchemy.create_engine(
            "postgresql+psycopg://",
            creator=lambda: psycopg.connect(address, options=f"-c role={role} -c app.tenant={tenant}"),
        )
    engine = sqlalchemy.create_engine(with_driver(address, "psycopg2"))

    @event.listens_for(engine, how)
    def set_role(connection, *_):
        cursor = connection.connection.cursor() if how == "begin" else connection.cursor()
        cursor.execute(f"SET ROLE {role}")
        cursor.execute(f"SET app.tenant = '{tenant}'")
        if how != "begin":
            connection.commit()

    return engine


@pytest.mark.parametrize("how", ["connect_args", "creator", "connect", "begin"])
def test_row_level_security_hides_the_other_tenant_from_every_step(address, world, tmp_path, how):
    owner = PGVector(world.langchain, connection=with_driver(address, "psycopg"))
    for tenant in ("a", "b"):
        owner.add_documents(documents(world, tenant))
    n = next(numbers)
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(POLICY.format(n=n, table="langchain_pg_embedding", column="cmetadata"))
    of_b = "SELECT id, embedding::text FROM langchain_pg_embedding WHERE cmetadata ->> 'tenant' = 'b' ORDER BY id"
    before = rows_of(address, of_b)
    engine = as_tenant(address, how, f"app{n}", "a")
    store = PGVector(world.langchain, connection=engine, create_extension=False)
    adapter = embedding_store(store)
    assert adapter.count() == 60
    assert {node[0] for ids, _ in adapter.scan() for node in ids} == {"a"}
    assert adapter.matching([f"b-{world.node_id(1)}"], None) == set()
    with pytest.raises(nudge_rag.stores.UnknownIdError):
        adapter.read([f"b-{world.node_id(1)}"])
    with pytest.raises(nudge_rag.stores.UnknownIdError):
        adapter.replace([f"b-{world.node_id(1)}"], np.ones((1, 16)))
    labels = nudge_rag.LabeledPairs.from_pairs(
        (f"question {j} about {i}", f"{tenant}-{world.node_id(i)}")
        for i in range(20)
        for j in range(8)
        for tenant in "ab"
    )
    with pytest.warns(UserWarning, match="not in the store"):
        nudge = tune(store, labels, versions=tmp_path)
    assert {node[0] for node in nudge.ids} == {"a"}
    for retriever in (
        NudgeRetriever(vectorstore=store, k=100, overlay=nudge),
        NudgeRetriever(vectorstore=store, k=100),
    ):
        assert {found.metadata["tenant"] for found in retriever.invoke(world.queries[0])} == {"a"}
    with pytest.raises(nudge_rag.PushError, match="row-level security hides rows"):
        nudge.push(mode="side-by-side")
    assert nudge.push().pushed
    assert rows_of(address, of_b) == before
    assert nudge.rollback().exact
    assert rows_of(address, of_b) == before
    engine.dispose()


def test_the_search_path_tells_the_tables(address, world, tmp_path):
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA tenant")
    PGVector(world.langchain, connection=with_driver(address, "psycopg")).add_documents(documents(world)[:5])
    options = {"connect_args": {"options": "-c search_path=tenant,public"}}
    with psycopg.connect(address, autocommit=True) as connection:
        for table in ("langchain_pg_collection", "langchain_pg_embedding"):
            connection.execute(f"CREATE TABLE tenant.{table} (LIKE public.{table} INCLUDING ALL)")
    store = PGVector(world.langchain, connection=with_driver(address, "psycopg"), engine_args=options)
    store.add_documents(documents(world))
    adapter = embedding_store(store)
    assert adapter.count() == 60
    assert nudge_rag.tune(adapter, pairs_of(world), world.langchain.embed_documents, versions=tmp_path).push().pushed
    retriever = NudgeRetriever(vectorstore=store, k=60)
    assert len(retriever.invoke(world.queries[0])) == 60
    assert embedding_store(PGVector(world.langchain, connection=with_driver(address, "psycopg"))).count() == 5


def test_a_push_is_one_transaction_on_an_engine_that_commits_each_statement(address, world):
    engine = sqlalchemy.create_engine(with_driver(address, "psycopg"), isolation_level="AUTOCOMMIT")
    store = PGVector(world.langchain, connection=engine)
    store.add_documents(documents(world))
    adapter = embedding_store(store)
    with pytest.raises(RuntimeError, match="stop"), adapter._cursor():
        adapter.replace([world.node_id(1)], np.ones((1, 16)))
        raise RuntimeError("stop")
    assert np.allclose(adapter.read([world.node_id(1)])[0], world.vector("topic 1"))
