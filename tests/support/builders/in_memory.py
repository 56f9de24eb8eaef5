"""LangChain's InMemoryVectorStore, in memory and on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from langchain_core.vectorstores import InMemoryVectorStore

from nudge_rag.stores import InMemoryStore
from tests.support.builders.common import Built, LangChainEmbeddings, documents, expected_vectors


def in_memory(folder: Path, n: int, servers: Any, *, persisted: bool) -> Built:
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
    store = InMemoryStore(vector_store, persist_path=path)
    return Built(store, expected_vectors(n), contents, reopen, even, vector_store.delete)


BUILDERS = {"in-memory": (in_memory, {"persisted": False}), "in-memory-persisted": (in_memory, {"persisted": True})}
