"""What is particular to DuckDB: hostile names, duplicate ids, other types, scans beside writes, URLs."""

from __future__ import annotations

import numpy as np
import pytest

duckdb = pytest.importorskip("duckdb")

from nudge_rag import open_store  # noqa: E402
from nudge_rag.stores import DuckDBStore, UnknownIdError  # noqa: E402

HOSTILE = [
    'no"des; DROP TABLE keep; --',
    "no'des",
    "nodes)",
    "%s",
    "{kind}",
    "$k",
    "naïve ☃",
    "n",
    "v",
    "given",
    "t",
    "q",
    "s",
]
VECTORS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
IDS = ["a'b", 'a"b', "%s", "a\\b", "'); DROP TABLE keep; --", "é"]


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


def make(path=":memory:", table="nodes", schema="main", id_column="id", vector_column="embedding", kind="FLOAT[4]"):
    connection = duckdb.connect(str(path))
    place = f"{quoted(schema)}.{quoted(table)}"
    connection.execute("CREATE TABLE keep (a INT)")
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}")
    columns = f"{quoted(id_column)} VARCHAR, {quoted(vector_column)} {kind}, text VARCHAR DEFAULT 'kept'"
    connection.execute(f"CREATE TABLE {place} ({columns})")
    insert = f"INSERT INTO {place} ({quoted(id_column)}, {quoted(vector_column)}) VALUES (?, ?)"
    connection.executemany(insert, [[node, row.tolist()] for node, row in zip(IDS, VECTORS, strict=True)])
    return connection


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("place", ["table", "schema", "id_column", "vector_column"])
def test_names_in_sql_are_quoted(place, name):
    connection = make(**{place: name})
    options = {"table": "nodes", "schema": "main", place: name}
    store = DuckDBStore(connection, options.pop("table"), similarity="l2", **options)
    assert store.count() == 6
    assert store.read(IDS[::-1]).tobytes() == VECTORS[::-1].tobytes()
    assert store.matching([*IDS, "gone"], "text = 'kept'") == set(IDS)
    expected = np.argsort(((VECTORS - VECTORS[0]) ** 2).sum(axis=1))
    assert store.search(VECTORS[:1], 6, where="text = 'kept'").ids[0] == [IDS[at] for at in expected]
    store.replace(IDS[:2], -VECTORS[:2])
    assert store.read(IDS).tobytes() == np.concatenate([-VECTORS[:2], VECTORS[2:]]).tobytes()
    assert sorted(node for ids, _ in store.scan(4) for node in ids) == sorted(IDS)
    assert connection.execute("SELECT count(*) FROM keep").fetchall() == [(0,)]


