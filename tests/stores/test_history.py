"""The history that each database holds of itself: one contract for all."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from nudge_rag.common import lock
from nudge_rag.errors import LockedError
from nudge_rag.stores import leases
from nudge_rag.stores.history import HistoryStore
from tests.support.builders.registry import BUILDERS, builders

# One builder of each way in which a history is kept; the rest of a database's builders share it.
NAMES = [
    "chroma-llama-index-cosine",
    "chroma-server-langchain",
    "duckdb-langchain",
    "duckdb-llama-index-any-length",
    "faiss-langchain-ivf",
    "faiss-llama-index-flat",
    "in-memory",
    "in-memory-persisted",
    "lancedb-langchain",
    "milvus-langchain",
    "milvus-llama-index",
    "milvus-server-langchain-cosine",
    "parquet",
    "postgres-langchain",
    "postgres-llama-index",
    "qdrant-langchain-cosine",
    "qdrant-langchain-dot-alias",
    "qdrant-llama-index-dot-on-disk",
    "redis-langchain",
    "redis-llama-index",
    "simple",
    "simple-persisted",
    "sqlite-vec-langchain",
    "sqlite-vec-langchain-in-memory",
]
HERE = [name for name in NAMES if name in BUILDERS]
TESTED = {re.match(r"[a-z]+(-memory|-vec)?", name)[0] for name in NAMES}
# How another process opens the store while this one has it open.
SHARED = {
    "chroma-llama-index-cosine": "ChromaStore.open({folder!r} + '/chroma', {store.collection.name!r})",
    "chroma-server-langchain": "open_store('chroma://127.0.0.1:{port}?collection={store.collection.name}')",
    "in-memory-persisted": "InMemoryStore.open({path!r})",
    "lancedb-langchain": "LanceStore.open({folder!r} + '/lance', 'nodes')",
    "postgres-llama-index": "PgVectorStore({uri!r}, {table!r}, id_column='node_id')",
    "simple-persisted": "SimpleStore.open({folder!r} + '/vectors.json')",
    "sqlite-vec-langchain": "SQLiteVecStore.open({folder!r} + '/nodes.db', 'nodes')",
    "redis-langchain": "open_store('redis://127.0.0.1:{port}?index={store._index.name}')",
}


@pytest.fixture(params=HERE)
def built(request, build):
    return build(request.param, 60)


@pytest.fixture(params=HERE)
def untouched(request, build_once):
    return build_once(request.param, 60)


def test_every_database_here_is_among_them():
    """No name of a builder above is mistyped, and none of a database that is here is forgotten."""
    databases = {re.match(r"[a-z]+(-memory|-vec)?", name)[0] for name in builders()}
    assert databases <= TESTED
    assert {name for name in NAMES if re.match(r"[a-z]+(-memory|-vec)?", name)[0] in databases} - set(HERE) <= {
        "redis-langchain",
        "redis-llama-index",
    }


def test_blobs_are_kept_replaced_listed_and_deleted(built):
    assert isinstance(built.store, HistoryStore)
    history = built.store.history()
    assert history.names() == []
    with pytest.raises(KeyError, match=r"0001/manifest\.json"):
        history.read("0001/manifest.json")
    history.delete("0001/manifest.json")
    blobs = {"0001/manifest.json": b"{}", "0001/arrays": bytes(range(256)) * 5, "0010/arrays": b"", "mark": b"\x00"}
    for name, content in blobs.items():
        history.write(name, content)
    again = built.store.history()
    assert again.names() == sorted(blobs)
    assert again.names("0001/") == ["0001/arrays", "0001/manifest.json"]
    assert again.names("00") == ["0001/arrays", "0001/manifest.json", "0010/arrays"]
    assert {name: again.read(name) for name in blobs} == blobs
    again.write("0001/manifest.json", b'{"state": "written"}')
    assert history.read("0001/manifest.json") == b'{"state": "written"}'
    history.delete("0001/arrays")
    assert again.names("0001/") == ["0001/manifest.json"]
    with pytest.raises(KeyError):
        again.read("0001/arrays")
    assert isinstance(history.location, str)


def test_twenty_megabytes_come_back_as_they_were(built):
    content = np.random.default_rng(0).bytes(20_000_000)
    history = built.store.history()
    history.write("0001/arrays", content)
    assert built.store.history().read("0001/arrays") == content
    history.write("0001/arrays", content[:1000])
    assert history.read("0001/arrays") == content[:1000]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "/etc/passwd", "a//b", "a/../b", "a\\b", "a b", "é", "a\n", ".hidden", "-", 7, None]
)
def test_hostile_names_are_refused(untouched, name):
    history = untouched.store.history()
    for call in (lambda: history.write(name, b""), lambda: history.read(name), lambda: history.delete(name)):
        with pytest.raises(ValueError, match="a blob's name is"):
            call()
    assert history.names() == []


def test_nothing_of_it_shows_in_the_store(built):
    store, contents = built.store, built.contents()
    queries = np.random.default_rng(1).normal(size=(3, 12))
    before = store.search(queries, 60)
    with store.history().lock():
        store.history().write("0001/arrays", b"x" * 1000)
    assert store.count() == 60
    assert {node for ids, _ in store.scan() for node in ids} == set(built.vectors)
    after = store.search(queries, 60)
    assert [sorted(ids) for ids in after.ids] == [sorted(ids) for ids in before.ids]
    assert built.contents() == contents


IN_RECORDS = [name for name in HERE if name.startswith(("chroma", "milvus", "qdrant"))]


@pytest.mark.parametrize("name", IN_RECORDS)
def test_a_write_that_fails_halfway_leaves_what_there_was(name, build, monkeypatch):
    """Of databases that hold a blob in several records: the last record written is the one that counts."""
    built = build(name, 60)
    history = built.store.history()
    history.write("0001/arrays", b"old" * 700_000)
    put, calls = history.put, iter(range(1, 100))
    steps = 0

    def fail_at(step):
        def call(*values):
            nonlocal steps
            steps = next(calls)
            if steps == step:
                raise OSError("power cut")
            put(*values)

        return call

    monkeypatch.setattr(history, "put", fail_at(2))
    with pytest.raises(OSError, match="power cut"):
        history.write("0001/arrays", b"new" * 3_000_000)
    assert steps == 2
    monkeypatch.undo()
    assert history.read("0001/arrays") == b"old" * 700_000
    with built.store.history().lock():
        pass
    assert history.read("0001/arrays") == b"old" * 700_000


def test_threads_take_turns(built, monkeypatch):
    monkeypatch.setattr(lock, "SECONDS_TO_WAIT", 0.5)
    held, release = threading.Event(), threading.Event()
    failures = []

    def hold():
        try:
            with built.store.history().lock():
                held.set()
                release.wait(60)
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    with pytest.raises(LockedError, match="under way in another"), built.store.history().lock():
        pass
    release.set()
    thread.join()
    assert failures == []
    with built.store.history().lock():
        built.store.history().write("after", b"")


def test_it_is_found_when_the_store_is_opened_again(built):
    built.store.history().write("0001/arrays", b"originals")
    if built.reopen is None:
        assert not built.store.capabilities.persistent
        return
    again = built.reopen().history()
    assert again.names() == ["0001/arrays"]
    assert again.read("0001/arrays") == b"originals"


def other_process(expression: str, statements: str) -> subprocess.Popen[str]:
    code = (
        "import sys, time\nfrom nudge_rag import open_store\nfrom nudge_rag.stores import *\n"
        f"store = {expression}\nhistory = store.history()\n{statements}"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def expression_for(name, built, tmp_path, servers):
    details = {"folder": str(tmp_path), "store": built.store}
    if "server" in name:
        details["port"] = servers.address(re.match("[a-z]+", name)[0])
    if name.startswith("redis"):
        details["port"] = built.store.client.connection_pool.connection_kwargs["port"]
    if name.startswith("postgres"):
        details["uri"], details["table"] = servers.address("postgres"), built.store._regclass.split('"')[3]
    if name == "in-memory-persisted":
        details["path"] = str(built.store._path)
    return SHARED[name].format(**details)


@pytest.mark.parametrize("name", [name for name in SHARED if name in BUILDERS])
def test_two_processes(name, build, tmp_path, servers, monkeypatch):
    """One writes and holds the lock; the other waits, is refused, reads; the first is killed and the lock is free."""
    built = build(name, 60)
    expression = expression_for(name, built, tmp_path, servers)
    statements = """
