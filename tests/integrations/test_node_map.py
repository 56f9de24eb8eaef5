"""A nudge that maps all nodes: laid over a store by retrievers of both frameworks, and pushed to it."""

from __future__ import annotations

import numpy as np
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_nudge import NudgeRetriever as LangChainRetriever
from langchain_nudge import embedding_store
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters
from llama_index.retrievers.nudge import NudgeRetriever as LlamaIndexRetriever
from llama_index.retrievers.nudge import embedding_store as llama_index_store

from nudge_rag import Nudge
from nudge_rag.solvers import QueryAdapter, ValidationCurve

CHANGE = np.random.default_rng(3).normal(size=(8, 8)) * 0.4


def mapping_nudge(store, versions, own=None):
    """A map of all nodes; one node has its vector turned round on top."""
    curve = ValidationCurve(np.array([0.0]), np.array([0.0]), "nDCG@10")
    ids = () if own is None else (own,)
    originals = store.read(ids) if ids else np.zeros((0, 8))
    return Nudge(
        store, ids, -originals, originals, 0.1, curve, True, "", "auto", versions, node_map=QueryAdapter(CHANGE)
    )


def best_mapped(store, query, own, count, passing=lambda node_id: True):
    """Ids of the nodes whose mapped vectors, by the equation, are nearest by cosine."""
    (part,) = store.scan(100)
    ids, nodes = part[0], np.asarray(part[1], dtype=np.float64)
    turned = nodes + nodes @ CHANGE
    if own is not None:
        turned[ids.index(own)] = -nodes[ids.index(own)]
    scores = (turned @ query) / np.linalg.norm(turned, axis=1)
    return [ids[row] for row in np.argsort(-scores) if passing(ids[row])][:count]


@pytest.fixture
def langchain():
    texts = [f"text {number}" for number in range(30)]
    model = DeterministicFakeEmbedding(size=8)
    marks = [{"even": number % 2 == 0} for number in range(30)]
    return InMemoryVectorStore.from_texts(texts, model, marks, ids=[str(number) for number in range(30)]), model


def test_langchain_lays_it_over_and_then_answers_as_after_the_push(langchain, tmp_path):
    vectorstore, model = langchain
    store = embedding_store(vectorstore)
    nudge = mapping_nudge(store, tmp_path, own="3")
    wanted = best_mapped(store, np.array(model.embed_query("a question")), "3", 5)
    retriever = LangChainRetriever(vectorstore=vectorstore, k=5, overlay=nudge)
    assert [document.id for document in retriever.invoke("a question")] == wanted
    nudge.push()
    assert [document.id for document in vectorstore.similarity_search("a question", k=5)] == wanted


def test_langchain_filters_under_it(langchain, tmp_path):
    vectorstore, model = langchain
    store = embedding_store(vectorstore)
    nudge = mapping_nudge(store, tmp_path)
    wanted = best_mapped(store, np.array(model.embed_query("a question")), None, 4, lambda name: int(name) % 2 == 0)
    retriever = LangChainRetriever(
        vectorstore=vectorstore,
        overlay=nudge,
        search_kwargs={"k": 4, "filter": lambda document: document.metadata["even"]},
    )
    assert [document.id for document in retriever.invoke("a question")] == wanted


class Questions(BaseEmbedding):
    def _get_text_embedding(self, text: str) -> list[float]:
        return DeterministicFakeEmbedding(size=8).embed_query(text)

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


@pytest.fixture
def index():
    rows = np.random.default_rng(1).normal(size=(30, 8))
    nodes = [
        TextNode(text=f"text {number}", id_=str(number), embedding=row.tolist(), metadata={"even": number % 2})
        for number, row in enumerate(rows)
    ]
    return VectorStoreIndex(nodes, embed_model=Questions())


@pytest.mark.parametrize("own", [None, "3"])
def test_llama_index_lays_it_over_and_then_answers_as_after_the_push(index, own, tmp_path):
    store = llama_index_store(index)
    nudge = mapping_nudge(store, tmp_path, own)
    query = np.array(index._embed_model.get_query_embedding("a question"))
    wanted = best_mapped(store, query, own, 5)
    retriever = LlamaIndexRetriever(index, similarity_top_k=5, overlay=nudge)
    assert [found.node.node_id for found in retriever.retrieve("a question")] == wanted
    nudge.push()
    after = index.as_retriever(similarity_top_k=5).retrieve("a question")
    assert [found.node.node_id for found in after] == wanted


def test_llama_index_filters_under_it(index, tmp_path):
    store = llama_index_store(index)
    query = np.array(index._embed_model.get_query_embedding("a question"))
    wanted = best_mapped(store, query, None, 4, lambda name: int(name) % 2 == 1)
    retriever = LlamaIndexRetriever(
        index,
        similarity_top_k=4,
        overlay=mapping_nudge(store, tmp_path),
        filters=MetadataFilters(filters=[MetadataFilter(key="even", value=1)]),
    )
    assert [found.node.node_id for found in retriever.retrieve("a question")] == wanted


def test_a_retriever_of_the_framework_gains_by_a_push(langchain, tmp_path):
    vectorstore, _ = langchain
    store = embedding_store(vectorstore)
    nudge = mapping_nudge(store, tmp_path)
    query = np.random.default_rng(0).normal(size=8)
    wanted = best_mapped(store, query, None, 5)
    nudge.push()
    found = vectorstore.similarity_search_by_vector(query.tolist(), k=5)
    assert [document.id for document in found] == wanted
