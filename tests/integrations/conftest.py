"""A small labelled world for both frameworks: nodes, and queries that miss their node in a way that can be learned."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from langchain_core.embeddings import Embeddings
from llama_index.core.base.embeddings.base import BaseEmbedding

from nudge_rag import LabeledPairs
from tests.support import fixtures as store_fixtures

build = store_fixtures.build
quiet = store_fixtures.quiet
servers = store_fixtures.servers

N, D = 60, 16


def unit(rows: Any) -> Any:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


NODES = unit(np.random.default_rng(0).normal(size=(N, D)))
SHIFTS = unit(np.random.default_rng(1).normal(size=(N, D)))


def vector(text: str) -> list[float]:
    """``topic 7`` is node 7; ``question 3 about 7`` lies off it, always to the same side."""
    return list(vector_of(text))


@cache
def vector_of(text: str) -> tuple[float, ...]:
    number = int(text.split()[-1])
    if text.startswith("topic"):
        return tuple(NODES[number].tolist())
    noise = np.random.default_rng(list(text.encode())).normal(size=D) * 0.12
    return tuple((unit(NODES[number] + 0.9 * SHIFTS[number]) + noise).tolist())


@cache
def node_id(number: int) -> str:
    """A UUID, because some databases take nothing else."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"id-{number}"))


class LangChainWorld(Embeddings):
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [vector(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return vector(text)


class LlamaIndexWorld(BaseEmbedding):
    def _get_text_embedding(self, text: str) -> list[float]:
        return vector(text)

    def _get_query_embedding(self, query: str) -> list[float]:
        return vector(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return vector(query)


@pytest.fixture
def world() -> SimpleNamespace:
    parities = ("even", "odd")
    rows = [(node_id(i), f"topic {i}", {"number": i, "even": i % 2 == 0, "parity": parities[i % 2]}) for i in range(N)]
    queries = [f"question 50 about {i}" for i in range(0, N, 3)]
    made = SimpleNamespace(
        queries=queries,
        vector=vector,
        langchain=LangChainWorld(),
        llama_index=LlamaIndexWorld(),
        numbers=set(range(N)),
    )

    def number_by(naming: Callable[[int], str]) -> None:
        """Let a node's number give its id: some databases make their own."""
        made.node_id = naming
        made.rows = [(naming(number), *row[1:]) for number, row in enumerate(rows)]
        made.pairs = LabeledPairs.from_pairs(
            (f"question {j} about {i}", naming(i)) for i in range(40) for j in range(10)
        )

    made.number_by = number_by
    number_by(node_id)
    return made
