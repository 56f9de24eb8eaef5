"""Milvus Lite, in a file of its own and as a server on loopback, with every metric."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from langchain_milvus import Milvus
from llama_index.vector_stores.milvus import MilvusVectorStore
from milvus_lite.server_manager import server_manager_instance
from pymilvus import MilvusClient

from nudge_rag.stores import MilvusStore
from tests.support.builders.common import (
    DIMENSION,
    Built,
    Delete,
    LangChainEmbeddings,
    Servers,
    documents,
    expected_vectors,
    llama_index,
)

names = itertools.count()


def by_llama_index(uri: str, name: str, n: int, index: dict[str, Any]) -> Delete:
    vector_store = MilvusVectorStore(
        uri=uri,
        collection_name=name,
        dim=DIMENSION,
        similarity_metric=index["metric_type"],
        index_config={"index_type": index["index_type"]},
        use_async_client=False,
    )
    llama_index(vector_store, n)
    return vector_store.delete_nodes


def by_langchain(uri: str, name: str, n: int, index: dict[str, Any]) -> Delete:
    vectorstore = Milvus(LangChainEmbeddings(), name, connection_args={"uri": uri}, index_params=index)
    rows = documents(n)
    vectorstore.add_documents(rows, ids=[row.id for row in rows])
    return vectorstore.delete


def milvus(
    folder: Path,
    n: int,
    servers: Servers,
    *,
    by: Any,
    metric: str,
    kind: str,
    remote: bool,
    merge: bool | None = None,
    alias: bool = False,
) -> Built:
    uri = servers.address("milvus") if remote else str(folder / "milvus.db")
    name = f"nodes{next(names)}"
    delete = by(uri, name, n, {"metric_type": metric, "index_type": kind, "params": {}})
    if alias:
        client = MilvusClient(uri)
        client.create_alias(name, f"live_{name}")
        client.close()
        name = f"live_{name}"
    stores = [MilvusStore.open(uri, name, merge=merge)]

    def contents() -> Any:
        fields = stores[-1]._schema
        rows = stores[-1].client.query(name, filter="", limit=16_000, output_fields=["*"])
        plain = [{key: row[key] for key in sorted(row) if key != fields.vector_field} for row in rows]
        return sorted(repr(row) for row in plain)

    def reopen() -> MilvusStore:
        if not remote:
            release(stores[-1].client, uri)
        stores.append(MilvusStore.open(uri, name))
        return stores[-1]

    return Built(stores[0], expected_vectors(n), contents, reopen, "even == true", delete)


def release(client: MilvusClient, path: str) -> None:
    """Close the file of a Milvus Lite of this process: what comes next reads it anew."""
    client.close()
    server_manager_instance.release_server(path)


def start_server(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    arguments = ["server", "--data-dir", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, "-m", "milvus_lite", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    uri = f"http://127.0.0.1:{port}"
    for _ in range(300):
        if process.poll() is not None:
            raise RuntimeError(f"milvus-lite server ended with status {process.returncode}")
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                MilvusClient(uri, timeout=5).close()
        except OSError:
            time.sleep(0.1)
        else:
            return process, uri
    process.kill()
    raise RuntimeError("milvus-lite server did not answer within 30 seconds")


BUILDERS = {
    "milvus-llama-index": (milvus, {"by": by_llama_index, "metric": "IP", "kind": "FLAT", "remote": False}),
    "milvus-langchain": (milvus, {"by": by_langchain, "metric": "L2", "kind": "AUTOINDEX", "remote": False}),
    "milvus-server-llama-index-whole-rows": (
        milvus,
        {"by": by_llama_index, "metric": "L2", "kind": "HNSW", "remote": True, "merge": False},
    ),
    "milvus-server-langchain-cosine": (
        milvus,
        {"by": by_langchain, "metric": "COSINE", "kind": "FLAT", "remote": True},
    ),
    "milvus-langchain-alias": (
        milvus,
        {"by": by_langchain, "metric": "COSINE", "kind": "FLAT", "remote": False, "alias": True},
    ),
    "milvus-server-llama-index-alias": (
        milvus,
        {"by": by_llama_index, "metric": "IP", "kind": "FLAT", "remote": True, "alias": True},
    ),
}
