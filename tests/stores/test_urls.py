"""open_store: the same adapters by URL."""

from __future__ import annotations

import json
import subprocess
import sys

import chromadb
import faiss
import lancedb
import numpy as np
import psycopg
import pyarrow as pa
import pytest
from pymilvus import MilvusClient
from qdrant_client import QdrantClient, models

from nudge_rag import StoreError, open_store
from nudge_rag.stores.urls import SCHEMES

ROWS = [[1.0, 2.0], [3.0, 4.0]]
NODES = ["5f0a3c1e-0000-4000-8000-000000000001", "7"]


def chroma(folder):
    chromadb.PersistentClient(str(folder)).create_collection("docs").add(ids=NODES, embeddings=ROWS)
    return f"chroma://{folder}?collection=docs"


def qdrant(folder):
    client = QdrantClient(path=str(folder))
    client.create_collection("docs", {"a b": models.VectorParams(size=2, distance=models.Distance.DOT)})
    points = [models.PointStruct(id=i, vector={"a b": row}) for i, row in zip([NODES[0], 7], ROWS, strict=True)]
    client.upsert("docs", points)
    client.close()
    return f"qdrant://{folder}?collection=docs&vector=a%20b"


def lance(folder):
    rows = [{"key": node, "v": row} for node, row in zip(NODES, ROWS, strict=True)]
    schema = pa.schema([("key", pa.string()), ("v", pa.list_(pa.float32(), 2))])
    lancedb.connect(str(folder)).create_table("docs", rows, schema=schema)
    return f"lance://{folder}?table=docs&id=key&vector=v"


def flat(folder):
    folder.mkdir()
    index = faiss.IndexFlatIP(2)
    index.add(np.array(ROWS, dtype=np.float32))
    faiss.write_index(index, str(folder / "index.faiss"))
    (folder / "ids.json").write_text(json.dumps(NODES))
    return f"faiss://{folder}/index.faiss?ids={folder}/ids.json"


def milvus(path):
    path.mkdir()
    make_milvus(f"{path}/milvus.db", "docs")
    return f"milvus://{path}/milvus.db?collection=docs&vector=vector"


def make_milvus(uri, name, **options):
    client = MilvusClient(uri, **options)
    client.create_collection(name, dimension=2, id_type="string", max_length=99, metric_type="IP")
    client.insert(name, [{"id": node, "vector": row} for node, row in zip(NODES, ROWS, strict=True)])


@pytest.mark.parametrize("make", [chroma, qdrant, lance, flat, milvus])
def test_opens_reads_and_writes(make, tmp_path):
    url = make(tmp_path / "a folder")
    store = open_store(url.replace("a folder", "a%20folder"))
    assert {node for part, _ in store.scan() for node in part} == set(NODES)
    np.testing.assert_array_equal(store.read(NODES), ROWS)
    store.replace(NODES[:1], np.array([[5.0, 6.0]]))
    np.testing.assert_array_equal(store.read(NODES[:1]), [[5, 6]])
    assert store.capabilities.persistent


