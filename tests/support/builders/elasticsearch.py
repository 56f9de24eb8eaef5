"""Elasticsearch through its integrations, on a double of its REST API: it cannot be run here."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import elasticsearch as client
from elasticsearch.helpers.vectorstore import DenseVectorScriptScoreStrategy, DistanceMetric
from langchain_elasticsearch import DenseVectorStrategy, ElasticsearchStore
from llama_index.vector_stores.elasticsearch import ElasticsearchStore as LlamaIndexElasticsearch

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
from tests.support.doubles.search_engine import Elasticsearch

numbers = itertools.count()


def start_server(folder: Path) -> tuple[Any, Any]:
    double = Elasticsearch()
    return double, double


def elasticsearch(folder: Path, n: int, servers: Servers, *, by: str, metric: str, exact: bool = False) -> Built:
    double, name = servers.address("elasticsearch"), f"nodes{next(numbers)}"
    options: dict[str, Any] = {"similarity": "cosine", "exact": True} if exact else {}
    if by == "llama-index":
        vector_store: Any = LlamaIndexElasticsearch(name, es_url=double.url, distance_strategy=metric)
        llama_index(vector_store, n)
    else:
        kind = DenseVectorScriptScoreStrategy if exact else DenseVectorStrategy
        vector_store = ElasticsearchStore(
            name,
            embedding=LangChainEmbeddings(),
            client=client.Elasticsearch(double.url),
            strategy=kind(distance=DistanceMetric(metric)),
            num_dimensions=DIMENSION,
        )
        vector_store.add_documents(documents(n))

    def contents() -> Any:
        return copy.deepcopy(double.indexes[name].documents)

    def reopen() -> Any:
        return nudge_rag.stores.ElasticsearchStore(client.Elasticsearch(double.url), name, **options)

    even = {"term": {"metadata.even": True}}
    delete = vector_store.delete_nodes if by == "llama-index" else vector_store.delete
    return opened(vector_store, by, expected_vectors(n), contents, reopen, even, delete)


BUILDERS = {
    "elasticsearch-llama-index-cosine": (elasticsearch, {"by": "llama-index", "metric": "COSINE"}),
    "elasticsearch-llama-index-l2": (elasticsearch, {"by": "llama-index", "metric": "EUCLIDEAN_DISTANCE"}),
    "elasticsearch-langchain-dot": (elasticsearch, {"by": "langchain", "metric": "MAX_INNER_PRODUCT"}),
    "elasticsearch-langchain-exact": (elasticsearch, {"by": "langchain", "metric": "COSINE", "exact": True}),
}
