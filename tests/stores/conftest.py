"""Every store, made by the framework that ships it, with the same nodes; Chroma also on a real server."""

from __future__ import annotations

import itertools
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
import pytest
from langchain_chroma import Chroma
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.vector_stores.chroma import ChromaVectorStore

from nudge_rag.stores import ChromaStore, EmbeddingStore, InMemoryStore, SimpleStore

DIMENSION = 12
calls: list[str] = []


def vectors_of(texts: list[str]) -> list[list[float]]:
    """A vector per text, of any length, always the same; every call is noted."""
    calls.extend(texts)
    return [np.random.default_rng(list(text.encode())).normal(size=DIMENSION).tolist() for text in texts]


class LangChainEmbeddings(Embeddings):
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return vectors_of(texts)

    def embed_query(self, text: str) -> list[float]:
        return vectors_of([text])[0]


class LlamaIndexEmbedding(BaseEmbedding):
    def _get_text_embedding(self, text: str) -> list[float]:
        return vectors_of([text])[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return vectors_of([query])[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return vectors_of([query])[0]


@dataclass
class Built:
    """A store under test, and what the tests need to know of it from outside."""

    store: EmbeddingStore
    vectors: dict[str, np.ndarray]
    contents: Callable[[], Any]
    reopen: Callable[[], EmbeddingStore] | None
    even: Any
    embedded: list[str] = field(default_factory=lambda: calls)


def node_rows(n: int) -> list[tuple[str, str, dict[str, Any]]]:
    # Inserted out of order, with ids that sort and look unlike their insertion.
    order = np.random.default_rng(3).permutation(n)
    return [(f"node {i}/é", f"text of {i}", {"number": int(i), "even": int(i) % 2 == 0}) for i in order]


def llama_index(vector_store: Any, n: int) -> VectorStoreIndex:
    nodes = [TextNode(id_=node, text=text, metadata=metadata) for node, text, metadata in node_rows(n)]
    for node in nodes:
        node.excluded_embed_metadata_keys = ["number", "even"]
    context = StorageContext.from_defaults(vector_store=vector_store)
    return VectorStoreIndex(nodes, storage_context=context, embed_model=LlamaIndexEmbedding())


def documents(n: int) -> list[Document]:
    return [Document(id=node, page_content=text, metadata=metadata) for node, text, metadata in node_rows(n)]


def expected_vectors(n: int) -> dict[str, np.ndarray]:
    return {node: np.array(vectors_of([text])[0]) for node, text, _ in node_rows(n)}


def simple(folder: Path, n: int, server: Any, *, persisted: bool) -> Built:
    vector_store = SimpleVectorStore()
    index = llama_index(vector_store, n)
    path = folder / "vectors.json" if persisted else None
    if path:
        vector_store.persist(str(path))

    def contents() -> Any:
        texts = {node_id: node.to_json() for node_id, node in index.docstore.docs.items()}
        return texts, vector_store.data.metadata_dict, vector_store.data.text_id_to_ref_doc_id

    def even(node_id: str) -> bool:
        return bool(vector_store.data.metadata_dict[node_id]["even"])

    reopen = (lambda: SimpleStore.open(path)) if path else None
    return Built(SimpleStore(vector_store, persist_path=path), expected_vectors(n), contents, reopen, even)


def in_memory(folder: Path, n: int, server: Any, *, persisted: bool) -> Built:
    vector_store = InMemoryVectorStore(LangChainEmbeddings())
    vector_store.add_documents(documents(n))
    path = folder / "dump.json" if persisted else None
    if path:
        vector_store.dump(str(path))

    def contents() -> Any:
        return {node: {**entry, "vector": None} for node, entry in vector_store.store.items()}

    def even(node_id: str) -> bool:
        return bool(vector_store.store[node_id]["metadata"]["even"])

    reopen = (lambda: InMemoryStore.open(path, LangChainEmbeddings())) if path else None
    return Built(InMemoryStore(vector_store, persist_path=path), expected_vectors(n), contents, reopen, even)


names = itertools.count()


def chroma(folder: Path, n: int, server: Callable[[], int], *, by: str, space: str | None, remote: bool) -> Built:
    name = f"collection-{next(names)}"
    client = (
        chromadb.HttpClient(host="127.0.0.1", port=server())
        if remote
        else chromadb.PersistentClient(path=str(folder / "chroma"))
    )
    configuration: Any = {"hnsw": {"space": space, "ef_search": 500}} if space else None
    if by == "llama-index":
        collection = client.create_collection(name, configuration=configuration)
        llama_index(ChromaVectorStore(chroma_collection=collection), n)
    else:
        wrapped = Chroma(name, LangChainEmbeddings(), client=client, collection_configuration=configuration)
        for first in range(0, n, 5_000):  # the integration does not split what the server takes in parts only
            wrapped.add_documents(documents(n)[first : first + 5_000])
        collection = wrapped._collection

    def contents() -> Any:
        found = collection.get(include=["documents", "metadatas"])
        # Chroma gives metadata keys in any order.
        metadata = [json.dumps(entry, sort_keys=True) for entry in found["metadatas"]]
        return sorted(zip(found["ids"], found["documents"], metadata, strict=True))

    def reopen() -> EmbeddingStore:
        if remote:
            return ChromaStore(chromadb.HttpClient(host="127.0.0.1", port=server()).get_collection(name))
        return ChromaStore.open(folder / "chroma", name)

    return Built(ChromaStore(collection), expected_vectors(n), contents, reopen, {"even": True})


BUILDERS: dict[str, tuple[Callable[..., Built], dict[str, Any]]] = {
    "simple": (simple, {"persisted": False}),
    "simple-persisted": (simple, {"persisted": True}),
    "in-memory": (in_memory, {"persisted": False}),
    "in-memory-persisted": (in_memory, {"persisted": True}),
    "chroma-llama-index": (chroma, {"by": "llama-index", "space": None, "remote": False}),
    "chroma-langchain": (chroma, {"by": "langchain", "space": None, "remote": False}),
    "chroma-llama-index-cosine": (chroma, {"by": "llama-index", "space": "cosine", "remote": False}),
    "chroma-langchain-ip": (chroma, {"by": "langchain", "space": "ip", "remote": False}),
    "chroma-server-llama-index": (chroma, {"by": "llama-index", "space": "cosine", "remote": True}),
    "chroma-server-langchain": (chroma, {"by": "langchain", "space": None, "remote": True}),
}


@pytest.fixture(scope="session")
def chroma_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], int]]:
    """Port of a real Chroma server on loopback, started at the first use and stopped at the end."""
    started: list[tuple[subprocess.Popen[bytes], int]] = []

    def port() -> int:
        if not started:
            started.append(start_server(tmp_path_factory.mktemp("chroma-server")))
        return started[0][1]

    yield port
    for process, _ in started:
        process.terminate()
        process.wait(timeout=30)


def start_server(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [str(Path(sys.executable).parent / "chroma"), "run", "--path", str(folder), "--host", "127.0.0.1"]
    process = subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(300):
        if process.poll() is not None:
            raise RuntimeError(f"chroma run ended with status {process.returncode}")
        try:
            chromadb.HttpClient(host="127.0.0.1", port=port).heartbeat()
        except Exception:
            time.sleep(0.1)
        else:
            return process, port
    process.kill()
    raise RuntimeError("chroma run did not answer within 30 seconds")


@pytest.fixture
def build(tmp_path: Path, chroma_server: Callable[[], int]) -> Callable[[str, int], Built]:
    """Build a store by name with n nodes."""

    def make(name: str, n: int) -> Built:
        builder, options = BUILDERS[name]
        built = builder(tmp_path, n, chroma_server, **options)
        calls.clear()
        return built

    return make


@pytest.fixture(params=list(BUILDERS))
def built(request: pytest.FixtureRequest, build: Callable[[str, int], Built]) -> Built:
    """Every store in turn, with 60 nodes."""
    return build(request.param, 60)
