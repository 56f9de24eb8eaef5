"""FAISS indexes of all supported kinds, in memory and in both frameworks' persisted forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
from langchain_community.docstore.in_memory import InMemoryDocstore
from langchain_community.vectorstores import FAISS
from llama_index.retrievers.nudge import embedding_store as llama_index_store
from llama_index.vector_stores.faiss import FaissMapVectorStore, FaissVectorStore

from nudge_rag.stores import EmbeddingStore, FaissStore
from tests.support.builders.common import (
    DIMENSION,
    Built,
    LangChainEmbeddings,
    documents,
    expected_vectors,
    llama_index,
    plain_id,
)


def made(kind: str, metric: int) -> Any:
    """An index whose approximate searches look everywhere, so that they can be compared with brute force."""
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(DIMENSION, 32, metric)
        index.hnsw.efSearch = 1000
        return index
    if kind == "ivf":
        index = faiss.IndexIVFFlat(faiss.IndexFlat(DIMENSION, metric), DIMENSION, 4, metric)
        index.train(np.random.default_rng(0).normal(size=(400, DIMENSION)).astype(np.float32))
        index.nprobe = 4
        return index
    return faiss.IndexFlat(DIMENSION, metric)


def even(node_id: str) -> bool:
    return any(node_id == plain_id(number) for number in range(0, 60, 2))


NO_DELETION = {
    "flat": "LlamaIndex' FaissVectorStore deletes no nodes: FaissMapVectorStore does",
    "hnsw": "an HNSW index of FAISS removes no vectors",
    "ivf": "an IVF index of FAISS from which a framework removed vectors is refused (tests/stores/test_faiss.py)",
}


def by_llama_index(
    folder: Path, n: int, servers: Any, *, kind: str, metric: int, mapped: str = "", persisted: bool = False
) -> Built:
    inner = made(kind, metric)
    faiss_index = getattr(faiss, mapped)(inner) if mapped else inner
    vector_store: Any = (FaissMapVectorStore if mapped else FaissVectorStore)(faiss_index)
    index = llama_index(vector_store, n)
    path = folder / "storage" / "default__vector_store.json" if persisted else None
    if path:
        index.storage_context.persist(str(path.parent))

    def contents() -> Any:
        return {node: entry.to_json() for node, entry in index.docstore.docs.items()}, dict(
            index.index_struct.nodes_dict
        )

    reopen = (lambda: FaissStore.open(path)) if path else None
    store = llama_index_store(index, persist_path=path)
    delete = index.delete_nodes if mapped and kind == "flat" else NO_DELETION[kind]
    return Built(store, expected_vectors(n), contents, reopen, even, delete)


def by_langchain(folder: Path, n: int, servers: Any, *, kind: str, metric: int, persisted: bool = False) -> Built:
    from langchain_nudge import embedding_store

    vector_store = FAISS(LangChainEmbeddings(), made(kind, metric), InMemoryDocstore(), {})
    vector_store.add_documents(documents(n))
    path = folder / "saved" / "index.faiss" if persisted else None
    if path:
        vector_store.save_local(str(path.parent))

    def contents() -> Any:
        return dict(vector_store.docstore._dict), dict(vector_store.index_to_docstore_id)

    def reopen() -> EmbeddingStore:
        loaded = FAISS.load_local(str(path.parent), LangChainEmbeddings(), allow_dangerous_deserialization=True)
        return embedding_store(loaded, persist_path=path)

    store = embedding_store(vector_store, persist_path=path)

    def delete(ids: list[str]) -> None:
        vector_store.delete(ids)
        if path:
            vector_store.save_local(str(path.parent))

    deletion = delete if kind == "flat" else NO_DELETION[kind]
    return Built(store, expected_vectors(n), contents, reopen if path else None, even, deletion)


L2, IP = faiss.METRIC_L2, faiss.METRIC_INNER_PRODUCT
BUILDERS = {
    "faiss-llama-index-flat": (by_llama_index, {"kind": "flat", "metric": L2, "persisted": True}),
    "faiss-llama-index-idmap": (by_llama_index, {"kind": "flat", "metric": IP, "mapped": "IndexIDMap"}),
    "faiss-llama-index-idmap2-ivf": (
        by_llama_index,
        {"kind": "ivf", "metric": IP, "mapped": "IndexIDMap2", "persisted": True},
    ),
    "faiss-llama-index-hnsw": (by_llama_index, {"kind": "hnsw", "metric": L2}),
    "faiss-langchain-flat-ip": (by_langchain, {"kind": "flat", "metric": IP, "persisted": True}),
    "faiss-langchain-ivf": (by_langchain, {"kind": "ivf", "metric": L2}),
    "faiss-langchain-hnsw": (by_langchain, {"kind": "hnsw", "metric": L2, "persisted": True}),
}
