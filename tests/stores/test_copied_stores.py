"""A copied store is a new one that knows its origin: its nudges are never taken for originals, and can be undone."""

from __future__ import annotations

import shutil
import time

import numpy as np
import pytest

from nudge_rag import JournalError, rollback, status, take_over, versions
from nudge_rag.journal.journal import original_vectors
from nudge_rag.journal.ownership import find_home
from nudge_rag.journal.push import push_vectors
from tests.support.builders.registry import BUILDERS
from tests.support.databases import close_store
from tests.support.killed_worker import nudged, open_store
from tests.support.killing import fill
from tests.support.kinds import KINDS

IDS = [str(number) for number in range(1, 7)]
ORIGINALS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
FILES = [kind for kind in KINDS if kind not in ("chroma-server", "milvus-server", "postgres", "redis", "parquet")]
FIRST, SECOND = nudged(ORIGINALS, 1), nudged(ORIGINALS, 2)


def identity(store):
    return find_home(store, None).identity()


def holds(store, vectors):
    return store.read(IDS).tobytes() == vectors.astype(store.capabilities.dtype).tobytes()


@pytest.fixture(params=FILES)
def pushed(request, tmp_path):
    """A store in a folder, with a push, and its address; nobody has it open."""
    kind, folder = request.param, tmp_path / "origin"
    folder.mkdir()
    address = fill(kind, folder, None, IDS, ORIGINALS)
    store = open_store(kind, address)
    push_vectors(store, IDS, ORIGINALS, FIRST)
    known = identity(store)
    close_store(kind, store)
    return kind, folder, address, known


def test_a_folder_that_is_copied_is_a_store_of_its_own(pushed, tmp_path):
    kind, folder, address, known = pushed
    shutil.copytree(folder, tmp_path / "copy")
    copy = open_store(kind, address.replace(str(folder), str(tmp_path / "copy")))
    found = status(copy)
    assert (found.version, len(found.nudged)) == ("0001", 6)
    assert str(folder) in found.origin
    assert f"version 0001 of {found.origin}, from which this store was copied" in str(found)
    push_vectors(copy, IDS, ORIGINALS, SECOND)
    own = identity(copy)
    assert own != known
    assert status(copy).origin is None, "this push is its own"
    assert rollback(copy).exact
    assert holds(copy, ORIGINALS)
    assert identity(copy) == own
    close_store(kind, copy)
    origin = open_store(kind, address)
    assert (status(origin).version, status(origin).origin, identity(origin)) == ("0001", None, known)
    assert holds(origin, FIRST)
    assert rollback(origin).exact
    assert holds(origin, ORIGINALS)
    close_store(kind, origin)


def test_the_push_of_the_origin_is_undone_in_a_copied_folder(pushed, tmp_path):
    kind, folder, address, _ = pushed
    shutil.copytree(folder, tmp_path / "copy")
    copy = open_store(kind, address.replace(str(folder), str(tmp_path / "copy")))
    assert rollback(copy).exact
    assert holds(copy, ORIGINALS)
    close_store(kind, copy)


def test_a_folder_that_is_moved_is_the_same_store(pushed, tmp_path):
    kind, folder, address, known = pushed
    folder.rename(tmp_path / "moved")
    moved = open_store(kind, address.replace(str(folder), str(tmp_path / "moved")))
    assert (status(moved).version, status(moved).origin) == ("0001", None)
    push_vectors(moved, IDS, ORIGINALS, SECOND)
    assert identity(moved) == known
    assert rollback(moved).exact
    close_store(kind, moved)


def copy_postgres(store):
    from nudge_rag.stores import PgVectorStore

    table = store._regclass.split('"')[3]
    with store._connections.cursor() as cursor:
        cursor.execute(f"DROP TABLE IF EXISTS copied_{table}")
        cursor.execute(f"CREATE TABLE copied_{table} AS TABLE {table}")
    return PgVectorStore(store._connections, f"copied_{table}", id_column="node_id")


