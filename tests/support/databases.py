"""Stores that hold their own history, each made, opened and let go by its address alone, in whatever process.

`killing.fill` and `killed_worker.open_store` have them all, with those that are older.
"""

from __future__ import annotations

import importlib
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TABLE = "killed"
# One process at a time can have them open, which their databases see to.
EXCLUSIVE = ("duckdb", "milvus", "qdrant")
numbers = itertools.count()


def fill_in_memory(folder: Path, servers: Any, ids: list[str], rows: list[list[float]]) -> Path:
    from langchain_core.embeddings import DeterministicFakeEmbedding
    from langchain_core.vectorstores import InMemoryVectorStore

    vectorstore = InMemoryVectorStore(DeterministicFakeEmbedding(size=len(rows[0])))
    for node, row in zip(ids, rows, strict=True):
        vectorstore.store[node] = {"id": node, "vector": row, "text": node, "metadata": {}}
    vectorstore.dump(str(folder / "nodes.json"))
    return folder / "nodes.json"


def open_in_memory(address: str) -> Any:
    from nudge_rag.stores import InMemoryStore

    return InMemoryStore.open(address)


def fill_duckdb(folder: Path, servers: Any, ids: list[str], rows: list[list[float]]) -> Path:
    import duckdb

    with duckdb.connect(str(folder / "nodes.duckdb")) as connection:
        connection.execute(f"CREATE TABLE {TABLE} (id VARCHAR, embedding FLOAT[{len(rows[0])}])")
        connection.executemany(f"INSERT INTO {TABLE} VALUES (?, ?)", list(zip(ids, rows, strict=True)))
    return folder / "nodes.duckdb"


def open_duckdb(address: str) -> Any:
    from nudge_rag.stores import DuckDBStore

    return DuckDBStore.open(address, TABLE)


def fill_sqlite_vec(folder: Path, servers: Any, ids: list[str], rows: list[list[float]]) -> Path:
    import numpy as np

    from tests.support.builders import sqlite_vec

    connection = sqlite_vec.connect(folder / "nodes.db")
    connection.execute(f"CREATE TABLE {TABLE} (rowid INTEGER PRIMARY KEY, text TEXT)")
    columns = f"rowid INTEGER PRIMARY KEY, text_embedding float[{len(rows[0])}]"
    connection.execute(f"CREATE VIRTUAL TABLE {TABLE}_vec USING vec0 ({columns})")
    with connection:
        for node, row in zip(ids, rows, strict=True):
            connection.execute(f"INSERT INTO {TABLE} VALUES (?, 'text')", [int(node)])
            values = [int(node), np.asarray(row, dtype=np.float32).tobytes()]
            connection.execute(f"INSERT INTO {TABLE}_vec (rowid, text_embedding) VALUES (?, ?)", values)
    connection.close()
    return folder / "nodes.db"


def open_sqlite_vec(address: str) -> Any:
    from nudge_rag.stores import SQLiteVecStore

    return SQLiteVecStore.open(address, TABLE)


def fill_qdrant(folder: Path, servers: Any, ids: list[str], rows: list[list[float]]) -> Path:
    from qdrant_client import QdrantClient, models

    client = QdrantClient(path=str(folder / "qdrant"))
    size = models.VectorParams(size=len(rows[0]), distance=models.Distance.DOT)
    client.create_collection("first", vectors_config=size)
    made = models.CreateAlias(collection_name="first", alias_name=TABLE)
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=made)])
    client.upsert("first", [models.PointStruct(id=int(node), vector=row) for node, row in zip(ids, rows, strict=True)])
    client.close()
    return folder / "qdrant"


def open_qdrant(address: str) -> Any:
    from qdrant_client import QdrantClient

    from nudge_rag.stores import QdrantStore

    return QdrantStore(QdrantClient(path=address), TABLE)


def fill_milvus(folder: Path, servers: Any, ids: list[str], rows: list[list[float]]) -> Path:
    from milvus_lite.server_manager import server_manager_instance

    address = folder / "nodes.db"
    _make_milvus_collection(str(address), TABLE, ids, rows)
    server_manager_instance.release_server(str(address))
    return address


def open_milvus(address: str) -> Any:
    from nudge_rag.stores import MilvusStore

    return MilvusStore.open(address, TABLE)


