"""What every builder of a store under test shares: the nodes, the embedding models and what a test knows of a store."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import TextNode

from nudge_rag.stores import EmbeddingStore

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


@dataclass
class Servers:
    """Database servers under test: a process and an address each, started when first asked for."""

    starters: dict[str, Callable[[Path], tuple[subprocess.Popen[bytes], Any]]]
    folders: pytest.TempPathFactory
    running: dict[str, tuple[subprocess.Popen[bytes], Any]] = field(default_factory=dict)

    def address(self, name: str) -> Any:
        """Where the server listens, in the form that its starter gives."""
        if name not in self.running:
            self.running[name] = self.starters[name](self.folders.mktemp(f"{name}-server"))
        return self.running[name][1]

    def stop(self) -> None:
        for process, _ in self.running.values():
            process.terminate()
            process.wait(timeout=30)