def copy_duckdb(store):
    from nudge_rag.stores import DuckDBStore

    store.connection.execute("CREATE TABLE copied AS FROM nodes")
    return DuckDBStore(store.connection, "copied")


def copy_sqlite(store):
    from nudge_rag.stores import SQLiteVecStore

    definition = store._rows("SELECT sql FROM sqlite_master WHERE name = 'nodes_vec'")[0][0]
    store.connection.execute("CREATE TABLE copied AS SELECT rowid, * FROM nodes")
    store.connection.execute(definition.replace("nodes_vec", "copied_vec"))
    store.connection.execute(
        "INSERT INTO copied_vec (rowid, text_embedding) SELECT rowid, text_embedding FROM nodes_vec"
    )
    store.connection.commit()
    return SQLiteVecStore(store.connection, "copied")


def copy_lance(store):
    import lancedb

    from nudge_rag.stores import LanceStore

    database = lancedb.connect(str(store.table.uri).rpartition("/")[0])
    return LanceStore(database.create_table("copied", store.table.to_arrow()))


def copy_chroma(store):
    from nudge_rag.stores import ChromaStore

    copied = store.collection._client.create_collection("copied")
    rows = store.collection.get(include=["embeddings", "documents", "metadatas"])
    handle = type(store.collection)(client=store.collection._client, model=copied, embedding_function=None)
    handle.add(rows["ids"], embeddings=rows["embeddings"], documents=rows["documents"], metadatas=rows["metadatas"])
    return ChromaStore(handle)


def copy_qdrant(store):
    from qdrant_client import models

    from nudge_rag.stores import QdrantStore

    settings = store.client.get_collection(store.collection).config.params
    store.client.create_collection("copied", vectors_config=settings.vectors)
    points, _ = store.client.scroll(store.collection, limit=100, with_vectors=True)
    store.client.upsert(
        "copied", [models.PointStruct(id=one.id, vector=one.vector, payload=one.payload) for one in points]
    )
    return QdrantStore(store.client, "copied")


def copy_milvus(store):
    from nudge_rag.stores import MilvusStore

    client, fields = store.client, store._schema
    index = client.prepare_index_params()
    index.add_index(fields.vector_field, index_type="FLAT", metric_type="L2")
    schema = client.create_schema(enable_dynamic_field=True)
    for field in client.describe_collection(store.collection)["fields"]:
        more = {name: value for name, value in field["params"].items() if name in ("max_length", "dim")}
        schema.add_field(field["name"], field["type"], is_primary=field.get("is_primary", False), **more)
    client.create_collection("copied", schema=schema, index_params=index)
    client.upsert("copied", client.query(store.collection, filter="", limit=100, output_fields=["*"]))
    return MilvusStore(client, "copied", vector_field=fields.vector_field)


def copy_redis(store):
    from nudge_rag.stores import RedisStore

    client, prefix = store.client, store._prefix.decode()
    if b"copied" in client.execute_command("FT._LIST"):
        client.execute_command("FT.DROPINDEX", "copied", "DD")
    for key in client.scan_iter("nudge-rag:copied:*"):
        client.delete(key)
    for key in list(client.scan_iter(f"{prefix}*")):
        client.copy(key, b"copied:" + key.removeprefix(prefix.encode()))
    kind = ("VECTOR", "FLAT", 6, "TYPE", "FLOAT32", "DIM", store.dimension, "DISTANCE_METRIC", "COSINE")
    client.execute_command("FT.CREATE", "copied", "ON", "HASH", "PREFIX", 1, "copied:", "SCHEMA", "embedding", *kind)
    copied = RedisStore(client, "copied", prefix="copied:")
    while copied.count() < store.count():  # Redis fills an index in the background
        time.sleep(0.01)
    return copied


COPIES = {
    "chroma-langchain": copy_chroma,
    "duckdb-langchain": copy_duckdb,
    "lancedb-langchain": copy_lance,
    "milvus-langchain": copy_milvus,
    "postgres-llama-index": copy_postgres,
    "qdrant-langchain-dot-alias": copy_qdrant,
    "redis-langchain": copy_redis,
    "sqlite-vec-langchain": copy_sqlite,
}


