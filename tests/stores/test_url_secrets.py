"""No error of open_store shows a password, token or key, however badly the URL is written."""

from __future__ import annotations

import traceback

import pytest

from nudge_rag import open_store
from nudge_rag.stores import StoreError
from nudge_rag.stores.location import hide_secrets, secrets_in

SECRET = "Sw0rdf1sh"
# Nothing listens on port 1.
LOGINS = [
    f"me:{SECRET}@127.0.0.1:1",
    f"{SECRET}@127.0.0.1:1",
    f"me:p/{SECRET}@127.0.0.1:1",
    f"me:{SECRET}/p@127.0.0.1:1",
    f"me:p#{SECRET}@127.0.0.1:1",
    f"me:{SECRET}?p@127.0.0.1:1",
    f"me:a@{SECRET}@127.0.0.1:1",
    f"me:%5B{SECRET}%5D@127.0.0.1:1",
    f"me:{SECRET}@[127.0.0.1:1",
    f"me:{SECRET}@127.0.0.1:port",
    f"/me:{SECRET}@127.0.0.1/data",
]
SERVERS = {
    "chroma": "collection=docs",
    "qdrant": "collection=docs",
    "postgresql": "table=docs",
    "elasticsearch": "index=docs",
    "opensearch": "index=docs",
    "weaviate": "collection=docs",
    "redis": "index=docs",
}
OPTIONS = [
    f"chroma://127.0.0.1:1?collection=docs&token={SECRET}",
    f"chroma://127.0.0.1:1?api_key={SECRET}",
    f"chroma://127.0.0.1:1?collection=docs&{SECRET}",
    f"chroma://127.0.0.1:1?{SECRET}=",
    f"duckdb:///no/x.duckdb?table=docs&motherduck_token={SECRET}",
    f"duckdb:///no/x.duckdb?table=docs#{SECRET}",
    f"elasticsearch://127.0.0.1:1?index=docs&api_key={SECRET}&api_key={SECRET}",
    f"elasticsearch://127.0.0.1:1/path?index=docs&api_key={SECRET}",
    f"faiss:///no/index.faiss?key={SECRET}",
    f"lance://s3.host?table=docs&secret={SECRET}",
    f"lance:///data?table=docs&secret={SECRET}",
    f"milvus:///no/milvus.db?collection=docs&password={SECRET}",
    f"milvus://host/path?collection=docs&token=root:{SECRET}",
    f"milvus://me:{SECRET}@127.0.0.1:1?collection=docs",
    f"milvus://127.0.0.1:1?token=root:{SECRET}",
    f"opensearch://127.0.0.1:1?index=docs&user=me&password={SECRET}&ssl={SECRET}",
    f"opensearch://127.0.0.1:x?index=docs&user=me&password={SECRET}",
    f"pinecone://host/path?api_key={SECRET}",
    f"pinecone://host:port?api_key={SECRET}",
    f"pinecone://127.0.0.1:1?api_key={SECRET}&colour=red",
    f"postgresql://me@127.0.0.1:1/db?table=docs&password={SECRET}",
    f"postgresql://me@127.0.0.1:1/db?table=docs&connect_timeout={SECRET}",
    f"postgresql://me@127.0.0.1:1/db?table=docs&sslmode=x&sslpassword={SECRET}",
    f"postgresql://me@127.0.0.1:1/db?table=docs&passwort={SECRET}",
    f"postgresql://me@127.0.0.1:1/db?table=docs&{SECRET}=1&x",
    f"qdrant://127.0.0.1:1?collection=docs&api_key={SECRET}&api_key=b",
    f"qdrant://127.0.0.1:1/path?collection=docs&api_key={SECRET}",
    f"qdrant://127.0.0.1:1?collection=docs&ssl={SECRET}",
    f"qdrant://127.0.0.1:1?collection=docs&api_key=a&{SECRET}",
    f"qdrant://127.0.0.1:1?collection=docs;api_key={SECRET}",
    f"redis://127.0.0.1:1?index=docs&password={SECRET}&socket_timeout=x",
    f"rediss://:{SECRET}@127.0.0.1:1/{SECRET}?index=docs",
    f"sqlite-vec:///no/x.db?table=docs&key={SECRET}",
    f"weaviate://127.0.0.1:1?collection=docs&api_key={SECRET}&grpc_port={SECRET}",
    f"weaviate://127.0.0.1:1?collection=docs&bearer={SECRET}",
    f"oracle://me:{SECRET}@host/db",
]
URLS = [*OPTIONS, *(f"{scheme}://{login}?{rest}" for scheme, rest in SERVERS.items() for login in LOGINS)]


def test_there_are_enough_of_them():
    assert len(set(URLS)) == len(URLS) >= 100


@pytest.mark.parametrize("url", URLS)
def test_no_secret_is_shown(url, tmp_path, monkeypatch, caplog, capfd, recwarn, record_property):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception) as caught:
        open_store(url)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + caplog.text
    shown += "".join(capfd.readouterr()) + "".join(str(warning.message) for warning in recwarn)
    printed = shown.lower().count(SECRET.lower())
    for name, value in {"fault": "URL with a secret", "store": "", "times": 1, "lost": printed}.items():
        record_property(name, value)
    assert printed == 0


def test_errors_that_led_to_each_other_are_followed_once():
    first, second = OSError("no server"), OSError("not reached")
    first.__cause__, second.__cause__ = second, first
    with pytest.raises(OSError, match="no server"), hide_secrets(f"milvus://host?token={SECRET}"):
        raise first
    second.args = (f"with {SECRET}",)
    with pytest.raises(StoreError, match="no server") as caught, hide_secrets(f"milvus://host?token={SECRET}"):
        raise first
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_public_parts_are_shown():
    with pytest.raises(ValueError, match=r"there is no DuckDB database at '/no/such.duckdb'"):
        open_store("duckdb:///no/such.duckdb?table=docs")
    with pytest.raises(ValueError, match=r"has unknown options colour; its options are table, id, vector"):
        open_store("lance:///data?table=docs&colour=red")
    assert secrets_in("chroma://host:8000?collection=docs&ssl=true&tenant=t") == []


@pytest.mark.parametrize(
    "conninfo",
    [
        f"postgresql://me:{SECRET}%zz@127.0.0.1:1/x",
        f"postgresql://me:{SECRET}@[::1/x",
        f"host=127.0.0.1 password={SECRET} {SECRET}",
        f"host=127.0.0.1 password='{SECRET}",
        f"postgresql://me:{SECRET}@127.0.0.1:1/x?{SECRET}=1",
    ],
)
def test_a_connection_string_that_cannot_be_parsed_is_not_shown(conninfo):
    from nudge_rag.stores import PgVectorStore

    with pytest.raises(ValueError, match="psycopg does not take this connection string") as caught:
        PgVectorStore(conninfo, "docs")
    assert SECRET.lower() not in "".join(traceback.format_exception(caught.value)).lower()
    with pytest.raises(ValueError, match="it has an unknown option, passwort"):
        PgVectorStore(f"host=127.0.0.1 passwort={SECRET}", "docs")