@pytest.mark.parametrize("kind", ["FLOAT[4]", "FLOAT[]", "DOUBLE[4]", "DOUBLE[]"])
@pytest.mark.parametrize("similarity", ["cosine", "dot", "l2"])
def test_types_and_similarities(kind, similarity):
    store = DuckDBStore(make(kind=kind), "nodes", similarity=similarity)
    assert store.capabilities.dtype == ("float32" if kind.startswith("FLOAT") else "float64")
    moved = np.random.default_rng(1).normal(size=(6, 4)) * 10.0 ** np.arange(-30, 30, 10)[:, None]
    store.replace(IDS, moved)
    assert store.read(IDS).tobytes() == store.as_stored(moved).tobytes()
    store.replace(IDS, VECTORS)
    query = np.random.default_rng(2).normal(size=(1, 4))
    norms = np.linalg.norm(VECTORS, axis=1) * np.linalg.norm(query)
    scores = {
        "cosine": VECTORS @ query[0] / norms,
        "dot": VECTORS @ query[0],
        "l2": -((VECTORS - query) ** 2).sum(axis=1),
    }[similarity]
    found = store.search(query, 100)
    assert found.ids == [[IDS[at] for at in np.argsort(-scores)]]
    np.testing.assert_allclose(found.scores[0], np.sort(scores)[::-1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["FLOAT[4]", "DOUBLE[]"])
def test_a_zero_vector_has_similarity_zero(kind):
    store = DuckDBStore(make(kind=kind), "nodes")
    store.replace(IDS[:1], np.zeros((1, 4)))
    found = store.search(VECTORS[1:2], 6)
    assert dict(zip(found.ids[0], found.scores[0], strict=True))[IDS[0]] == 0
    assert store.search(np.zeros((1, 4)), 6).scores[0].tolist() == [0.0] * 6


def test_duplicates_are_refused_before_anything_is_written():
    connection = make()
    connection.execute("INSERT INTO nodes SELECT * FROM nodes WHERE id = 'é'")
    store = DuckDBStore(connection, "nodes")
    for action in (lambda: store.read(IDS), lambda: store.replace(IDS, VECTORS + 1)):
        with pytest.raises(ValueError, match="id 'é' is more than once in duckdb"):
            action()
    assert store.read(IDS[:5]).tobytes() == VECTORS[:5].tobytes()
    batches = [len(ids) for ids, _ in store.scan(2)]
    assert (sum(batches), max(batches)) == (7, 2)


def test_a_write_is_all_or_nothing():
    connection = make()
    connection.execute("CREATE TABLE checked (id VARCHAR, embedding FLOAT[4], CHECK (id <> 'é' OR embedding[1] < 9))")
    connection.execute("INSERT INTO checked SELECT id, embedding FROM nodes")
    store = DuckDBStore(connection, "checked")
    with pytest.raises(duckdb.ConstraintException):
        store.replace(IDS, np.full((6, 4), 9.0))
    assert store.read(IDS).tobytes() == VECTORS.tobytes()


def test_a_scan_left_open_does_not_keep_later_writes_out():
    connection = duckdb.connect()
    connection.execute("CREATE TABLE nodes (id VARCHAR PRIMARY KEY, embedding FLOAT[4])")
    connection.execute("INSERT INTO nodes SELECT i::VARCHAR, [i, 0, 0, 1]::FLOAT[4] FROM range(5000) r(i)")
    store = DuckDBStore(connection, "nodes")
    scan = store.scan(10)
    seen = list(next(scan)[0])
    for value in (1.0, 2.0):
        store.replace(seen, np.full((10, 4), value))
    assert (store.read(seen) == 2).all()
    assert len(seen) + sum(len(ids) for ids, _ in scan) == 5000


def test_rows_without_a_vector_are_no_nodes():
    connection = make()
    connection.execute("INSERT INTO nodes (id) VALUES ('bare')")
    store = DuckDBStore(connection, "nodes")
    assert store.count() == 6
    with pytest.raises(UnknownIdError, match="'bare'"):
        store.replace(["bare"], VECTORS[:1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"table": "lost"}, "there is no table 'lost'"),
        ({"table": "nodes", "schema": "lost"}, "there is no table 'nodes'"),
        ({"table": "nodes", "id_column": "lost"}, "has no column 'lost', it has id, embedding, text"),
        ({"table": "nodes", "vector_column": "text"}, r"must hold FLOAT\[n\].*it is VARCHAR"),
        ({"table": "nodes", "similarity": "jaccard"}, "similarity must be one of cosine, dot, l2"),
        ({"table": "ragged"}, "holds vectors of 1 to 2 numbers"),
    ],
)
def test_bad_places(options, message):
    connection = make()
    connection.execute("CREATE TABLE ragged (id VARCHAR, embedding FLOAT[])")
    connection.execute("INSERT INTO ragged VALUES ('a', [1]), ('b', [1, 2])")
    with pytest.raises(ValueError, match=message):
        DuckDBStore(connection, **options)
    with pytest.raises(TypeError, match="expected a DuckDB connection, got str"):
        DuckDBStore("nodes.duckdb", "nodes")


def test_a_url_opens_a_file(tmp_path):
    make(tmp_path / "a file.duckdb", table="my docs", schema="s", id_column="key", vector_column="v").close()
    url = f"duckdb://{tmp_path}/a%20file.duckdb?table=my%20docs&schema=s&id=key&vector=v&similarity=dot"
    store = open_store(url)
    store.replace(IDS[:1], VECTORS[:1] * 2)
    assert open_store(url).read(IDS[:1]).tobytes() == (VECTORS[:1] * 2).tobytes()
    assert (store.capabilities.similarity, store.capabilities.persistent) == ("dot", True)
    for bad, message in [
        (f"duckdb://{tmp_path}/gone.duckdb?table=docs", "there is no DuckDB database at"),
        (url.replace("my%20docs", "gone"), "there is no table 'gone'"),
        (url.replace("table=my%20docs&", ""), "misses table"),
        ("duckdb://host?table=docs", "takes a path"),
    ]:
        with pytest.raises(ValueError, match=message):
            open_store(bad)
    assert not (tmp_path / "gone.duckdb").exists()
