"""What is particular to sqlite-vec: hostile names, its own definitions, orphans, copies, transactions, URLs."""

from __future__ import annotations

import threading

import numpy as np
import pytest

sqlite_vec = pytest.importorskip("sqlite_vec")
sqlite3 = pytest.importorskip("pysqlite3.dbapi2")

from nudge_rag import PushError, open_store, rollback  # noqa: E402
from nudge_rag.journal.push import push_vectors  # noqa: E402
from nudge_rag.stores import SQLiteVecStore, StoreError, UnknownIdError  # noqa: E402

HOSTILE = [
    'no"des; DROP TABLE keep; --',
    "no'des",
    "nodes)",
    "%s",
    "?",
    "{kind}",
    "naïve ☃",
    "x USING vec0(emb float[9])",
]
VECTORS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
IDS = ["1", "2", "3", "-7", "1000000007", "4"]


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


def connect(path=":memory:"):
    connection = sqlite3.connect(str(path), check_same_thread=False)
    connection.enable_load_extension(True)
    sqlite_vec.load(connection)
    return connection


def make(path=":memory:", table="nodes", vec_table="nodes_vec", columns="emb float[4]", copied=False):
    connection = connect(path)
    connection.execute("CREATE TABLE keep (a)")
    copy = ", emb BLOB" if copied else ""
    connection.execute(f"CREATE TABLE {quoted(table)} (rowid INTEGER PRIMARY KEY, text DEFAULT 'kept'{copy})")
    connection.execute(f"CREATE VIRTUAL TABLE {quoted(vec_table)} USING vec0({columns})")
    rows = [(int(node), row.tobytes()) for node, row in zip(IDS, VECTORS, strict=True)]
    connection.executemany(f"INSERT INTO {quoted(table)} (rowid) VALUES (?)", [row[:1] for row in rows])
    if copied:
        connection.executemany(f"UPDATE {quoted(table)} SET emb = ? WHERE rowid = ?", [row[::-1] for row in rows])
    connection.executemany(f"INSERT INTO {quoted(vec_table)} (rowid, emb) VALUES (?, ?)", rows)
    connection.commit()
    return connection


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("place", ["table", "vec_table"])
def test_names_in_sql_are_quoted(place, name):
    names = {"table": "nodes", "vec_table": "nodes_vec", place: name}
    connection = make(**names)
    store = SQLiteVecStore(connection, names["table"], vec_table=names["vec_table"], vector_column="emb")
    assert store.count() == 6
    assert store.read(IDS[::-1]).tobytes() == VECTORS[::-1].tobytes()
    assert store.matching([*IDS, "5"], "text = 'kept'") == set(IDS)
    expected = np.argsort(((VECTORS - VECTORS[0]) ** 2).sum(axis=1))
    assert store.search(VECTORS[:1], 6, where="text = 'kept'").ids[0] == [IDS[at] for at in expected]
    store.replace(IDS[:2], -VECTORS[:2])
    assert store.read(IDS).tobytes() == np.concatenate([-VECTORS[:2], VECTORS[2:]]).tobytes()
    assert sorted(node for ids, _ in store.scan(4) for node in ids) == sorted(IDS)
    assert connection.execute("SELECT count(*) FROM keep").fetchall() == [(0,)]


HOSTILE_IDS = [
    "1 OR 1",
    "1); DROP TABLE nodes; --",
    "01",
    "+1",
    "1.0",
    " 1",
    "1\n",
    "-0",
    "",
    "é",
    "٣",
    "9" * 19,
    "9" * 40,
]


@pytest.mark.parametrize("node", HOSTILE_IDS)
def test_ids_that_are_no_numbers_of_rows_are_unknown(node):
    store = SQLiteVecStore(make(), "nodes", vector_column="emb")
    for action in (lambda: store.read(["1", node]), lambda: store.replace(["1", node], VECTORS[:2] + 1)):
        with pytest.raises(UnknownIdError, match="sqlite-vec, whose ids are the rows' numbers"):
            action()
    assert store.matching(["1", node], None) == {"1"}
    assert store.read(IDS).tobytes() == VECTORS.tobytes()


