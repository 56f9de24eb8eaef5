"""What is particular to one database when it holds two versions: names, locks, indexes, rows added in between."""

from __future__ import annotations

import threading
import time

import lancedb
import numpy as np
import psycopg
import pytest
from langchain_postgres import PGEngine
from langchain_postgres import PGVectorStore as LangChainPGVectorStore
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.vector_stores.postgres import PGVectorStore

import nudge_rag.stores.postgres.copies
from nudge_rag import PushError, rollback, switch
from nudge_rag.journal.manifest import SIDE_BY_SIDE
from nudge_rag.journal.push import push_vectors
from nudge_rag.stores import LanceStore, PgVectorStore, StoreError
from tests.stores.test_each_store import HOSTILE, IDS, VECTORS, make_lance, make_postgres
from tests.support.builders.common import DIMENSION, LangChainEmbeddings, LlamaIndexEmbedding, documents, uuid_id
from tests.support.builders.postgres import new_database, with_driver


def push(store, root, ids=IDS, vectors=-VECTORS):
    return push_vectors(store, ids, store.read(ids), vectors, versions=root, mode=SIDE_BY_SIDE)


def fetched(uri, query, *values):
    with psycopg.connect(uri, autocommit=True) as connection:
        found = connection.execute(query, values or None)
        return found.fetchall() if found.description else []


@pytest.mark.parametrize("name", [*HOSTILE, "vector", "x" * 60, "é" * 30])
def test_postgres_names_are_quoted_and_fit(servers, tmp_path, name):
    uri = servers.address("postgres")
    store = make_postgres(uri, table=f"t{name[:20]}", vector_column=name)
    table, column = (psycopg.sql.Identifier(part).as_string() for part in (f"t{name[:20]}", name))
    fetched(uri, f"CREATE INDEX ON {table} USING hnsw ({column} vector_l2_ops)")
    fetched(uri, f"CREATE INDEX ON {table} USING hnsw (({column}::vector(4)) vector_ip_ops) WHERE {column} IS NOT NULL")
    push(store, tmp_path)
    switch(store, tmp_path)
    assert store.read(IDS).tobytes() == (-VECTORS).tobytes()
    assert rollback(store, tmp_path).exact
    assert store.read(IDS).tobytes() == VECTORS.tobytes()
    assert fetched(uri, "SELECT to_regclass('keep') IS NOT NULL") == [(True,)]


def test_postgres_the_copy_has_the_same_type_and_indexes(servers, tmp_path):
    uri = new_database(servers)
    store = make_postgres(uri, kind="halfvec(4) NOT NULL")
    fetched(uri, "CREATE INDEX ON plain USING hnsw (embedding halfvec_cosine_ops) WITH (m = 7, ef_construction = 33)")
    fetched(
        uri, "CREATE INDEX ON plain USING ivfflat (embedding halfvec_l2_ops) WITH (lists = 1) WHERE id <> 'embedding'"
    )
    fetched(uri, "CREATE INDEX ON plain (id)")
    store = PgVectorStore(uri, "plain")
    made = store.create_copy("a")
    assert (made.capabilities, made._kind.as_string(), made._dimension) == (store.capabilities, "halfvec", 4)
    assert not made.capabilities.exact_search
    query = "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = 'plain'::regclass ORDER BY indexrelid"
    definitions = [row[0].partition(" USING ")[2] for row in fetched(uri, query)]
    assert len(definitions) == 5
    assert definitions[3:] == [
        "hnsw (embedding__beside_a halfvec_cosine_ops) WITH (m='7', ef_construction='33')",
        "ivfflat (embedding__beside_a halfvec_l2_ops) WITH (lists='1') WHERE (id <> 'embedding'::text)",
    ]
    store.switch("a")
    nullable = "SELECT attname, attnotnull FROM pg_attribute WHERE attrelid = 'plain'::regclass AND attname ~ '^embed'"
    assert dict(fetched(uri, nullable)) == {"embedding": True, "embedding__beside_a": False}
    store.switch("a")
    assert dict(fetched(uri, nullable)) == {"embedding": True, "embedding__beside_a": False}


