"""What is particular to one database: hostile names, duplicate ids, other precisions, lost connections."""

from __future__ import annotations

import uuid

import numpy as np
import psycopg
import pytest
from qdrant_client import QdrantClient, models

from nudge_rag import LabeledPairs, tune
from nudge_rag.stores import LanceStore, PgVectorStore, QdrantStore, StoreError, UnknownIdError
from tests.support.builders.postgres import new_database

HOSTILE = ['no"des; DROP TABLE keep; --', "no'des", "no`des", "nodes)", "%s", "{only}", "naïve ☃"]
VECTORS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
IDS = ["a'b", 'a"b', "%s", "a\\b", "; DROP TABLE keep; --", "é"]


def make_postgres(uri, table="plain", schema="public", id_column="id", vector_column="embedding", kind="vector(4)"):
    names = psycopg.sql.SQL("{}.{}").format(psycopg.sql.Identifier(schema), psycopg.sql.Identifier(table))
    columns = psycopg.sql.Identifier(id_column), psycopg.sql.Identifier(vector_column)
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS keep (a int)")
        connection.execute(psycopg.sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(psycopg.sql.Identifier(schema)))
        connection.execute(psycopg.sql.SQL("DROP TABLE IF EXISTS {}").format(names))
        query = psycopg.sql.SQL("CREATE TABLE {} ({} text, {} " + kind + ", text text DEFAULT 'kept')")
        connection.execute(query.format(names, *columns))
        escaped = [psycopg.sql.SQL(part.as_string().replace("%", "%%")) for part in (names, *columns)]
        insert = psycopg.sql.SQL("INSERT INTO {} ({}, {}) VALUES (%s, %s)").format(*escaped)
        for node, vector in zip(IDS, VECTORS, strict=True):
            connection.execute(insert, [node, str(vector.tolist())])
    return PgVectorStore(uri, table, schema=schema, id_column=id_column, vector_column=vector_column)


def exercise(store):
    """Every call once; the answers are those of numpy."""
    assert store.count() == 6
    assert store.read(IDS[::-1]).tobytes() == VECTORS[::-1].tobytes()
    assert store.matching([*IDS, "gone"], None) == set(IDS)
    unit = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    expected = {
        "cosine": np.argsort(-(unit @ unit[0])),
        "l2": np.argsort(((VECTORS - VECTORS[0]) ** 2).sum(axis=1)),
    }[store.capabilities.similarity]
    assert store.search(VECTORS[:1], 6).ids[0] == [IDS[at] for at in expected]
    store.replace(IDS[:2], -VECTORS[:2])
    assert store.read(IDS).tobytes() == np.concatenate([-VECTORS[:2], VECTORS[2:]]).tobytes()
    assert sorted(node for ids, _ in store.scan(4) for node in ids) == sorted(IDS)


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("place", ["table", "schema", "id_column", "vector_column"])
def test_names_in_sql_are_quoted(servers, place, name):
    uri = servers.address("postgres")
    exercise(make_postgres(uri, **{place: name}))
    with psycopg.connect(uri) as connection:
        assert connection.execute("SELECT to_regclass('keep') IS NOT NULL").fetchone() == (True,)


def test_postgres_half_precision_comes_back_as_it_was(servers, tmp_path):
    store = make_postgres(servers.address("postgres"), kind="halfvec(4)")
    before = store.read(IDS)
    np.testing.assert_array_equal(before, VECTORS.astype(np.float16).astype(np.float32))
    moved = np.random.default_rng(1).normal(size=(6, 4))
    store.replace(IDS, moved)
    assert store.read(IDS).tobytes() == store.as_stored(moved).tobytes()
    store.replace(IDS, before)
    assert store.read(IDS).tobytes() == before.tobytes()


def test_postgres_duplicates_are_refused_before_anything_is_written(servers):
    uri = servers.address("postgres")
    store = make_postgres(uri)
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute("INSERT INTO plain SELECT * FROM plain WHERE id = %s", [IDS[0]])
    for action in (lambda: store.read(IDS), lambda: store.replace(IDS, VECTORS + 1)):
        with pytest.raises(ValueError, match=r"7 rows in postgres for 6 ids.*\"a'b\" has several"):
            action()
    assert store.read(IDS[1:]).tobytes() == VECTORS[1:].tobytes()


def test_postgres_a_write_is_all_or_nothing(servers):
    uri = servers.address("postgres")
    store = make_postgres(uri)
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute("ALTER TABLE plain ADD CHECK (id <> 'é' OR embedding <-> '[9,9,9,9]' > 1)")
    with pytest.raises(psycopg.errors.CheckViolation):
        store.replace(IDS, np.full((6, 4), 9.0))
    assert store.read(IDS).tobytes() == VECTORS.tobytes()


