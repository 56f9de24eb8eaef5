"""Pinecone through its integrations, on a double of its REST API: it cannot be run here."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pinecone as client
from langchain_pinecone import PineconeVectorStore
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo
from llama_index.vector_stores.pinecone import PineconeVectorStore as LlamaIndexPinecone

import nudge_rag.stores
from tests.support.builders.common import (
    DIMENSION,
    Built,
    LangChainEmbeddings,
    documents,
    expected_vectors,
    llama_index,
)
from tests.support.doubles.opening import opened
from tests.support.doubles.pinecone import Pinecone


def index_of(double: Pinecone) -> Any:
    return client.Pinecone(api_key="none").Index(host=double.url)


class OfDocument(LlamaIndexPinecone):
    """Nodes that have a source document, whose id the integration puts before the node's."""

    def add(self, nodes: Any, **kwargs: Any) -> Any:
        for node in nodes:
            node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id="a#document")
        return super().add(nodes, **kwargs)


def pinecone(folder: Path, n: int, servers: Any, *, by: str, metric: str) -> Built:
    double = Pinecone(metric, DIMENSION)
    servers.running[f"pinecone-{folder.name}-{metric}-{n}"] = (double, double)
    options: dict[str, Any] = {}
    if by == "llama-index":
        vector_store: Any = OfDocument(index_of(double))
        llama_index(vector_store, n)
        options = {"node_id_of": lambda record: record.rpartition("#")[2]}
    else:
        vector_store = PineconeVectorStore(index_of(double), LangChainEmbeddings())
        vector_store.add_documents(documents(n))

    def contents() -> Any:
        records = copy.deepcopy(double.records)
        return {name: {part: record[part] for part in record if part != "values"} for name, record in records.items()}

    def reopen() -> Any:
        return nudge_rag.stores.PineconeStore(index_of(double), **options)

    def delete(ids: list[str]) -> None:
        if by == "langchain":
            vector_store.delete(ids)
        else:  # it takes the ids of its records, which begin with that of the document
            vector_store.delete_nodes([f"a#document#{node}" for node in ids])

    return opened(vector_store, by, expected_vectors(n), contents, reopen, {"even": True}, delete)


BUILDERS = {
    "pinecone-llama-index-cosine": (pinecone, {"by": "llama-index", "metric": "cosine"}),
    "pinecone-langchain-dot": (pinecone, {"by": "langchain", "metric": "dotproduct"}),
    "pinecone-langchain-l2": (pinecone, {"by": "langchain", "metric": "euclidean"}),
}
