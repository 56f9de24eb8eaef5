"""Stores of LlamaIndex that search by words too: every query mode is the framework's, before and after a push."""

from __future__ import annotations

import itertools
import zlib
from typing import Any

import numpy as np
import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.retrievers.nudge import NudgeRetriever, embedding_store

from nudge_rag import Nudge, rollback
from nudge_rag.solvers import ValidationCurve
from tests.integrations.conftest import NODES, LlamaIndexWorld, node_id, vector
from tests.support.builders.registry import here

KINDS = {"postgres": "postgres", "qdrant": "qdrant"}
MODES = ["default", "hybrid", "sparse"]
N = 24
QUERY = "question 3 about 7"
numbers = itertools.count()


def words(texts: list[str]) -> tuple[list[list[int]], list[list[float]]]:
    """Each word is a dimension."""
    found = [sorted({zlib.crc32(word.encode()) % 1_000 for word in text.split()}) for text in texts]
    return found, [[1.0] * len(one) for one in found]


def make_store(kind: str, servers: Any) -> Any:
    if kind == "qdrant":
        from llama_index.vector_stores.qdrant import QdrantVectorStore
        from qdrant_client import QdrantClient

        return QdrantVectorStore(
            "hybrid",
            client=QdrantClient(":memory:"),
            enable_hybrid=True,
            sparse_doc_fn=words,
            sparse_query_fn=words,
        )
    from llama_index.vector_stores.postgres import PGVectorStore

    from tests.support.builders.postgres import with_driver

    uri = servers.address("postgres")
    return PGVectorStore(
        connection_string=with_driver(uri, "psycopg2"),
        async_connection_string=with_driver(uri, "asyncpg"),
        table_name=f"hybrid{next(numbers)}",
        embed_dim=16,
        hybrid_search=True,
    )


@pytest.fixture(scope="module")
def index_of(servers):
    """Makes an index of a kind at its first use."""
    made: dict[str, VectorStoreIndex] = {}

    def get(kind: str) -> VectorStoreIndex:
        if kind not in made:
            nodes = [TextNode(id_=node_id(number), text=f"topic {number}") for number in range(N)]
            context = StorageContext.from_defaults(vector_store=make_store(kind, servers))
            made[kind] = VectorStoreIndex(nodes, storage_context=context, embed_model=LlamaIndexWorld())
        return made[kind]

    return get


def told(retriever: Any) -> list[tuple[str, float]]:
    return [(found.node_id, round(found.score, 5)) for found in retriever.retrieve(QUERY)]


def both(index: VectorStoreIndex, mode: str) -> tuple[Any, Any]:
    options = {"similarity_top_k": 5, "sparse_top_k": 4, "vector_store_query_mode": mode}
    return index.as_retriever(**options), NudgeRetriever(index, **options)


@pytest.mark.parametrize("kind", here(KINDS))
def test_every_mode_is_the_frameworks_before_and_after_a_push(kind, index_of):
    index = index_of(kind)
    adapter = embedding_store(index)
    ids = [node_id(number) for number in (1, 11, 20)]
    held = adapter.read(ids)
    vectors = held + 3 * np.array(vector(QUERY), dtype=held.dtype)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    curve = ValidationCurve([0.0], [0.0], "nDCG@10")
    nudge = Nudge(adapter, tuple(ids), adapter.as_stored(vectors), held, 0.1, curve, True, "moved by hand", "none")
    before = {}
    for mode in MODES:
        own, ours = both(index, mode)
        before[mode] = told(own)
        assert before[mode]
        assert told(ours) == before[mode]
    assert nudge.push(force=True).pushed
    for mode in MODES:
        own, ours = both(index, mode)
        assert told(ours) == told(own)
        # Words know nothing of a nudge; vectors do.
        assert (told(ours) == before[mode]) == (mode == "sparse")
    # The best by brute force: the dense part of the index holds the nudge.
    moved = NODES[:N].copy()
    moved[[1, 11, 20]] = nudge.vectors
    query = np.array(vector(QUERY))
    order = np.argsort(-(moved @ query) / np.linalg.norm(moved, axis=1))[:5]
    assert [node for node, _ in told(both(index, "default")[1])] == [node_id(number) for number in order]
    assert rollback(nudge.store).restored == len(ids)
    assert {mode: told(both(index, mode)[1]) for mode in MODES} == before


@pytest.mark.parametrize("mode", MODES[1:])
@pytest.mark.parametrize("kind", here(KINDS))
def test_an_overlay_refuses_modes_that_it_cannot_honour(kind, mode, index_of):
    index = index_of(kind)
    adapter = embedding_store(index)
    held = adapter.read([node_id(1)])
    curve = ValidationCurve([0.0], [0.0], "nDCG@10")
    nudge = Nudge(adapter, (node_id(1),), held, held, 0.1, curve, True, "moved by hand", "none")
    with pytest.raises(ValueError, match=f"an overlay cannot honour the query mode '{mode}'"):
        NudgeRetriever(index, vector_store_query_mode=mode, overlay=nudge)