def fill_milvus_server(folder: Path, servers: Any, ids: list[str], rows: list[list[float]]) -> str:
    """The address has the collection's name after a space: each store has one of its own."""
    address = servers.address("milvus")
    name = f"{TABLE}_{os.getpid()}_{next(numbers)}"
    _make_milvus_collection(address, name, ids, rows)
    return f"{address} {name}"


def open_milvus_server(address: str) -> Any:
    from nudge_rag.stores import MilvusStore

    return MilvusStore.open(*address.split(" "))


def _make_milvus_collection(uri: str, name: str, ids: list[str], rows: list[list[float]]) -> None:
    """A collection and its alias, which is what is opened."""
    from pymilvus import DataType, MilvusClient

    client = MilvusClient(uri)
    schema = MilvusClient.create_schema()
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=16)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=len(rows[0]))
    index = client.prepare_index_params()
    index.add_index("vector", index_type="FLAT", metric_type="L2")
    client.create_collection(f"{name}_first", schema=schema, index_params=index)
    client.create_alias(f"{name}_first", name)
    client.upsert(name, [{"id": node, "vector": row} for node, row in zip(ids, rows, strict=True)])
    client.close()


def fill_redis(folder: Path, servers: Any, ids: list[str], rows: list[list[float]]) -> str:
    """The address has the index's name after a space: each store has one of its own."""
    import numpy as np
    import redis

    port, name = servers.address("redis_langchain"), f"{TABLE}{next(numbers)}"
    client = redis.Redis("127.0.0.1", port)
    kind = ("VECTOR", "FLAT", 6, "TYPE", "FLOAT32", "DIM", len(rows[0]), "DISTANCE_METRIC", "L2")
    client.execute_command("FT.CREATE", name, "ON", "HASH", "PREFIX", 1, f"{name}:", "SCHEMA", "embedding", *kind)
    for node, row in zip(ids, rows, strict=True):
        client.hset(f"{name}:{node}", "embedding", np.asarray(row, dtype=np.float32).tobytes())
    return f"redis://127.0.0.1:{port} {name}"


def open_redis(address: str) -> Any:
    from nudge_rag.stores import RedisStore

    return RedisStore.open(*address.split(" "))


@dataclass(frozen=True)
class Database:
    """How a kind of store is made and opened.

    Attributes:
        fill: makes a store with nodes in a folder, or on a server, and gives its address.
        open: an adapter of the store at an address.
        packages: what opening and using it imports, such as pandas, by which DuckDB looks at parameters; none for
            pymilvus, which imports it as well, and starts threads that a fork would not have.
    """

    fill: Callable[[Path, Any, list[str], list[list[float]]], Any]
    open: Callable[[str], Any]
    packages: tuple[str, ...] = ()


DATABASES = {
    "in-memory": Database(fill_in_memory, open_in_memory, ("langchain_core.vectorstores",)),
    "duckdb": Database(fill_duckdb, open_duckdb, ("duckdb", "pandas")),
    "sqlite-vec": Database(fill_sqlite_vec, open_sqlite_vec, ("pysqlite3", "sqlite_vec")),
    "qdrant": Database(fill_qdrant, open_qdrant, ("qdrant_client",)),
    "milvus": Database(fill_milvus, open_milvus, ("pandas",)),
    "milvus-server": Database(fill_milvus_server, open_milvus_server, ("pandas",)),
    "redis": Database(fill_redis, open_redis, ("redis",)),
}


def fill(kind: str, folder: Path, servers: Any, ids: list[str], rows: list[list[float]]) -> str:
    """A store with these nodes; its address."""
    return str(DATABASES[kind].fill(folder, servers, ids, rows))


def open_store(kind: str, address: str) -> Any:
    """An adapter of the store at that address."""
    return DATABASES[kind].open(address)


def close_store(kind: str, store: Any) -> None:
    """Let go of a store that one process at a time can have open; of others, nothing is to be let go."""
    if kind in ("duckdb", "sqlite-vec"):
        store.connection.close()
    elif kind == "qdrant":
        store.client.close()
    elif kind == "milvus":
        from milvus_lite.server_manager import server_manager_instance

        from nudge_rag.stores.milvus.schema import address_of

        # Its own file alone: other tests of this process have theirs open.
        path = address_of(store.client).rpartition(" ")[0]
        store.client.close()
        server_manager_instance.release_server(path)


def import_for(kind: str) -> None:
    """Import what opening such a store needs, and open nothing."""
    for package in DATABASES[kind].packages:
        importlib.import_module(package)
    if kind == "qdrant":
        from tests.support.qdrant_schemas import keep_schemas

        keep_schemas()