def test_every_way_of_copying_inside_a_database_is_tested_that_is_here():
    databases = {name.partition("-")[0] for name in BUILDERS} & {name.partition("-")[0] for name in COPIES}
    assert {name.partition("-")[0] for name in COPIES if name in BUILDERS} == databases


@pytest.mark.parametrize("kind", [kind for kind in COPIES if kind in BUILDERS])
def test_a_copy_inside_its_database_asks_for_the_history_of_its_origin(kind, build):
    origin = build(kind, 6).store
    ids = [name for names, _ in origin.scan(10) for name in names]
    originals = origin.read(ids)
    moved = origin.as_stored(originals + 1)
    assert push_vectors(origin, ids, originals, moved).pushed
    copy = COPIES[kind](origin)
    for call in (status, versions, rollback):
        with pytest.raises(JournalError, match=r"wrote, such as that of .*If it is a copy of .*take_over\(store\)"):
            call(copy)
    assert take_over(copy, origin) == ("0001",)
    found = status(copy)
    assert (found.version, set(found.nudged)) == ("0001", set(ids))
    assert "from which this store was copied" in str(found)
    assert identity(copy) not in (None, identity(origin))
    assert rollback(copy).exact
    assert copy.read(ids).tobytes() == originals.tobytes()
    assert status(copy).version is None
    assert (status(origin).version, status(origin).origin) == ("0001", None)
    assert origin.read(ids).tobytes() == moved.tobytes()
    assert rollback(origin).exact


def sql(store, statement):
    if hasattr(store, "connection"):
        store.connection.execute(statement)
    else:
        with store._connections.cursor() as cursor:
            cursor.execute(statement)


def tables_of(store):
    """The table of a store and that of its copy, and the column of their ids."""
    if hasattr(store, "connection"):
        return "nodes", "copied", store.id_column if hasattr(store, "id_column") else "id"
    table = store._regclass.split('"')[3]
    return table, f"copied_{table}", "node_id"


@pytest.mark.parametrize("kind", [kind for kind in ("postgres-llama-index", "duckdb-langchain") if kind in BUILDERS])
def test_a_node_that_was_away_in_the_origin_is_undone_if_it_comes_back_in_the_copy(kind, build):
    origin = build(kind, 6).store
    ids = [name for names, _ in origin.scan(10) for name in names]
    originals = origin.read(ids)
    # No other test pushes such vectors: what it leaves in a database is not taken for the history of their tables.
    push_vectors(origin, ids, originals, originals + 7)
    table, copied, column = tables_of(origin)
    sql(origin, "DROP TABLE IF EXISTS saved")
    sql(origin, f"CREATE TABLE saved AS SELECT * FROM {table} WHERE {column} = '{ids[0]}'")
    sql(origin, f"DELETE FROM {table} WHERE {column} = '{ids[0]}'")
    with pytest.warns(UserWarning, match="no longer in the store"):
        push_vectors(origin, ids, originals, originals + 8)
    copy = COPIES[kind](origin)
    assert take_over(copy, origin) == ("0002",)
    assert status(copy).away == status(origin).away == (ids[0],)
    sql(origin, f"INSERT INTO {copied} SELECT * FROM saved")
    sql(origin, "DROP TABLE saved")
    assert original_vectors(copy, ids, copy.read(ids)).tobytes() == originals.tobytes()
    assert rollback(copy).restored == 6
    assert copy.read(ids).tobytes() == originals.tobytes()
    assert (status(copy).away, status(origin).away) == ((), (ids[0],))


def test_a_store_that_is_no_copy_of_the_one_given_takes_nothing_over(build):
    origin = build("postgres-llama-index", 6).store
    ids = [name for names, _ in origin.scan(10) for name in names]
    originals = origin.read(ids)
    copy = copy_postgres(origin)
    with pytest.raises(JournalError, match=r"is no copy of .*: nothing is pushed to it; nothing was taken over"):
        take_over(copy, origin)
    push_vectors(origin, ids, originals, originals + 1)
    with pytest.raises(JournalError, match=r"no copy of .*: no node holds what its version 0001 wrote; nothing was"):
        take_over(copy, origin)
    assert str(status(copy)) == "nothing is pushed"


