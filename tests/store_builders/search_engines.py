"""Elasticsearch and OpenSearch through their integrations, on doubles: neither can be run here."""

from __future__ import annotations

import copy
import itertools
import warnings
from pathlib import Path
from typing import Any

import elasticsearch
import langchain_nudge
from elasticsearch.helpers.vectorstore import DenseVectorScriptScoreStrategy, DistanceMetric
from langchain_community.vectorstores import OpenSearchVectorSearch
from langchain_elasticsearch import DenseVectorStrategy, ElasticsearchStore
from llama_index.retrievers import nudge as llama_index_nudge
from llama_index.vector_stores.elasticsearch import ElasticsearchStore as LlamaIndexElasticsearch
from llama_index.vector_stores.opensearch import OpensearchVectorClient, OpensearchVectorStore
from opensearchpy import OpenSearch

import nudge_rag.stores
from tests.doubles import search_engine
from tests.store_builders.common import (
    DIMENSION,
    Built,
    LangChainEmbeddings,
    Servers,
    documents,
    expected_vectors,
    llama_index,
)

EVEN = {"term": {"metadata.even": True}}
numbers = itertools.count()


def start_elasticsearch(folder: Path) -> tuple[Any, Any]:
    double = search_engine.Elasticsearch()
    return double, double


def start_opensearch(folder: Path) -> tuple[Any, Any]:
    double = search_engine.OpenSearch()
    return double, double


STARTERS = {"elasticsearch": start_elasticsearch, "opensearch": start_opensearch}


def built(double: Any, vector_store: Any, by: Any, name: str, vectors: Any, reopen: Any) -> Built:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*adapter is experimental")
        store = by.embedding_store(vector_store)
    return Built(store, vectors, lambda: copy.deepcopy(double.indexes[name].documents), reopen, EVEN)


def elastic(folder: Path, n: int, servers: Servers, *, by: str, metric: str, exact: bool = False) -> Built:
    double, name = servers.address("elasticsearch"), f"nodes{next(numbers)}"
    vectors = expected_vectors(n)
    options: dict[str, Any] = {"similarity": "cosine", "exact": True} if exact else {}
    if by == "llama-index":
        vector_store: Any = LlamaIndexElasticsearch(name, es_url=double.url, distance_strategy=metric)
        llama_index(vector_store, n)
        module: Any = llama_index_nudge
    else:
        kind = DenseVectorScriptScoreStrategy if exact else DenseVectorStrategy
        vector_store = ElasticsearchStore(
            name,
            embedding=LangChainEmbeddings(),
            client=elasticsearch.Elasticsearch(double.url),
            strategy=kind(distance=DistanceMetric(metric)),
            num_dimensions=DIMENSION,
        )
        vector_store.add_documents(documents(n))
        module = langchain_nudge

    def reopen() -> Any:
        return nudge_rag.stores.ElasticsearchStore(elasticsearch.Elasticsearch(double.url), name, **options)

    return built(double, vector_store, module, name, vectors, reopen)


def opensearch(folder: Path, n: int, servers: Servers, *, by: str, space: str, engine: str) -> Built:
    double, name = servers.address("opensearch"), f"nodes{next(numbers)}"
    vectors = expected_vectors(n)
    if by == "llama-index":
        method = {"name": "hnsw", "space_type": space, "engine": engine}
        client = OpensearchVectorClient(double.url, name, DIMENSION, method=method)
        vector_store: Any = OpensearchVectorStore(client)
        llama_index(vector_store, n)
        module: Any = llama_index_nudge
    else:
        vector_store = OpenSearchVectorSearch(double.url, name, LangChainEmbeddings())
        texts = documents(n)
        vector_store.add_texts(
            [row.page_content for row in texts],
            [row.metadata for row in texts],
            [str(row.id) for row in texts],
            engine=engine,
            space_type=space,
        )
        module = langchain_nudge
    if (space, engine) == ("cosinesimil", "faiss"):
        vectors = {node: vector / sum(vector**2) ** 0.5 for node, vector in vectors.items()}

    def reopen() -> Any:
        return nudge_rag.stores.OpenSearchStore(OpenSearch(double.url), name)

    return built(double, vector_store, module, name, vectors, reopen)


BUILDERS = {
    "elasticsearch-llama-index-cosine": (elastic, {"by": "llama-index", "metric": "COSINE"}),
    "elasticsearch-llama-index-l2": (elastic, {"by": "llama-index", "metric": "EUCLIDEAN_DISTANCE"}),
    "elasticsearch-langchain-dot": (elastic, {"by": "langchain", "metric": "MAX_INNER_PRODUCT"}),
    "elasticsearch-langchain-exact": (elastic, {"by": "langchain", "metric": "COSINE", "exact": True}),
    "opensearch-llama-index-l2": (opensearch, {"by": "llama-index", "space": "l2", "engine": "faiss"}),
    "opensearch-llama-index-cosine": (opensearch, {"by": "llama-index", "space": "cosinesimil", "engine": "faiss"}),
    "opensearch-langchain-dot": (opensearch, {"by": "langchain", "space": "innerproduct", "engine": "lucene"}),
    "opensearch-langchain-cosine": (opensearch, {"by": "langchain", "space": "cosinesimil", "engine": "lucene"}),
}
