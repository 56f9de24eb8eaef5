"""Weaviate through its integrations, on a double of its client's collections: it cannot be run here."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from langchain_weaviate import WeaviateVectorStore
from llama_index.vector_stores.weaviate import WeaviateVectorStore as LlamaIndexWeaviate
from weaviate import WeaviateClient
from weaviate.classes.query import Filter

import nudge_rag.stores
from tests.support.builders.common import (
    Built,
    LangChainEmbeddings,
    documents,
    expected_vectors,
    llama_index,
    uuid_id,
)
from tests.support.doubles.opening import opened
from tests.support.doubles.weaviate import Weaviate, client_of


def weaviate(folder: Path, n: int, servers: Any, *, by: str, distance: str, vector_name: str | None = None) -> Built:
    double = Weaviate("Nodes", distance, vector_name)
    client = client_of(double, WeaviateClient)
    if by == "llama-index":
        vector_store: Any = LlamaIndexWeaviate(weaviate_client=client, index_name="Nodes")
        vector_store._is_self_created_weaviate_client = False
        llama_index(vector_store, n, uuid_id)
    else:
        vector_store = WeaviateVectorStore(client, "Nodes", "text", LangChainEmbeddings())
        vector_store.add_documents(documents(n, uuid_id))

    def contents() -> Any:
        return {name: copy.deepcopy(properties) for name, (properties, _) in double.objects.items()}

    even = Filter.by_property("even").equal(True)

    def reopen() -> Any:
        return nudge_rag.stores.WeaviateStore(double)

    delete = vector_store.delete_nodes if by == "llama-index" else vector_store.delete
    return opened(vector_store, by, expected_vectors(n, uuid_id), contents, reopen, even, delete, uuid_id)


BUILDERS = {
    "weaviate-llama-index-cosine": (weaviate, {"by": "llama-index", "distance": "cosine"}),
    "weaviate-langchain-dot": (weaviate, {"by": "langchain", "distance": "dot"}),
    "weaviate-langchain-l2-named": (weaviate, {"by": "langchain", "distance": "l2-squared", "vector_name": "text"}),
}