def test_postgres_rows_that_the_frameworks_add_are_not_lost(servers, tmp_path):
    uri = new_database(servers)
    vector_store = PGVectorStore(
        connection_string=with_driver(uri, "psycopg2"),
        async_connection_string=with_driver(uri, "asyncpg"),
        table_name="nodes",
        embed_dim=DIMENSION,
    )
    index = VectorStoreIndex.from_vector_store(vector_store, embed_model=LlamaIndexEmbedding())
    nodes = [TextNode(id_=f"n{at}", text=f"text of {at}") for at in range(9)]
    index.insert_nodes(nodes[:6])
    engine = PGEngine.from_connection_string(with_driver(uri, "psycopg"))
    engine.init_vectorstore_table("chunks", DIMENSION)
    vectorstore = LangChainPGVectorStore.create_sync(engine, LangChainEmbeddings(), "chunks")
    rows = documents(9, uuid_id)
    vectorstore.add_documents(rows[:6])
    for store, ids, add, found in (
        (
            PgVectorStore(uri, "data_nodes", id_column="node_id"),
            [node.node_id for node in nodes],
            lambda at: index.insert_nodes([nodes[at]]),
            lambda text: index.as_retriever(similarity_top_k=1).retrieve(text)[0].node_id,
        ),
        (
            PgVectorStore(uri, "chunks", id_column="langchain_id"),
            [row.id for row in rows],
            lambda at: vectorstore.add_documents([rows[at]]),
            lambda text: vectorstore.similarity_search(text, k=1)[0].id,
        ),
    ):
        root, texts = tmp_path / store.key, [f"text of {row.metadata['number']}" for row in rows]
        texts = [node.text for node in nodes] if store._options["table"] == "data_nodes" else texts
        # Node 0 gets the vector of text 1 turned round, node 1 that of text 0.
        moved = store.read(ids[:2])[::-1]
        push(store, root, ids[:2], moved)
        add(6)
        assert store.count() == 7
        assert found(texts[0]) == ids[0]
        assert switch(store, root).caught_up == 1
        assert [found(text) for text in (texts[0], texts[1], texts[6])] == [ids[1], ids[0], ids[6]]
        add(7)
        assert found(texts[7]) == ids[7]
        assert rollback(store, root).exact
        assert [found(text) for text in (texts[0], texts[1], texts[7])] == [ids[0], ids[1], ids[7]]
        add(8)
        assert store.count() == 9


def test_postgres_rows_of_other_stores_in_the_table_are_not_lost(servers, tmp_path):
    uri = new_database(servers)
    make_postgres(uri)
    store = PgVectorStore(uri, "plain", only="id LIKE '%''b' OR id LIKE '%\"b'")
    assert store.count() == 2
    push(store, tmp_path, IDS[:2], -VECTORS[:2])
    fetched(uri, "UPDATE plain SET embedding = '[1,1,1,1]' WHERE id = 'é'")
    fetched(uri, "INSERT INTO plain VALUES ('new', '[2,2,2,2]')")
    (label,) = store.copy_labels()
    with pytest.raises(
        StoreError, match=r"2 row.s. of .*plain.*belong to other stores in the table have other vectors"
    ):
        store.switch(label)
    expected = dict(fetched(uri, "SELECT id, embedding::real[] FROM plain"))
    switch(store, tmp_path)
    assert store.read(IDS[:2]).tobytes() == (-VECTORS[:2]).tobytes()
    fetched(uri, "UPDATE plain SET embedding = '[3,3,3,3]' WHERE id = 'new'")
    rollback(store, tmp_path)
    assert dict(fetched(uri, "SELECT id, embedding::real[] FROM plain")) == {**expected, "new": [3, 3, 3, 3]}


def test_postgres_rows_added_at_the_last_moment_stop_the_switch(servers):
    uri = new_database(servers)
    store = make_postgres(uri)
    store.create_copy("a")
    fetched(uri, "INSERT INTO plain VALUES ('new', '[1,1,1,1]')")
    with pytest.raises(StoreError, match=r"1 row.s. of .*plain.*in one of the versions only: switching would lose"):
        store.switch("a")
    assert store.read(["new"]).tolist() == [[1, 1, 1, 1]]


def test_postgres_a_table_that_others_hold_is_waited_for_and_then_left_alone(servers, monkeypatch):
    monkeypatch.setattr(
        nudge_rag.stores.postgres.copies, "LOCK_TIMEOUT", "SELECT set_config('lock_timeout', '100', true)"
    )
    monkeypatch.setattr(nudge_rag.stores.postgres.copies, "BETWEEN_TRIES", 0.1)
    uri = new_database(servers)
    store = make_postgres(uri)
    store.create_copy("a").replace(IDS, -VECTORS)
    with psycopg.connect(uri) as connection:
        connection.execute("SELECT count(*) FROM plain")
        for action in (store.switch, store.drop_copy, store.create_copy):
            with pytest.raises(StoreError, match=r"other sessions hold .*plain.*nothing was changed"):
                action("a")
        assert store.read(IDS).tobytes() == VECTORS.tobytes(), "readers do not wait for long"
        threading.Timer(0.5, connection.rollback).start()
        store.switch("a")
    assert store.read(IDS).tobytes() == (-VECTORS).tobytes()


@pytest.fixture
def eager_autovacuum(servers):
    """A server that looks every second for tables to vacuum."""
    uri = new_database(servers)
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET autovacuum_naptime = '1s'")
        connection.execute("SELECT pg_reload_conf()")
        yield uri
        connection.execute("ALTER SYSTEM RESET autovacuum_naptime")
        connection.execute("SELECT pg_reload_conf()")


