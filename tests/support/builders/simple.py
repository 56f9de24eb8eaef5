"""LlamaIndex's SimpleVectorStore, in memory and on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llama_index.core.vector_stores import SimpleVectorStore

from nudge_rag.stores import SimpleStore
from tests.support.builders.common import Built, expected_vectors, llama_index


def simple(folder: Path, n: int, servers: Any, *, persisted: bool) -> Built:
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
    store = SimpleStore(vector_store, persist_path=path)
    return Built(store, expected_vectors(n), contents, reopen, even, index.delete_nodes)


BUILDERS = {"simple": (simple, {"persisted": False}), "simple-persisted": (simple, {"persisted": True})}