def drop_table(store):
    store.connection.execute("DROP TABLE nodes")


def drop_postgres(store):
    table = store._regclass.split('"')[3]
    with store._connections.cursor() as cursor:
        cursor.execute(f"DROP TABLE {table}")


def drop_milvus(store):
    store.client.drop_collection(store.collection)


DROPS = {
    "chroma-langchain": lambda store: store.collection._client.delete_collection(store.collection.name),
    "duckdb-langchain": drop_table,
    "milvus-langchain": drop_milvus,
    "postgres-llama-index": drop_postgres,
    "qdrant-langchain-euclid": lambda store: store.client.delete_collection(store.collection),
    "redis-langchain": lambda store: store.client.execute_command("FT.DROPINDEX", store._index.own_name, "DD"),
    "sqlite-vec-langchain": drop_table,
}


@pytest.mark.parametrize("kind", [kind for kind in DROPS if kind in BUILDERS])
def test_what_took_the_place_of_a_store_takes_its_history_over(kind, build):
    """A table is made anew from the old one, which is dropped: what a migration of a schema does."""
    origin = build(kind, 6).store
    ids = [name for names, _ in origin.scan(10) for name in names]
    originals = origin.read(ids)
    # As nothing else was moved in this server: another table that is gone would explain these vectors as well.
    for by in (3, 4):
        assert push_vectors(origin, ids, originals, origin.as_stored(originals + by)).pushed
    copy = COPIES.get(kind, copy_qdrant)(origin)
    DROPS[kind](origin)
    with pytest.raises(JournalError, match=r"version 0002 in .* wrote, such as that of "):
        status(copy)
    assert take_over(copy) == ("0002",)
    assert len(status(copy).nudged) == 6
    assert rollback(copy).restored == 6
    assert copy.read(ids).tobytes() == originals.tobytes()


@pytest.mark.skipif("postgres-llama-index" not in BUILDERS, reason="PostgreSQL is not here")
def test_a_table_that_moves_to_another_schema_keeps_its_history(build):
    from nudge_rag.stores import PgVectorStore

    store = build("postgres-llama-index", 6).store
    ids = [name for names, _ in store.scan(10) for name in names]
    originals, known = store.read(ids), None
    assert push_vectors(store, ids, originals, originals + 1).pushed
    known, table = identity(store), store._regclass.split('"')[3]
    with store._connections.cursor() as cursor:
        cursor.execute("CREATE SCHEMA IF NOT EXISTS elsewhere")
        cursor.execute(f"DROP TABLE IF EXISTS elsewhere.{table}")
        cursor.execute(f"ALTER TABLE {table} SET SCHEMA elsewhere")
    moved = PgVectorStore(store._connections, table, schema="elsewhere", id_column="node_id")
    assert (status(moved).version, identity(moved)) == ("0001", known)
    assert rollback(moved).restored == 6
    assert moved.read(ids).tobytes() == originals.tobytes()
    with store._connections.cursor() as cursor:
        cursor.execute(f"ALTER TABLE elsewhere.{table} SET SCHEMA public")


@pytest.mark.skipif("duckdb-langchain" not in BUILDERS, reason="DuckDB is not here")
def test_a_comment_that_is_written_over_loses_no_history(build):
    store = build("duckdb-langchain", 6).store
    ids = [name for names, _ in store.scan(10) for name in names]
    originals = store.read(ids)
    assert push_vectors(store, ids, originals, originals + 1).pushed
    store.connection.execute("COMMENT ON TABLE nodes IS 'all of our nodes'")
    with pytest.raises(JournalError, match=r"If it is a copy of a table that is gone, .*take_over\(store\)"):
        status(store)
    assert take_over(store) == ("0001",)
    assert rollback(store).restored == 6
    assert store.read(ids).tobytes() == originals.tobytes()
