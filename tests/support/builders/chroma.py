"""Chroma, embedded and on a real server, in all of its spaces."""

from __future__ import annotations

import itertools
import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import chromadb
from langchain_chroma import Chroma
from llama_index.vector_stores.chroma import ChromaVectorStore

from nudge_rag.stores import ChromaStore, EmbeddingStore
from tests.support.builders.common import Built, LangChainEmbeddings, Servers, documents, expected_vectors, llama_index

names = itertools.count()


def chroma(folder: Path, n: int, servers: Servers, *, by: str, space: str | None, remote: bool) -> Built:
    name = f"collection-{next(names)}"
    client = (
        chromadb.HttpClient(host="127.0.0.1", port=servers.address("chroma"))
        if remote
        else chromadb.PersistentClient(path=str(folder / "chroma"))
    )
    configuration: Any = {"hnsw": {"space": space, "ef_search": 500}} if space else None
    if by == "llama-index":
        collection = client.create_collection(name, configuration=configuration)
        vector_store = ChromaVectorStore(chroma_collection=collection)
        llama_index(vector_store, n)
    else:
        wrapped = Chroma(name, LangChainEmbeddings(), client=client, collection_configuration=configuration)
        for first in range(0, n, 5_000):  # the integration does not split what the server takes in parts only
            wrapped.add_documents(documents(n)[first : first + 5_000])
        collection = wrapped._collection

    def contents() -> Any:
        # By its name: after a switch it is another one.
        found = client.get_collection(name, embedding_function=None).get(include=["documents", "metadatas"])
        # Chroma gives metadata keys in any order.
        metadata = [json.dumps(entry, sort_keys=True) for entry in found["metadatas"]]
        return sorted(zip(found["ids"], found["documents"], metadata, strict=True))

    def reopen() -> EmbeddingStore:
        if remote:
            return ChromaStore(
                chromadb.HttpClient(host="127.0.0.1", port=servers.address("chroma")).get_collection(name)
            )
        return ChromaStore.open(folder / "chroma", name)

    delete = vector_store.delete_nodes if by == "llama-index" else wrapped.delete
    return Built(ChromaStore(collection), expected_vectors(n), contents, reopen, {"even": True}, delete)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# What the command `chroma` does, without chromadb and its second of imports: the server is in the bindings.
SERVE = "import sys, chromadb_rust_bindings; chromadb_rust_bindings.cli(['chroma', *sys.argv[1:]])"


def start_server(folder: Path, port: int | None = None) -> tuple[subprocess.Popen[bytes], int]:
    port = port or free_port()
    command = [sys.executable, "-c", SERVE, "run", "--path", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(1500):
        if process.poll() is not None:
            raise RuntimeError(f"chroma run ended with status {process.returncode}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v2/heartbeat", timeout=10):
                return process, port
        except OSError:  # it does not listen yet
            time.sleep(0.02)
    process.kill()
    raise RuntimeError("chroma run did not answer within 30 seconds")


BUILDERS = {
    "chroma-llama-index": (chroma, {"by": "llama-index", "space": None, "remote": False}),
    "chroma-langchain": (chroma, {"by": "langchain", "space": None, "remote": False}),
    "chroma-llama-index-cosine": (chroma, {"by": "llama-index", "space": "cosine", "remote": False}),
    "chroma-langchain-ip": (chroma, {"by": "langchain", "space": "ip", "remote": False}),
    "chroma-server-llama-index": (chroma, {"by": "llama-index", "space": "cosine", "remote": True}),
    "chroma-server-langchain": (chroma, {"by": "langchain", "space": None, "remote": True}),
}
