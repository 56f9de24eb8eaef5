"""Searches of pgvector: many queries in one statement cost no more than one statement for each."""

from __future__ import annotations

import time

import numpy as np
import psycopg
import pytest

from nudge_rag.stores import PgVectorStore
from tests.support.builders.postgres import new_database

N, D, QUERIES = 4_000, 32, 20
# A call of the database takes 128 queries, and so many calls are shared out to two connections.
MANY = 128 * 4 + 1


def fill(address, nodes):
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"CREATE TABLE nodes (id text PRIMARY KEY, embedding vector({nodes.shape[1]}))")
        with connection.cursor() as cursor, cursor.copy("COPY nodes FROM STDIN") as rows:
            for row, vector in enumerate(nodes.tolist()):
                rows.write_row((f"n{row}", str(vector)))
        connection.execute("ANALYZE nodes")


def sessions_of(address):
    """Client sessions on the database, this one left out."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with psycopg.connect(address) as connection:
        return connection.execute(query + " AND backend_type = 'client backend'").fetchone()[0]


@pytest.mark.server
def test_very_many_queries_are_shared_out_to_connections_and_answered_in_order(servers):
    rng = np.random.default_rng(1)
    nodes, queries = (rng.normal(size=(count, 4)).astype(np.float32) for count in (200, MANY))
    address = new_database(servers)
    fill(address, nodes)
    store = PgVectorStore(address, "nodes", similarity="l2")
    opened = []
    connect = psycopg.connect
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psycopg, "connect", lambda *args, **options: opened.append(1) or connect(*args, **options))
        found = store.search(queries, 3)
    distances = ((queries[:, None].astype(np.float64) - nodes[None].astype(np.float64)) ** 2).sum(axis=2)
    assert found.ids == [[f"n{row}" for row in line] for line in np.argsort(distances, axis=1)[:, :3].tolist()]
    np.testing.assert_allclose(np.stack(found.scores), -np.sort(distances, axis=1)[:, :3], rtol=1e-5)
    # A second one beside the store's own, closed by now.
    assert len(opened) == 1
    deadline = time.monotonic() + 10
    while sessions_of(address) > 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sessions_of(address) == 1


@pytest.mark.server
def test_very_many_queries_in_a_transaction_see_what_it_wrote(servers):
    nodes = np.eye(6, dtype=np.float32)
    address = new_database(servers)
    fill(address, nodes)
    store = PgVectorStore(address, "nodes")
    queries = np.tile(nodes[0], (MANY, 1))
    with store.transaction():
        store.replace(["n0", "n5"], nodes[[5, 0]])
        assert {line[0] for line in store.search(queries, 1).ids} == {"n5"}


@pytest.mark.server
def test_very_many_queries_are_answered_though_the_server_gives_one_connection(servers):
    address = new_database(servers)
    fill(address, np.eye(3, dtype=np.float32))
    store = PgVectorStore(address, "nodes")

    def refuse(*args, **options):
        raise psycopg.OperationalError("too many clients already")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psycopg, "connect", refuse)
        assert store.search(np.tile([0.0, 1.0, 0.0], (MANY, 1)), 1).ids == [["n1"]] * MANY


@pytest.mark.server
def test_many_queries_over_a_table_without_an_index_take_no_longer_than_one_by_one(servers):
    rng = np.random.default_rng(0)
    nodes, queries = (rng.normal(size=(count, D)).astype(np.float32) for count in (N, QUERIES))
    address = new_database(servers)
    fill(address, nodes)
    with psycopg.connect(address, autocommit=True) as connection:
        order = "SELECT id FROM nodes ORDER BY embedding <=> %s::vector LIMIT 10"

        def ask_one_by_one():
            return [
                [row[0] for row in connection.execute(order, [str(query.tolist())]).fetchall()] for query in queries
            ]

        store = PgVectorStore(address, "nodes")

        def seconds_of(ask):
            started = time.perf_counter()
            ask()
            return time.perf_counter() - started

        assert store.search(queries, 10).ids == ask_one_by_one()
        # Each row that is looked at parsing the query anew made it 20 times as long.
        ratios = [seconds_of(lambda: store.search(queries, 10)) / seconds_of(ask_one_by_one) for _ in range(5)]
    assert min(ratios) < 3
