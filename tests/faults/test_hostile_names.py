"""Names of tables and columns, and ids, that are SQL: quoted or refused, and the table next to them is as it was."""

from __future__ import annotations

from urllib.parse import quote, urlencode

import lancedb
import numpy as np
import psycopg
import pyarrow as pa
import pytest
from psycopg.sql import SQL, Identifier

from nudge_rag import open_store, rollback, status
from nudge_rag.journal.push import push_vectors
from nudge_rag.stores import LanceStore, PgVectorStore
from tests.support.builders.postgres import new_database
from tests.support.killing import is_whole, losses

NAMES = [
    'x"; DROP TABLE y; --',
    "x'; DROP TABLE y; --",
    "x`; DROP TABLE y; --",
    "x); DROP TABLE y; --",
    'x" WHERE true; DELETE FROM y; --',
    'y"',
    "../y",
    "%s%(id)s{id}{table}$1",
    "x\\",
]
IDS = ["n0", "'); DROP TABLE y; --", "' OR '1'='1", "\\' OR true; --", '"; DELETE FROM y; --', "%s{id}$1"]
ORIGINALS = np.random.default_rng(0).normal(size=(len(IDS), 4)).astype(np.float32)
NUDGED = ORIGINALS + 1
PLAIN = {"table": "x", "id": "id", "vector": "embedding"}
IN_POSTGRES = {**PLAIN, "schema": "public"}
HISTORY = "nudge_rag_history"


def push_and_roll_back(store, root):
    assert push_vectors(store, IDS, ORIGINALS, NUDGED, versions=root).written == len(IDS)
    assert is_whole(store, IDS, NUDGED)
    assert status(store, root).nudged == tuple(IDS)
    assert store.matching(IDS, None) == set(IDS)
    assert {node for found in store.search(NUDGED, len(IDS)).ids for node in found} == set(IDS)
    assert rollback(store, root).exact
    assert is_whole(store, IDS, ORIGINALS)


def record(record_property, kind, refused, lost, times=2):
    counts = {"fault": "SQL in names and ids", "store": kind, "times": times, "refused": refused, "lost": lost}
    for name, value in counts.items():
        record_property(name, value)
    assert lost == 0


@pytest.fixture(scope="module")
def address(servers):
    return new_database(servers)


@pytest.fixture
def database(address):
    """A PostgreSQL database with nothing in it but the table y."""
    with psycopg.connect(address) as connection:
        for place in tables_in_postgres(address):
            connection.execute(SQL("DROP TABLE {}").format(Identifier(*place)))
    make_in_postgres(address, {**IN_POSTGRES, "table": "y"})
    return address


def make_in_postgres(address, names):
    table, columns = Identifier(names["schema"], names["table"]), (Identifier(names["id"]), Identifier(names["vector"]))
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(SQL("CREATE SCHEMA IF NOT EXISTS {}").format(Identifier(names["schema"])))
        connection.execute(SQL("CREATE TABLE {} ({} text, {} vector(4))").format(table, *columns))
        with connection.cursor().copy(SQL("COPY {} FROM STDIN").format(table)) as copy:
            for node, vector in zip(IDS, ORIGINALS.tolist(), strict=True):
                copy.write_row((node, str(vector)))


def open_in_postgres(address, names):
    """By the URL, with special characters encoded, and by the constructor."""
    others = {"id": "id_column", "vector": "vector_column"}
    options = {others.get(name, name): value for name, value in names.items() if name != "table"}
    yield lambda: open_store(f"{address}&{urlencode(names, quote_via=quote)}")
    yield lambda: PgVectorStore(address, names["table"], **options)


def tables_in_postgres(address):
    query = "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
    with psycopg.connect(address) as connection:
        return sorted(connection.execute(query).fetchall())


def lost_of_y(address):
    y = PgVectorStore(address, "y")
    return len(IDS) - y.count() + losses(y, IDS, ORIGINALS)


@pytest.mark.parametrize("place", ["table", "schema", "id", "vector"])
@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_there_is_quoted_by_postgres(name, place, database, tmp_path, record_property):
    names = {**IN_POSTGRES, place: name}
    make_in_postgres(database, names)
    tables = tables_in_postgres(database)
    for number, opener in enumerate(open_in_postgres(database, names)):
        push_and_roll_back(opener(), tmp_path / str(number))
    history = (names["schema"], HISTORY)  # in the schema of the table, and nowhere else
    assert tables_in_postgres(database) == sorted([*tables, history])
    record(record_property, "postgres", 0, lost_of_y(database))


@pytest.mark.parametrize("place", ["table", "schema", "id", "vector", "similarity"])
@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_not_there_is_refused_by_postgres(name, place, database, record_property):
    make_in_postgres(database, IN_POSTGRES)
    tables = tables_in_postgres(database)
    for opener in open_in_postgres(database, {**IN_POSTGRES, place: name}):
        with pytest.raises(ValueError, match=r"there is no table|has no column|similarity must be one of"):
            opener()
    assert tables_in_postgres(database) == tables
    record(record_property, "postgres", 2, lost_of_y(database))


def make_in_lancedb(folder, names):
    schema = pa.schema([(names["id"], pa.string()), (names["vector"], pa.list_(pa.float32(), 4))])
    rows = [{names["id"]: node, names["vector"]: row} for node, row in zip(IDS, ORIGINALS.tolist(), strict=True)]
    lancedb.connect(folder).create_table(names["table"], rows, schema=schema)


def open_in_lancedb(folder, names):
    columns = {"id_column": names["id"], "vector_column": names["vector"]}
    yield lambda: open_store(f"lance://{folder}?{urlencode(names, quote_via=quote)}")
    yield lambda: LanceStore.open(folder, names["table"], **columns)


def lost_of_table(folder, table):
    store = LanceStore.open(folder, table, vector_column="embedding")
    return len(IDS) - store.count() + losses(store, IDS, ORIGINALS)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_of_a_table_is_refused_by_lancedb(name, tmp_path, record_property):
    """LanceDB makes no such tables either."""
    folder = tmp_path / "lance"
    make_in_lancedb(folder, {**PLAIN, "table": "y"})
    for opener in open_in_lancedb(folder, {**PLAIN, "table": name}):
        with pytest.raises(ValueError, match="Invalid table name"):
            opener()
    assert [path.name for path in tmp_path.iterdir()] == ["lance"]
    assert [path.name for path in folder.iterdir()] == ["y.lance"]
    record(record_property, "lancedb", 2, lost_of_table(folder, "y"))


@pytest.mark.parametrize("place", ["id", "vector"])
@pytest.mark.parametrize("name", [name for name in NAMES if "." not in name])  # of which LanceDB makes no columns
def test_a_name_of_a_column_is_quoted_or_refused_by_lancedb(name, place, tmp_path, record_property):
    """LanceDB cannot select a column with a backtick in its name, nor merge by one with a double quote."""
    folder, names = tmp_path / "lance", {**PLAIN, place: name}
    make_in_lancedb(folder, {**PLAIN, "table": "y"})
    make_in_lancedb(folder, names)
    refused = 0
    for number, opener in enumerate(open_in_lancedb(folder, names)):
        if "`" in name or (place == "id" and '"' in name):
            refused += 1
            with pytest.raises(ValueError, match="LanceDB itself cannot name when it merges and filters"):
                opener()
            assert lancedb.connect(folder).open_table("x").version == 1, "nothing was written"
        else:
            push_and_roll_back(opener(), tmp_path / str(number))
    assert sorted(path.name for path in folder.iterdir()) == ["x.lance", "y.lance"]
    record(record_property, "lancedb", refused, lost_of_table(folder, "y"))
