"""OpenSearch through its integrations, on a double of its REST API: it cannot be run here."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import opensearchpy
from langchain_community.vectorstores import OpenSearchVectorSearch
from llama_index.vector_stores.opensearch import OpensearchVectorClient, OpensearchVectorStore

import nudge_rag.stores
from tests.support.builders.common import (
    DIMENSION,
    Built,
    LangChainEmbeddings,
    Servers,
    documents,
    expected_vectors,
    llama_index,
)
from tests.support.doubles.opening import opened
from tests.support.doubles.search_engine import OpenSearch

numbers = itertools.count()


def start_server(folder: Path) -> tuple[Any, Any]:
    double = OpenSearch()
    return double, double


def opensearch(folder: Path, n: int, servers: Servers, *, by: str, space: str, engine: str) -> Built:
    double, name = servers.address("opensearch"), f"nodes{next(numbers)}"
    vectors = expected_vectors(n)
    if by == "llama-index":
        method = {"name": "hnsw", "space_type": space, "engine": engine}
        vector_store: Any = OpensearchVectorStore(OpensearchVectorClient(double.url, name, DIMENSION, method=method))
        llama_index(vector_store, n)
    else:
        vector_store = OpenSearchVectorSearch(double.url, name, LangChainEmbeddings())
        texts = documents(n)
        vector_store.add_texts(
            [row.page_content for row in texts],
            [row.metadata for row in texts],
            [str(row.id) for row in texts],
            engine=engine,
            space_type=space,
            bulk_size=n,
        )
    if (space, engine) == ("cosinesimil", "faiss"):
        vectors = {node: vector / sum(vector**2) ** 0.5 for node, vector in vectors.items()}

    def contents() -> Any:
        return copy.deepcopy(double.indexes[name].documents)

    def reopen() -> Any:
        return nudge_rag.stores.OpenSearchStore(opensearchpy.OpenSearch(double.url), name)

    even = {"term": {"metadata.even": True}}
    delete = vector_store.delete_nodes if by == "llama-index" else vector_store.delete
    return opened(vector_store, by, vectors, contents, reopen, even, delete)


BUILDERS = {
    "opensearch-llama-index-l2": (opensearch, {"by": "llama-index", "space": "l2", "engine": "faiss"}),
    "opensearch-llama-index-cosine": (opensearch, {"by": "llama-index", "space": "cosinesimil", "engine": "faiss"}),
    "opensearch-langchain-dot": (opensearch, {"by": "langchain", "space": "innerproduct", "engine": "lucene"}),
    "opensearch-langchain-cosine": (opensearch, {"by": "langchain", "space": "cosinesimil", "engine": "lucene"}),
}
