"""A nudge that maps all nodes is pushed, not laid over a store by a retriever."""

from __future__ import annotations

import numpy as np
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_nudge import NudgeRetriever as LangChainRetriever
from langchain_nudge import embedding_store
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.retrievers.nudge import NudgeRetriever as LlamaIndexRetriever

from nudge_rag import Nudge
from nudge_rag.solvers import QueryAdapter, ValidationCurve
from tests.support.builders.common import LlamaIndexEmbedding

TOLD = "this nudge maps all nodes of the store, which a retriever cannot lay over it"


def mapping_nudge(store):
    curve = ValidationCurve(np.array([0.0]), np.array([0.0]), "nDCG@10")
    none = np.zeros((0, 8))
    return Nudge(store, (), none, none, 0.1, curve, True, "", "auto", node_map=QueryAdapter(np.full((8, 8), 0.1)))


def test_langchain_refuses_to_lay_it_over(tmp_path):
    vectorstore = InMemoryVectorStore.from_texts(["a", "b"], DeterministicFakeEmbedding(size=8))
    nudge = mapping_nudge(embedding_store(vectorstore))
    with pytest.raises(ValueError, match=TOLD):
        LangChainRetriever(vectorstore=vectorstore, k=1, overlay=nudge)


def test_llama_index_refuses_to_lay_it_over():
    index = VectorStoreIndex([TextNode(text="a"), TextNode(text="b")], embed_model=LlamaIndexEmbedding())
    with pytest.raises(ValueError, match=TOLD):
        LlamaIndexRetriever(index, overlay=mapping_nudge(index.vector_store))


def test_a_retriever_of_the_framework_gains_by_a_push(tmp_path):
    vectorstore = InMemoryVectorStore.from_texts([f"text {n}" for n in range(30)], DeterministicFakeEmbedding(size=8))
    store = embedding_store(vectorstore)
    nudge = mapping_nudge(store)
    ids, rows = zip(*[(ids, rows) for ids, rows in store.scan(100)], strict=True)
    turned = rows[0] + rows[0] @ np.full((8, 8), 0.1)
    query = np.random.default_rng(0).normal(size=8)
    best = np.argsort(-(turned @ query) / np.linalg.norm(turned, axis=1))[:5]
    object.__setattr__(nudge, "versions", tmp_path)
    nudge.push()
    found = vectorstore.similarity_search_by_vector(query.tolist(), k=5)
    assert [document.id for document in found] == [ids[0][row] for row in best]