def test_postgres_a_lost_connection_is_an_error_once_and_then_opened_again(servers, tmp_path):
    uri = new_database(servers)  # other tests keep connections to theirs
    store = make_postgres(uri)
    assert store.count() == 6
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )
    pairs = LabeledPairs.from_pairs((f"q{i}", IDS[0]) for i in range(20))
    with pytest.raises(
        StoreError, match=r"postgres failed while the labelled nodes were looked for; nothing was written"
    ):
        tune(store, pairs, lambda texts: np.ones((len(texts), 4)), versions=tmp_path)
    assert store.count() == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"table": "lost"}, "there is no table public.lost"),
        ({"table": "plain", "schema": "lost"}, "there is no table lost.plain"),
        ({"table": "plain", "id_column": "lost"}, "has no column 'lost'"),
        ({"table": "plain", "vector_column": "text"}, "must be a vector or halfvec, it is text"),
        ({"table": "plain", "similarity": "jaccard"}, "similarity must be one of cosine, dot, l2"),
    ],
)
def test_postgres_bad_places(servers, options, message):
    uri = servers.address("postgres")
    make_postgres(uri)
    with pytest.raises(ValueError, match=message):
        PgVectorStore(uri, **options)


def make_lance(folder, id_column="id", vector_column="vector", rows=None):
    import lancedb

    rows = rows or [
        {id_column: n, vector_column: v.tolist(), "text": "kept"} for n, v in zip(IDS, VECTORS, strict=True)
    ]
    return lancedb.connect(str(folder)).create_table("nodes", rows)


@pytest.mark.parametrize("name", ["node id", "no'de", "SELECT", "naïve"])
def test_lance_names_are_quoted(tmp_path, name):
    exercise(LanceStore(make_lance(tmp_path, id_column=name), id_column=name))


@pytest.mark.parametrize("name", ['no"de', "no`de"])
def test_lance_names_that_lancedb_cannot_use_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"which LanceDB itself cannot name when it merges and filters: write"):
        LanceStore(make_lance(tmp_path, id_column=name), id_column=name)


def test_lance_duplicates_are_refused_before_anything_is_written(tmp_path):
    table = make_lance(tmp_path)
    table.add([{"id": "é", "vector": [0.0] * 4, "text": "again"}])
    store = LanceStore(table)
    version = table.version
    for action in (lambda: store.read(IDS), lambda: store.replace(IDS, VECTORS + 1)):
        with pytest.raises(ValueError, match="id 'é' is more than once in lancedb"):
            action()
    assert table.version == version


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (None, {"vector_column": "lost"}, "no column 'lost', it has id, vector, text"),
        (None, {"vector_column": "text"}, "must be a fixed-size list of float32 or float64, it is string"),
        ([{"id": 3, "vector": [1.0, 2.0]}], {}, "column 'id' must hold strings, it holds int64"),
    ],
)
def test_lance_bad_tables(tmp_path, rows, options, message):
    with pytest.raises(ValueError, match=message):
        LanceStore(make_lance(tmp_path, rows=rows), **options)


def test_lance_each_write_is_a_version(tmp_path):
    table = make_lance(tmp_path)
    LanceStore(table).replace(IDS[:2], VECTORS[:2] * 2)
    assert LanceStore(table).read(IDS[:2]).tobytes() == (VECTORS[:2] * 2).tobytes()
    table.checkout(1)
    assert LanceStore(table, latest=False).read(IDS).tobytes() == VECTORS.tobytes()


def test_qdrant_ids_of_another_kind_are_unknown_ids():
    client = QdrantClient(":memory:")
    client.create_collection("nodes", vectors_config={"a": models.VectorParams(size=4, distance="Dot")})
    points = [models.PointStruct(id=at, vector={"a": row.tolist()}) for at, row in enumerate(VECTORS)]
    client.upsert("nodes", points)
    store = QdrantStore(client, "nodes")
    assert store.read(["3", "0"]).tobytes() == VECTORS[[3, 0]].tobytes()
    assert store.matching(["0", "nope", "99"], None) == {"0"}
    for ids in (["0", "nope"], ["0", "99"]):
        with pytest.raises(UnknownIdError, match="whose ids are UUIDs or integers"):
            store.replace(ids, VECTORS[:2])
    assert store.read(["0"]).tobytes() == VECTORS[:1].tobytes()
    with pytest.raises(ValueError, match="vector_name must be one of 'a', got 'b'"):
        QdrantStore(client, "nodes", vector_name="b")
    with pytest.raises(ValueError, match="no Qdrant collection 'lost'"):
        QdrantStore(client, "lost")
    with pytest.raises(TypeError, match="expected a QdrantClient, got str"):
        QdrantStore("localhost", "nodes")


def test_writes_are_shown_while_they_take(servers, capsys, monkeypatch):
    """In stores that take some nodes a call; tqdm is installed with the tests of databases."""
    monkeypatch.setattr("nudge_rag.common.progress.SECONDS_BEFORE_BAR", 0.0)
    client = QdrantClient(":memory:")
    client.create_collection("t", models.VectorParams(size=4, distance=models.Distance.DOT))
    ids = [str(uuid.UUID(int=number)) for number in range(len(VECTORS))]
    points = [models.PointStruct(id=name, vector=row.tolist()) for name, row in zip(ids, VECTORS, strict=True)]
    client.upsert("t", points)
    for store, names in ((QdrantStore(client, "t"), ids), (make_postgres(servers.address("postgres")), IDS)):
        assert store.replace_vectors_if(names, VECTORS, -VECTORS) == []
        assert "writing vectors:" in capsys.readouterr().err
