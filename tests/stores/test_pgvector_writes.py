"""Vectors that are sent to pgvector through every driver: the bits that arrive are those that were sent."""

from __future__ import annotations

import numpy as np
import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from nudge_rag.stores import PgVectorStore
from nudge_rag.stores.postgres.sent_vectors import VectorArray, send_vectors
from tests.support.builders.postgres import new_database, with_driver

D, IDS = 7, ["a", 'b"{,}\\', "c"]
# The largest and the smallest numbers of float32, both zeros, and numbers of nine digits.
EXTREME = np.array(
    [
        [3.4028235e38, -3.4028235e38, 1e-45, -1e-45, 1.1754942e-38, -0.0, 0.0],
        [0.1, 1 / 3, -2 / 3, 16777216, 1.0000001, 123456789, -1e-10],
        [1, 2, 3, 4, 5, 6, 7],
    ],
    dtype=np.float32,
)
DRIVERS = {
    "address": lambda address: address,
    "psycopg": lambda address: create_engine(with_driver(address, "psycopg")),
    "psycopg, values in the statement": lambda address: create_engine(
        with_driver(address, "psycopg"), connect_args={"cursor_factory": psycopg.ClientCursor}
    ),
    "psycopg, asynchronous": lambda address: create_async_engine(with_driver(address, "psycopg")),
    "psycopg2": lambda address: create_engine(with_driver(address, "psycopg2")),
    "asyncpg": lambda address: create_async_engine(with_driver(address, "asyncpg")),
}


def bits(rows: np.ndarray) -> list[list[int]]:
    return rows.view(np.uint32).tolist()


@pytest.fixture(scope="module")
def address(servers):
    return new_database(servers)


def make_table(address: str, kind: str, rows: np.ndarray) -> None:
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS nodes")
        connection.execute(f"CREATE TABLE nodes (id text PRIMARY KEY, embedding {kind}({D}))")
        for node_id, row in zip(IDS, rows, strict=True):
            connection.execute("INSERT INTO nodes VALUES (%s, %s)", [node_id, str(row.tolist())])


@pytest.mark.server
@pytest.mark.parametrize("driver", DRIVERS)
def test_every_bit_arrives_through_every_driver(address, driver):
    make_table(address, "vector", np.ones((3, D), dtype=np.float32))
    store = PgVectorStore(DRIVERS[driver](address), "nodes")
    store.replace(IDS, EXTREME)
    assert bits(store.read(IDS)) == bits(EXTREME)
    with psycopg.connect(address) as connection:
        found = dict(connection.execute("SELECT id, embedding::text FROM nodes").fetchall())
    told = np.array([[float(number) for number in found[name].strip("[]").split(",")] for name in IDS], np.float32)
    assert bits(told) == bits(EXTREME)


@pytest.mark.server
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("kind", ["vector", "halfvec"])
def test_compare_and_set_and_copies_through_every_driver(address, driver, kind):
    before = np.arange(3 * D, dtype=np.float32).reshape(3, D)
    after, of_copy = before[::-1].copy(), before + 0.5
    make_table(address, kind, before)
    store = PgVectorStore(DRIVERS[driver](address), "nodes")
    expected = before.copy()
    expected[1] += 1  # somebody else's is another one
    assert store.replace_vectors_if(IDS, expected, after) == [IDS[1]]
    assert store.read(IDS).tolist() == [after[0].tolist(), before[1].tolist(), after[2].tolist()]
    assert store.derive_copy("one", lambda ids, live: of_copy[[IDS.index(name) for name in ids]]) == 3
    assert store.open_copy("one").read(IDS).tolist() == of_copy.tolist()


@pytest.mark.server
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("kind", ["vector", "halfvec"])
def test_queries_arrive_through_every_driver(address, driver, kind):
    rows = np.random.default_rng(0).normal(size=(3, D)).astype(np.float16).astype(np.float32)
    make_table(address, kind, rows)
    store = PgVectorStore(DRIVERS[driver](address), "nodes", similarity="l2")
    queries = np.vstack([rows[::-1], rows * np.float32(0.5)])
    squared = ((queries[:, None].astype(np.float64) - rows) ** 2).sum(axis=2)
    found = store.search(queries, 3)
    assert found.ids == [[IDS[row] for row in line] for line in squared.argsort(axis=1)]
    np.testing.assert_allclose(-np.array(found.scores), np.sort(squared, axis=1), rtol=1e-5)
    assert [line[0] for line in found.scores[:3]] == [0, 0, 0]  # of a query that lost a bit it is larger


@pytest.mark.server
def test_the_number_of_the_type_is_asked_for_once_a_connection(address):
    asked = []

    class Counting(psycopg.Cursor):
        def execute(self, query, *values, **options):
            asked.append(query)
            return super().execute(query, *values, **options)

    for _ in range(2):
        asked.clear()
        with psycopg.connect(address, cursor_factory=Counting) as connection:
            for number in range(3):
                with connection.cursor() as cursor:
                    array, sent = send_vectors(cursor, EXTREME[:number])
                    assert array == "vector[]"
                    (count,) = cursor.execute(f"SELECT cardinality(%s::{array})", [sent]).fetchone()
                    assert count == number
        assert len(asked) == 1 + 3


def test_the_text_of_an_array_says_the_same():
    array = VectorArray(np.array([[1, -0.5], [0.25, 3]], dtype=np.float32), 1)
    assert array.to_text() == '{"[1.0, -0.5]","[0.25, 3.0]"}'