def test_postgres_an_autovacuum_of_the_table_makes_way(eager_autovacuum):
    uri = eager_autovacuum
    store = make_postgres(uri)
    fetched(uri, "ALTER TABLE plain SET (autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1)")
    fetched(uri, "ALTER TABLE plain SET (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0)")
    # At a page in a second, thousands of dead rows take it minutes.
    fetched(uri, "INSERT INTO plain SELECT 'more ' || n, '[1,2,3,4]' FROM generate_series(1, 20000) n")
    fetched(uri, "DELETE FROM plain WHERE id LIKE 'more %'")
    running = "SELECT 1 FROM pg_stat_progress_vacuum WHERE relid = 'plain'::regclass AND datname = current_database()"
    deadline = time.monotonic() + 60
    while not fetched(uri, running):
        assert time.monotonic() < deadline, "no autovacuum began"
        time.sleep(0.05)
    store.create_copy("a").replace(IDS, -VECTORS)
    store.switch("a")
    assert store.read(IDS).tobytes() == (-VECTORS).tobytes()


def test_postgres_views_would_stay_behind(servers, tmp_path):
    uri = new_database(servers)
    store = make_postgres(uri)
    fetched(uri, "CREATE VIEW shown AS SELECT id, embedding FROM plain")
    with pytest.raises(PushError, match="views keep to the column that they were made with, whatever its name: shown"):
        push(store, tmp_path)
    assert store.copy_labels() == []
    fetched(uri, "DROP VIEW shown")
    assert push(store, tmp_path).pushed


def test_postgres_a_long_query_reads_what_it_began_with(servers):
    """A reader in a transaction of its own sees one version throughout, however often it looks."""
    uri = new_database(servers)
    store = make_postgres(uri)
    store.create_copy("a").replace(IDS, -VECTORS)
    reader = psycopg.connect(uri)
    first = reader.execute("SELECT embedding::real[] FROM plain ORDER BY id").fetchall()
    switching = threading.Thread(target=store.switch, args=("a",))
    switching.start()
    second = reader.execute("SELECT embedding::real[] FROM plain ORDER BY id").fetchall()
    reader.rollback()
    switching.join()
    assert first == second
    third = reader.execute("SELECT embedding::real[] FROM plain ORDER BY id").fetchall()
    assert (np.array(third) == -np.array(first)).all()
    reader.close()


def test_lance_a_switch_is_one_commit_and_writers_from_before_are_not_lost(tmp_path):
    table = make_lance(tmp_path / "lance")
    before, after = (lancedb.connect(str(tmp_path / "lance")).open_table("nodes") for _ in range(2))
    store = LanceStore(table)
    push(store, tmp_path / "v", IDS[:3], -VECTORS[:3])
    after.checkout_latest()
    version = table.version
    store.switch(store.copy_labels()[0])
    assert table.version == version + 1
    store.switch(store.copy_labels()[0])
    assert table.version == version + 2
    switch(store, tmp_path / "v")
    # Handles opened before the copy and before the switch write to the live version.
    for handle, node in ((before, "from before"), (after, "from after")):
        handle.add([{"id": node, "vector": [1.0, 2.0, 3.0, 4.0], "text": "added"}])
        assert store.read([node]).tolist() == [[1, 2, 3, 4]]
    assert rollback(store, tmp_path / "v").exact
    assert store.read(["from before", "from after"]).tolist() == [[1, 2, 3, 4]] * 2
    assert store.read(IDS).tobytes() == VECTORS.tobytes()
    assert store.count() == 8


def test_lance_whoever_names_no_column_is_not_asked_which(tmp_path):
    table = make_lance(tmp_path)
    store = LanceStore(table)
    store.create_copy("a").replace(IDS, -VECTORS)
    assert table.search(VECTORS[0]).limit(1).to_list()[0]["id"] == IDS[0]
    assert store.open_copy("a").search(-VECTORS[:1], 1, where="text = 'kept'").ids == [[IDS[0]]]
    assert store.open_copy("a").search(-VECTORS[:1], 1, where="text = 'lost'").ids == [[]]
    store.switch("a")
    table.checkout_latest()
    assert table.search(-VECTORS[0]).limit(1).to_list()[0]["id"] == IDS[0]


@pytest.mark.parametrize("name", ["node id", "no'de", "SELECT", "naïve"])
def test_lance_names_beside_are_quoted(tmp_path, name):
    store = LanceStore(make_lance(tmp_path / "lance", id_column=name), id_column=name)
    push(store, tmp_path)
    switch(store, tmp_path)
    assert store.read(IDS).tobytes() == (-VECTORS).tobytes()


def test_lance_a_table_at_a_version_is_not_switched(tmp_path):
    table = make_lance(tmp_path)
    table.checkout(1)
    store = LanceStore(table, latest=False)
    assert not store.capabilities.side_by_side
    for action in (store.create_copy, store.switch, store.drop_copy):
        with pytest.raises(ValueError, match="open it with latest=True"):
            action("a")