@pytest.mark.parametrize(
    ("columns", "similarity"),
    [
        ("emb float[4]", "l2"),
        ("rowid INTEGER PRIMARY KEY, emb FLOAT [ 4 ]  Distance_Metric = L2", "l2"),
        ("+note text,\n  emb f32[4] distance_metric=cosine", "cosine"),
    ],
)
@pytest.mark.parametrize("k", [3, 5000])
def test_metrics_and_any_k(columns, similarity, k):
    store = SQLiteVecStore(make(columns=columns), "nodes", vector_column="EMB")
    assert store.capabilities.similarity == similarity
    query = np.random.default_rng(2).normal(size=(1, 4))
    norms = np.linalg.norm(VECTORS, axis=1) * np.linalg.norm(query)
    scores = {"cosine": VECTORS @ query[0] / norms, "l2": -((VECTORS - query) ** 2).sum(axis=1)}[similarity]
    found = store.search(query, k)
    assert found.ids == [[IDS[at] for at in np.argsort(-scores)[:k]]]
    np.testing.assert_allclose(found.scores[0], np.sort(scores)[::-1][:k], rtol=1e-5, atol=1e-6)


def test_a_zero_vector_has_similarity_zero():
    store = SQLiteVecStore(make(columns="emb float[4] distance_metric=cosine"), "nodes", vector_column="emb")
    store.replace(["2"], np.zeros((1, 4)))
    found = store.search(VECTORS[:1], 6)
    assert dict(zip(found.ids[0], found.scores[0], strict=True))["2"] == 0
    assert (np.diff(found.scores[0]) <= 0).all()
    assert store.search(np.zeros((1, 4)), 6).scores[0].tolist() == [0.0] * 6


def test_rows_that_are_only_in_one_of_the_two_tables_are_no_nodes():
    connection = make()
    connection.execute("DELETE FROM nodes WHERE rowid = 1")
    connection.execute("INSERT INTO nodes (rowid) VALUES (50)")
    connection.commit()
    store = SQLiteVecStore(connection, "nodes", vector_column="emb")
    assert store.count() == 5
    assert sorted(store.search(VECTORS[:1], 5).ids[0]) == sorted(IDS[1:]), "no place is taken by the one that is gone"
    assert store.matching(["1", "2", "50"], None) == {"2"}
    assert sorted(node for ids, _ in store.scan(2) for node in ids) == sorted(IDS[1:])
    for node in ("1", "50"):
        with pytest.raises(UnknownIdError, match=f"'{node}'"):
            store.replace([node], VECTORS[:1])


def test_the_copy_beside_the_text_is_written_too():
    connection = make(copied=True)
    SQLiteVecStore(connection, "nodes", vector_column="emb").replace(IDS, VECTORS * 3)
    for table in ("nodes", "nodes_vec"):
        rows = dict(connection.execute(f"SELECT rowid, emb FROM {table}").fetchall())
        assert b"".join(rows[int(node)] for node in IDS) == (VECTORS * 3).tobytes()


def test_a_write_is_all_or_nothing():
    connection = make(copied=True)
    connection.execute(
        "CREATE TRIGGER guard BEFORE UPDATE ON nodes WHEN old.rowid = 4 BEGIN SELECT RAISE(ABORT, 'guarded'); END"
    )
    store = SQLiteVecStore(connection, "nodes", vector_column="emb")
    with pytest.raises(sqlite3.IntegrityError, match="guarded"):
        store.replace(IDS, VECTORS + 1)
    assert store.read(IDS).tobytes() == VECTORS.tobytes()
    assert not connection.in_transaction


def test_an_open_transaction_is_neither_committed_nor_rolled_back():
    connection = make()
    store = SQLiteVecStore(connection, "nodes", vector_column="emb")
    connection.execute("UPDATE nodes SET text = 'new' WHERE rowid = 1")
    with pytest.raises(StoreError, match="the connection has an open transaction"):
        store.replace(IDS, VECTORS + 1)
    assert connection.in_transaction
    connection.rollback()
    store.replace(IDS, VECTORS + 1)
    assert store.read(IDS).tobytes() == (VECTORS + 1).tobytes()


