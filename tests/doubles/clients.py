"""Which packages the doubles' tests need; a module of tests is skipped as a whole, and says so, where one is missing."""

from __future__ import annotations

import pytest

PACKAGES = [
    "elasticsearch",
    "opensearchpy",
    "pinecone",
    "weaviate",
    "langchain_community",
    "langchain_elasticsearch",
    "langchain_pinecone",
    "langchain_weaviate",
    "llama_index.vector_stores.elasticsearch",
    "llama_index.vector_stores.opensearch",
    "llama_index.vector_stores.pinecone",
    "llama_index.vector_stores.weaviate",
]


def require() -> None:
    for package in PACKAGES:
        pytest.importorskip(package, reason=f"{package} is not installed: pip install -e '.[test-experimental]'")