def test_a_path_relative_to_the_working_folder(tmp_path, monkeypatch):
    lance(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    url = "lance://./data?table=docs&id=key&vector=v"
    assert open_store(url).key == open_store(url.replace("./data", str(tmp_path / "data"))).key


def test_a_server(servers):
    client = chromadb.HttpClient(host="127.0.0.1", port=servers.address("chroma"))
    client.create_collection("by-url").add(ids=NODES, embeddings=ROWS)
    store = open_store(f"chroma://127.0.0.1:{servers.address('chroma')}?collection=by-url")
    np.testing.assert_array_equal(store.read(NODES), ROWS)


def test_a_milvus_server(servers):
    address = servers.address("milvus")
    MilvusClient(address).create_database("other")
    make_milvus(address, "by_url", db_name="other", token="somebody:secret")
    url = f"{address.replace('http', 'milvus')}?collection=by_url&db=other&token=somebody:secret"
    np.testing.assert_array_equal(open_store(url).read(NODES), ROWS)
    with pytest.raises(ValueError, match="there is no Milvus collection 'by_url'"):
        open_store(url.replace("db=other&", ""))


def test_a_postgres_table(servers):
    uri = servers.address("postgres")
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute("CREATE TABLE by_url (key text, v vector(2))")
        for node, row in zip(NODES, ROWS, strict=True):
            connection.execute("INSERT INTO by_url VALUES (%s, %s)", [node, str(row)])
    store = open_store(f"{uri}&table=by_url&id=key&vector=v&similarity=dot")
    np.testing.assert_array_equal(store.read(NODES), ROWS)
    assert store.capabilities.similarity == "dot"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("oracle://docs", "no store has the scheme 'oracle': supported are chroma://"),
        ("docs", "no store has the scheme ''"),
        ("chroma:///data", "misses collection; its options are collection, ssl, tenant, database"),
        ("lance:///data?table=", "misses table"),
        ("lance:///data?table=a&table=b", "given twice"),
        ("lance:///data?table=a&colour=red", "unknown options colour"),
        ("lance://host?table=a", "takes a path"),
        ("lance://?table=a", "neither a path nor a host"),
        ("faiss://host/index.faiss", "both a host and a path"),
        ("faiss:///no/such/index.faiss", "no FAISS index at"),
        ("milvus:///data/milvus.db", "misses collection; its options are collection, vector, ssl, token, db"),
        ("milvus:///no/such/milvus.db?collection=a", "there is no Milvus Lite file at '/no/such/milvus.db'"),
        ("milvus:///usr?collection=a", "its name must end with .db"),
        ("milvus://host/path?collection=a", "both a host and a path"),
        ("qdrant://host/path?collection=a", "both a host and a path"),
        ("qdrant://a b:1?collection=a", "not a host and port"),
        ("qdrant://user:secret@host?collection=a", "user and password are no part"),
        ("qdrant://host?collection=a&ssl=yes", "ssl must be true or false"),
        ("qdrant://host:port?collection=a", "[Pp]ort"),
    ],
)
def test_bad_urls(url, message):
    with pytest.raises(ValueError, match=message):
        open_store(url)


def test_names_that_are_no_strings():
    with pytest.raises(TypeError, match="a store's URL is a string, got Path"):
        open_store(type("Path", (), {})())


def test_collections_that_are_not_there(tmp_path):
    for url in (chroma(tmp_path / "c"), qdrant(tmp_path / "q"), lance(tmp_path / "l"), milvus(tmp_path / "m")):
        with pytest.raises(Exception, match=r"(?i)gone|no such|not found|does not exist|there is no"):
            open_store(url.replace("=docs", "=gone"))


@pytest.mark.parametrize(
    "url",
    [
        "chroma://{}/gone?collection=docs",
        "qdrant://{}/gone?collection=docs",
        "lance://{}/gone?table=docs",
        "milvus://{}/gone.db?collection=docs",
        "faiss://{}/gone.index",
        "duckdb://{}/gone.duckdb?table=docs",
        "sqlite-vec://{}/gone.db?table=docs",
        "parquet://{}/gone",
    ],
)
def test_a_place_that_is_mistyped_is_not_made(url, tmp_path):
    with pytest.raises(Exception, match=r"(?i)there is no|not found|no FAISS index"):
        open_store(url.format(tmp_path))
    assert not list(tmp_path.iterdir())


def test_no_database_client_is_imported_before_it_is_asked_for():
    clients = {"chromadb", "qdrant_client", "lancedb", "faiss", "pymilvus"}
    code = f"import sys, nudge_rag; print(sorted({clients} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert set(SCHEMES) >= {"chroma", "qdrant", "lance", "faiss", "milvus"}


def test_an_option_that_psycopg_does_not_know_is_named_with_ours():
    pytest.importorskip("psycopg")
    with pytest.raises(ValueError, match=r'"nope"; options of ours are table, schema, id, vector, similarity'):
        open_store("postgresql://localhost:1/db?table=docs&nope=3")


@pytest.mark.parametrize("address", ["localhost:99999/db", "127.0.0.1:1/db", "127.0.0.1:1/db?connect_timeout=soon"])
def test_a_postgresql_url_that_cannot_be_opened_says_why(address):
    pytest.importorskip("psycopg")
    sign = "&" if "?" in address else "?"
    with pytest.raises(StoreError, match=r"the postgresql:// URL cannot be opened: .*(port|connect)") as caught:
        open_store(f"postgresql://user:secret@{address}{sign}table=docs")
    assert "secret" not in str(caught.value)