def test_another_connection_that_writes_keeps_ours_out(tmp_path):
    make(tmp_path / "x.db").close()
    store = open_store(f"sqlite-vec://{tmp_path}/x.db?table=nodes&vector=emb")
    store.connection.execute("PRAGMA busy_timeout = 50")
    other = connect(tmp_path / "x.db")
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="database is locked"):
        store.replace(IDS, VECTORS + 1)
    other.rollback()
    store.replace(IDS, VECTORS + 1)
    assert store.read(IDS).tobytes() == (VECTORS + 1).tobytes()


def test_a_rollback_that_another_writer_keeps_out_says_so_and_can_be_called_again(tmp_path):
    make(tmp_path / "x.db").close()
    store = open_store(f"sqlite-vec://{tmp_path}/x.db?table=nodes&vector=emb")
    store.connection.execute("PRAGMA journal_mode = wal")
    store.connection.execute("PRAGMA busy_timeout = 50")
    push_vectors(store, IDS, VECTORS, VECTORS + 1)
    other = connect(tmp_path / "x.db")
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(
        PushError, match=r"did not begin .* call rollback\(\) when .*OperationalError: database is locked"
    ):
        rollback(store)
    other.rollback()
    assert store.read(IDS).tobytes() == (VECTORS + 1).tobytes()
    assert rollback(store).restored == len(IDS)
    assert store.read(IDS).tobytes() == VECTORS.tobytes()


def test_several_threads_share_a_connection():
    store = SQLiteVecStore(make(copied=True), "nodes", vector_column="emb")
    failures = []

    def work(number):
        try:
            for step in range(20):
                store.replace(IDS, np.full((6, 4), number * 100 + step))
                assert len(set(store.read(IDS).ravel())) == 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"table": "lost"}, "there is no table 'lost_vec'"),
        ({"table": "lost", "vec_table": "nodes_vec"}, "there is no table 'lost'"),
        ({"table": "nodes", "vec_table": "keep"}, "'keep' is not a vec0 table"),
        ({"table": "nodes", "vector_column": "lost"}, "has no column 'lost', it has emb"),
        ({"table": "nodes", "vec_table": "bytes"}, r"must hold float\[n\], it is int8\[4\]"),
        ({"table": "nodes", "vec_table": "bits"}, r"must hold float\[n\], it is bit\[8\]"),
        ({"table": "nodes", "vec_table": "taxi"}, "metric 'l1' is not one of l2, cosine"),
        ({"table": "nodes", "vec_table": "texts"}, "has texts as its key"),
    ],
)
def test_bad_places(options, message):
    connection = make()
    others = {"bytes": "emb int8[4]", "bits": "emb bit[8]", "taxi": "emb float[4] distance_metric=L1"}
    for name, columns in {**others, "texts": "id text primary key, emb float[4]"}.items():
        connection.execute(f"CREATE VIRTUAL TABLE {name} USING vec0({columns})")
    with pytest.raises(ValueError, match=message):
        SQLiteVecStore(connection, **{"vector_column": "emb", **options})
    with pytest.raises(TypeError, match="expected an sqlite3 connection, got str"):
        SQLiteVecStore("nodes.db", "nodes")


def test_sqlite_vec_must_be_loaded(tmp_path):
    make(tmp_path / "x.db").close()
    with pytest.raises(ValueError, match=r"call sqlite_vec.load\(connection\) first"):
        SQLiteVecStore(sqlite3.connect(str(tmp_path / "x.db")), "nodes", vector_column="emb")


def test_a_url_opens_a_file(tmp_path):
    make(tmp_path / "a file.db", table="my docs", vec_table="their vectors").close()
    url = f"sqlite-vec://{tmp_path}/a%20file.db?table=my%20docs&vec_table=their%20vectors&vector=emb"
    store = open_store(url)
    store.replace(IDS[:1], VECTORS[:1] * 2)
    assert open_store(url).read(IDS[:1]).tobytes() == (VECTORS[:1] * 2).tobytes()
    assert (store.capabilities.similarity, store.capabilities.persistent) == ("l2", True)
    for bad, message in [
        (f"sqlite-vec://{tmp_path}/gone.db?table=docs", "there is no SQLite database at"),
        (url.replace("my%20docs", "gone"), "there is no table 'gone'"),
        (url.replace("table=my%20docs&", ""), "misses table"),
        ("sqlite-vec://host?table=docs", "takes a path"),
    ]:
        with pytest.raises(ValueError, match=message):
            open_store(bad)
    assert not (tmp_path / "gone.db").exists()
