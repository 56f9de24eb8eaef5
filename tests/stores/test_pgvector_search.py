"""Searches of pgvector: many queries in one statement cost no more than one statement for each."""

from __future__ import annotations

import time

import numpy as np
import psycopg
import pytest

from nudge_rag.stores import PgVectorStore
from tests.support.builders.postgres import new_database

N, D, QUERIES = 4_000, 32, 20


@pytest.mark.server
def test_many_queries_over_a_table_without_an_index_take_no_longer_than_one_by_one(servers):
    rng = np.random.default_rng(0)
    nodes, queries = (rng.normal(size=(count, D)).astype(np.float32) for count in (N, QUERIES))
    address = new_database(servers)
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"CREATE TABLE nodes (id text PRIMARY KEY, embedding vector({D}))")
        with connection.cursor() as cursor, cursor.copy("COPY nodes FROM STDIN") as rows:
            for row, vector in enumerate(nodes.tolist()):
                rows.write_row((f"n{row}", str(vector)))
        connection.execute("ANALYZE nodes")
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
