"""Retrievers of both frameworks over two versions: the originals until the switch, then the nudged ones, and back."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import langchain_nudge
import numpy as np
import pytest
from langchain_qdrant import QdrantVectorStore
from llama_index.core import VectorStoreIndex
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters
from llama_index.retrievers import nudge as llama_index_nudge
from llama_index.vector_stores.qdrant import QdrantVectorStore as LlamaIndexQdrant
from qdrant_client import models

import nudge_rag
from tests.integrations import test_langchain, test_llama_index

K = 7
EVERY = 4
EVEN = MetadataFilters(filters=[MetadataFilter(key="parity", value="even")])


def behind_an_alias(client):
    """What an application does whose collection was not made under an alias."""
    made = models.CreateAlias(collection_name="world", alias_name="live")
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=made)])
    return "live"


def llama_index(kind, world, folder, servers):
    index = test_llama_index.make_index(kind, world, folder, servers)
    if kind.startswith("qdrant"):
        client = index.vector_store.client
        vector_store = LlamaIndexQdrant(behind_an_alias(client), client=client)
        index = VectorStoreIndex.from_vector_store(vector_store, embed_model=world.llama_index)

    def retriever(filtered=False, overlay=None):
        options = {"filters": EVEN} if filtered else {}
        made = llama_index_nudge.NudgeRetriever(index, similarity_top_k=K, overlay=overlay, scores="store", **options)

        def told(found):
            return [(one.node_id, one.node.get_content(), one.node.metadata["number"], one.score) for one in found]

        async def answer_later(query):
            return told(await made.aretrieve(query))

        return SimpleNamespace(now=lambda query: told(made.retrieve(query)), later=answer_later)

    return SimpleNamespace(
        retriever=retriever,
        own=lambda query: [one.node_id for one in index.as_retriever(similarity_top_k=K).retrieve(query)],
        store=llama_index_nudge.embedding_store(index),
        tune=lambda versions: llama_index_nudge.tune(index, world.pairs, versions=versions, solver="nudge-n"),
    )


def langchain(kind, world, folder, servers):
    vectorstore = test_langchain.make_store(kind, world, folder, servers)
    if kind.startswith("qdrant"):
        alias = behind_an_alias(vectorstore.client)
        vectorstore = QdrantVectorStore(vectorstore.client, alias, world.langchain, validate_collection_config=False)
    if kind == "milvus":
        vectorstore.client.create_alias(vectorstore.collection_name, "live")
        vectorstore = type(vectorstore)(
            world.langchain, collection_name="live", connection_args={"uri": str(folder / "milvus.db")}
        )

    def retriever(filtered=False, overlay=None):
        options = {"filter": test_langchain.even(vectorstore)} if filtered else {}
        made = langchain_nudge.NudgeRetriever(
            vectorstore=vectorstore, k=K, overlay=overlay, score_key="score", **options
        )

        def told(found):
            return [(one.id, one.page_content, int(one.metadata["number"]), one.metadata["score"]) for one in found]

        async def answer_later(query):
            return told(await made.ainvoke(query))

        return SimpleNamespace(now=lambda query: told(made.invoke(query)), later=answer_later)

    def own(query):
        # LanceDB's documents have no ids; the texts name the nodes.
        found = vectorstore.as_retriever(search_kwargs={"k": K}).invoke(query)
        return [world.node_id(int(document.page_content.split()[-1])) for document in found]

    return SimpleNamespace(
        retriever=retriever,
        own=own,
        store=langchain_nudge.embedding_store(vectorstore),
        tune=lambda versions: langchain_nudge.tune(vectorstore, world.pairs, versions=versions, solver="nudge-n"),
    )


SIMILARITIES = {
    "cosine": lambda nodes, query: nodes @ query / np.linalg.norm(nodes, axis=1) / np.linalg.norm(query),
    "dot": lambda nodes, query: nodes @ query,
    "l2": lambda nodes, query: -((nodes - query) ** 2).sum(axis=1),
}


def brute_force(world, vectors, query, similarity, filtered):
    """The best K of the nodes by these vectors, with their texts, numbers and scores."""
    kept = [number for number in sorted(world.numbers) if not filtered or number % 2 == 0]
    nodes = np.array([vectors[world.node_id(number)] for number in kept], dtype=np.float64)
    scores = SIMILARITIES[similarity](nodes, np.array(world.vector(query)))
    best = np.argsort(-scores)[:K]
    return [(world.node_id(kept[at]), f"topic {kept[at]}", kept[at], scores[at]) for at in best]


def assert_equal(found, expected):
    assert [one[:3] for one in found] == [one[:3] for one in expected]
    np.testing.assert_allclose([one[3] for one in found], [one[3] for one in expected], atol=1e-5)


async def assert_serves(app, retrievers, world, vectors):
    """These vectors and no others, by retrievers that were made before, sync and async, and by the framework's own."""
    similarity, queries = app.store.capabilities.similarity, world.queries[::EVERY]
    for filtered, retriever in retrievers.items():
        expected = [brute_force(world, vectors, query, similarity, filtered) for query in queries]
        later = await asyncio.gather(*(retriever.later(query) for query in queries))
        for query, found, right in zip(queries, later, expected, strict=True):
            assert_equal(found, right)
            assert_equal(retriever.now(query), right)
    for query in queries:
        assert app.own(query) == [one[0] for one in brute_force(world, vectors, query, similarity, False)]


BOTH = ("postgres", "lancedb", "qdrant-Cosine", "qdrant-Dot", "faiss", "chroma", "chroma-cosine")
LLAMA_INDEX = [(llama_index, kind) for kind in (*BOTH, "simple", "faiss-map")]
LANGCHAIN = [(langchain, kind) for kind in (*BOTH, "postgres-v2", "in-memory", "milvus", "chroma-ip")]


@pytest.mark.parametrize(
    ("framework", "kind"), [pytest.param(*one, id=f"{one[0].__name__}-{one[1]}") for one in LLAMA_INDEX + LANGCHAIN]
)
async def test_originals_until_the_switch_then_nudged_and_back(framework, kind, world, tmp_path, servers):
    app = framework(kind, world, tmp_path, servers)
    originals = {node: world.vector(text) for node, text, _ in world.rows}
    nudge = app.tune(tmp_path / "versions")
    nudged = originals | dict(zip(nudge.ids, nudge.vectors, strict=True))
    assert all(not np.allclose(originals[node], nudged[node]) for node in nudge.ids)
    retrievers = {filtered: app.retriever(filtered) for filtered in (False, True)}
    overlay = {filtered: app.retriever(filtered, nudge) for filtered in (False, True)}

    await assert_serves(app, retrievers, world, originals)
    with pytest.raises(AssertionError):
        await assert_serves(app, retrievers, world, nudged)
    assert nudge.push(mode="side-by-side").pushed
    await assert_serves(app, retrievers, world, originals)
    gap = not app.store.capabilities.atomic_switch
    assert nudge.switch(accept_gap=gap).nodes == len(nudge.ids)
    await assert_serves(app, retrievers, world, nudged)
    await assert_serves(app, overlay, world, nudged)
    await assert_serves(app, {filtered: app.retriever(filtered) for filtered in (False, True)}, world, nudged)
    assert nudge.rollback().exact
    await assert_serves(app, retrievers, world, originals)

    nudge.switch(accept_gap=gap)
    assert nudge_rag.drop_copies(app.store, tmp_path / "versions") == ("0001",)
    await assert_serves(app, retrievers, world, nudged)
    assert nudge.rollback().exact
    await assert_serves(app, retrievers, world, originals)
