"""What every builder of a store under test shares: the nodes, the embedding models and what a test knows of a store."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property
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
    return [list(vector_of(text)) for text in texts]


@cache
def vector_of(text: str) -> tuple[float, ...]:
    return tuple(np.random.default_rng(list(text.encode())).normal(size=DIMENSION).tolist())


class LangChainEmbeddings(Embeddings):
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return vectors_of(texts)

    def embed_query(self, text: str) -> list[float]:
        return vectors_of([text])[0]


class LlamaIndexEmbedding(BaseEmbedding):
    embed_batch_size: int = 2048  # of 10 by default, each of which the framework announces and reports

    def _get_text_embedding(self, text: str) -> list[float]:
        return vectors_of([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return vectors_of(texts)

    def _get_query_embedding(self, query: str) -> list[float]:
        return vectors_of([query])[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return vectors_of([query])[0]


Naming = Callable[[int], str]
Delete = Callable[[list[str]], object]


def plain_id(number: int) -> str:
    return f"node {number}/é"


@cache
def uuid_id(number: int) -> str:
    """For databases that take nothing else."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, plain_id(number)))


@dataclass
class Built:
    """A store under test, and what the tests need to know of it from outside.

    ``delete`` deletes nodes as the framework does, past the adapter; or it says why nothing does.
    """

    store: EmbeddingStore
    vectors: dict[str, np.ndarray]
    contents: Callable[[], Any]
    reopen: Callable[[], EmbeddingStore] | None
    even: Any
    delete: Delete | str
    naming: Naming = plain_id
    embedded: list[str] = field(default_factory=lambda: calls)

    def is_even(self, node_id: str) -> bool:
        return node_id in self.even_ids

    @cached_property
    def even_ids(self) -> set[str]:
        """The ids of the nodes that the filter lets through."""
        return {self.naming(number) for number in range(0, len(self.vectors), 2)}

    def same(self, found: Any, expected: Any) -> bool:
        """Bit for bit, or to the rounding that the store makes known."""
        found, expected = np.asarray(found), np.asarray(expected)
        rounding = self.store.capabilities.rounding
        if not rounding:
            return bool(found.dtype == expected.dtype and found.tobytes() == expected.tobytes())
        return bool(found.shape == expected.shape and (np.abs(found - expected) <= rounding).all())


def node_rows(n: int, naming: Naming = plain_id) -> list[tuple[str, str, dict[str, Any]]]:
    # Inserted out of order, with ids that sort and look unlike their insertion.
    order = np.random.default_rng(3).permutation(n)
    return [(naming(int(i)), f"text of {i}", {"number": int(i), "even": int(i) % 2 == 0}) for i in order]


def llama_index(vector_store: Any, n: int, naming: Naming = plain_id) -> VectorStoreIndex:
    nodes = [TextNode(id_=node, text=text, metadata=metadata) for node, text, metadata in node_rows(n, naming)]
    for node in nodes:
        node.excluded_embed_metadata_keys = ["number", "even"]
    context = StorageContext.from_defaults(vector_store=vector_store)
    return VectorStoreIndex(nodes, storage_context=context, embed_model=LlamaIndexEmbedding())


def documents(n: int, naming: Naming = plain_id) -> list[Document]:
    rows = node_rows(n, naming)
    return [Document(id=node, page_content=text, metadata=metadata) for node, text, metadata in rows]


def expected_vectors(n: int, naming: Naming = plain_id) -> dict[str, np.ndarray]:
    return {node: np.array(vector_of(text)) for node, text, _ in node_rows(n, naming)}


@dataclass
class Servers:
    """Database servers under test: a process (terminate, wait) and an address each, started when first asked for."""

    starters: dict[str, Callable[[Path], tuple[Any, Any]]]
    folders: pytest.TempPathFactory
    running: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    def address(self, name: str) -> Any:
        """Where the server listens, in the form that its starter gives."""
        if name not in self.running:
            self.running[name] = self.starters[name](self.folders.mktemp(f"{name}-server"))
        return self.running[name][1]

    def stop(self) -> None:
        for process, _ in self.running.values():
            process.terminate()
            process.wait(timeout=30)