history.write("0001/arrays", bytes(range(256)) * 9000)
with history.lock():
    history.write("held", b"yes")
    print("held", flush=True)
    sys.stdin.readline()
"""
    process = other_process(expression, statements)
    line = process.stdout.readline()
    assert line == "held\n", process.communicate()[1]
    history = built.store.history()
    with monkeypatch.context() as patched:
        patched.setattr(lock, "SECONDS_TO_WAIT", 0.5)
        patched.setattr(leases, "SECONDS_TO_EXPIRE", 10.0)  # on a busy machine a holder may come late to renew it
        with pytest.raises(LockedError, match="under way in another"), history.lock():
            pass
    assert history.read("0001/arrays") == bytes(range(256)) * 9000
    assert history.read("held") == b"yes"
    process.kill()
    process.wait()
    monkeypatch.setattr(leases, "SECONDS_TO_EXPIRE", 60.0)
    start = time.monotonic()
    with history.lock():
        history.write("held", b"by the other")
    assert time.monotonic() - start < 30, "the death of its holder was not noticed before the lease expired"
    process = other_process(expression, 'with history.lock(): print(history.read("held").decode(), flush=True)')
    assert process.communicate(timeout=60)[0] == "by the other\n"


@pytest.mark.skipif("chroma-server-langchain" not in BUILDERS, reason="Chroma is not here")
def test_a_holder_that_was_stopped_while_it_wrote_a_blob_replaces_none_of_the_next_holder(build, monkeypatch):
    store = build("chroma-server-langchain", 5).store
    stopped, other = store.history(), store.history()
    stopped.write("store.json", b"first")
    put = type(stopped).put

    def put_late(storage, records):
        put(storage, records)
        if records[0].kind == "part":
            # As after a stop of some seconds: the lease has expired, and another process holds it.
            later = leases.now() + leases.SECONDS_TO_EXPIRE
            monkeypatch.setattr(leases, "now", lambda: later)
            monkeypatch.setattr(type(stopped), "put", put)
            other._lease._record.write('{"holder": "another"}')
            other.write("store.json", b"by the other")
            other._delete_unfinished()

    with stopped.lock():
        monkeypatch.setattr(type(stopped), "put", put_late)
        with pytest.raises(LockedError, match="the lock was taken over"):
            stopped.write("store.json", b"by the one that was stopped")
    assert other.read("store.json") == b"by the other"


def test_a_file_that_is_moved_with_its_folder_or_linked_has_the_same_history(build, tmp_path):
    from nudge_rag.stores import SimpleStore

    build("simple-persisted", 5).store.history().write("a", b"1")
    link = tmp_path / "elsewhere" / "link.json"
    link.parent.mkdir()
    link.symlink_to(tmp_path / "vectors.json")
    assert SimpleStore.open(link).history().read("a") == b"1"
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in list(tmp_path.glob("vectors.json*")):
        file.rename(moved / file.name)
    assert SimpleStore.open(moved / "vectors.json").history().read("a") == b"1"


def test_a_table_that_is_renamed_keeps_its_history(build, servers, tmp_path):
    import psycopg

    from nudge_rag.stores import DuckDBStore, LanceStore, PgVectorStore, SQLiteVecStore

    duckdb = build("duckdb-langchain", 5).store
    duckdb.history().write("a", b"1")
    duckdb.connection.execute("ALTER TABLE nodes RENAME TO others")
    assert DuckDBStore(duckdb.connection, "others").history().read("a") == b"1"
    sqlite = build("sqlite-vec-langchain", 5).store
    sqlite.history().write("a", b"1")
    sqlite.connection.execute("ALTER TABLE nodes RENAME TO others")
    sqlite.connection.execute("ALTER TABLE nodes_vec RENAME TO others_vec")
    renamed = SQLiteVecStore(sqlite.connection, "others")
    assert renamed.history().read("a") == b"1"
    sqlite.connection.execute("UPDATE others SET text = text")
    postgres = build("postgres-llama-index", 5).store
    postgres.history().write("a", b"1")
    table = postgres._regclass.split('"')[3]
    with psycopg.connect(servers.address("postgres"), autocommit=True) as connection:
        connection.execute(f"ALTER TABLE {table} RENAME TO {table}_renamed")
    renamed = PgVectorStore(servers.address("postgres"), f"{table}_renamed", id_column="node_id")
    assert renamed.history().read("a") == b"1"
    lance = build("lancedb-langchain", 5).store
    lance.history().write("a", b"1")
    (tmp_path / "lance").rename(tmp_path / "moved")
    assert LanceStore.open(tmp_path / "moved", "nodes").history().read("a") == b"1"
    assert Path(lance.table.uri).name == "nodes.lance"


@pytest.mark.parametrize("name", ["duckdb-langchain", "postgres-llama-index", "sqlite-vec-langchain"])
def test_vectors_and_history_are_written_together_or_not_at_all(build, name):
    built = build(name, 60)
    store, history = built.store, built.store.history()
    node = next(iter(built.vectors))
    before = store.read([node])
    history.write("state", b"before")
    with history.lock():
        with pytest.raises(RuntimeError, match="power cut"), store.transaction():
            store.replace([node], before + 1)
            history.write("state", b"after")
            history.write("state", b"after that")
            raise RuntimeError("power cut")
        assert (history.read("state"), store.read([node]).tobytes()) == (b"before", before.tobytes())
        with store.transaction():
            history.write("state", b"written")
            store.replace([node], before + 1)
            history.write("state", b"committed")
        assert history.read("state") == b"committed"
        assert store.read([node]).tobytes() == (before + 1).tobytes()


def test_postgres_says_what_right_is_missing(build, servers):
    import psycopg

    from nudge_rag.stores import PgVectorStore, StoreError

    store = build("postgres-llama-index", 5).store
    table, uri = store._regclass.split('"')[3], servers.address("postgres")
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS nudge_rag_history")
        connection.execute("DROP ROLE IF EXISTS reader")
        connection.execute("CREATE ROLE reader LOGIN")
        connection.execute(f"GRANT SELECT, UPDATE ON {table} TO reader")
    poor = PgVectorStore(uri.replace("postgres:@", "reader:@"), table, id_column="node_id")
    assert poor.history().names() == []
    with pytest.raises(StoreError, match=r"cannot be written to: the role has no right.*versions=PATH"):
        poor.history().write("a", b"1")
    store.history().write("a", b"1")
    with pytest.raises(StoreError, match="cannot be read: the role has no right"):
        poor.history().read("a")


def test_databases_that_are_open_for_reading_alone_say_so(build, tmp_path):
    import duckdb

    from nudge_rag.stores import DuckDBStore, StoreError

    with duckdb.connect(str(tmp_path / "read.duckdb")) as connection:
        connection.execute("CREATE TABLE nodes (id VARCHAR, embedding FLOAT[2])")
        connection.execute("INSERT INTO nodes VALUES ('a', [1, 2])")
    reading = duckdb.connect(str(tmp_path / "read.duckdb"), read_only=True)
    sqlite = build("sqlite-vec-langchain", 5).store
    sqlite.connection.execute("PRAGMA query_only = 1")
    for store in (DuckDBStore(reading, "nodes", id_column="id", vector_column="embedding"), sqlite):
        with pytest.raises(StoreError, match=r"cannot be written to: .*open the database for writing.*versions=PATH"):
            store.history().write("a", b"1")
        assert store.history().names() == []
