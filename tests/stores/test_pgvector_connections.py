"""Connections that PostgreSQL, or something between, ends: those that were idle, and that of the lock."""

from __future__ import annotations

import numpy as np
import psycopg
import pytest

from nudge_rag import PushError, rollback, status
from nudge_rag.journal.push import push_vectors
from nudge_rag.stores import PgVectorStore
from nudge_rag.stores.postgres import connection as connections
from tests.support.builders.postgres import new_database

IDS = [f"n{row}" for row in range(6)]
ROWS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
END = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND pid <> {}"

pytestmark = pytest.mark.server


@pytest.fixture
def address(servers):
    found = new_database(servers)
    with psycopg.connect(found) as connection:
        connection.execute("CREATE TABLE nodes (id text PRIMARY KEY, embedding vector(4))")
        for node_id, row in zip(IDS, ROWS, strict=True):
            connection.execute("INSERT INTO nodes VALUES (%s, %s)", [node_id, str(row.tolist())])
    return found


@pytest.fixture
def others(address):
    """A connection of the database's administrator."""
    with psycopg.connect(address, autocommit=True) as connection:
        yield connection


def end_all(others):
    assert others.execute(END.format(others.info.backend_pid)).fetchone()[0] > 0


def test_a_connection_that_was_ended_while_it_was_idle_is_made_anew(address, others, monkeypatch):
    monkeypatch.setattr(connections, "SECONDS_BEFORE_LOOK", 0)
    store = PgVectorStore(address, "nodes")
    end_all(others)
    assert store.read(IDS).tobytes() == ROWS.tobytes()
    end_all(others)
    assert push_vectors(store, IDS[:3], ROWS[:3], ROWS[:3] + 1).written == 3
    end_all(others)
    with store.transaction():
        assert rollback(store).restored == 3
    assert store.read(IDS).tobytes() == ROWS.tobytes()


def test_a_server_that_ends_idle_sessions_does_not_end_that_of_the_lock(address, others):
    others.execute(f"ALTER DATABASE {others.info.dbname} SET idle_session_timeout = '150ms'")
    store = PgVectorStore(address, "nodes")
    with store.history().lock():
        others.execute("SELECT pg_sleep(0.6)")
        held = others.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone()
        assert held == (1,)
    assert others.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone() == (0,)


def test_a_push_whose_lock_was_lost_writes_nothing_more_and_another_one_is_whole(address, others, monkeypatch):
    """A second process pushes as soon as the first has lost its lock, in the middle of its writes."""
    from nudge_rag.journal import push

    push_vectors(PgVectorStore(address, "nodes"), IDS[5:], ROWS[5:], ROWS[5:] + 1)
    write_over = push.write_over

    def write_late(*values):
        monkeypatch.setattr(push, "write_over", write_over)
        others.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
        return write_over(*values)

    monkeypatch.setattr(push, "write_over", write_late)
    with pytest.raises(PushError, match=r"the lock was lost, as PostgreSQL has ended the session .* are back"):
        push_vectors(PgVectorStore(address, "nodes"), IDS[:3], ROWS[:3], ROWS[:3] + 2)
    assert status(PgVectorStore(address, "nodes")).nudged == ("n5",)
    assert push_vectors(PgVectorStore(address, "nodes"), IDS[2:4], ROWS[2:4], ROWS[2:4] + 3).version == "0002"
    rollback(PgVectorStore(address, "nodes"))
    assert PgVectorStore(address, "nodes").read(IDS).tobytes() == ROWS.tobytes()


def test_a_history_is_read_in_two_statements_also_beside_a_table_of_another_schema(address, others, monkeypatch):
    history = PgVectorStore(address, "nodes").history()
    history.write("a/b", b"first")
    asked = []
    execute = psycopg.Cursor.execute

    def noting(cursor, query, *rest, **options):
        asked.append(query)
        return execute(cursor, query, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(psycopg.Cursor, "execute", noting)
        found = history.read("a/b"), history.names()
    assert found == (b"first", ["a/b"])
    assert len(asked) == 4
    # The history stays where it was, and what it does not hold is in no other.
    others.execute("CREATE SCHEMA elsewhere")
    others.execute("ALTER TABLE nodes SET SCHEMA elsewhere")
    moved = PgVectorStore(address, "nodes", schema="elsewhere").history()
    assert moved.read("a/b") == b"first"
    with pytest.raises(KeyError):
        moved.read("a/c")
