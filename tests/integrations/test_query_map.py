"""``reach="queries"`` through the frameworks: retrievers and embedding wrappers map queries alike."""

from __future__ import annotations

import asyncio
import pickle
from functools import partial

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_nudge import NudgeEmbeddings
from langchain_nudge import NudgeRetriever as LangChainRetriever
from langchain_nudge import tune as tune_langchain
from llama_index.core import VectorStoreIndex
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.schema import TextNode
from llama_index.retrievers.nudge import NudgeEmbedding
from llama_index.retrievers.nudge import NudgeRetriever as LlamaIndexRetriever
from llama_index.retrievers.nudge import tune as tune_llama_index

from nudge_rag import LabeledPairs, rollback
from nudge_rag.solvers import QueryAdapter

RNG = np.random.default_rng(0)
N, D, LABELLED, PER_NODE = 100, 12, 50, 6
NODES = RNG.normal(size=(N, D))
NODES /= np.linalg.norm(NODES, axis=1, keepdims=True)
TURNED = 0.4 * np.eye(D) + 0.6 * np.linalg.qr(RNG.normal(size=(D, D)))[0]
TEXTS = [f"query {number} of n{node}" for node in range(LABELLED) for number in range(PER_NODE)]
QUERIES = (NODES[np.repeat(np.arange(LABELLED), PER_NODE)] + 0.08 * RNG.normal(size=(len(TEXTS), D))) @ TURNED
VECTOR_OF = dict(zip(TEXTS, QUERIES / np.linalg.norm(QUERIES, axis=1, keepdims=True), strict=True))
VECTOR_OF |= {f"node {row}": vector for row, vector in enumerate(NODES)}
PAIRS = LabeledPairs.from_pairs((text, text.rpartition(" ")[2]) for text in TEXTS)
OPTIONS = {"reach": "queries", "metrics": ["MRR@10"]}


class Model(Embeddings):
    def embed_documents(self, texts):
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text):
        return VECTOR_OF[text].tolist()


class EmbedModel(BaseEmbedding):
    def _get_text_embedding(self, text):
        return VECTOR_OF[text].tolist()

    _get_query_embedding = _get_text_embedding

    async def _aget_query_embedding(self, text):
        return self._get_query_embedding(text)


def nearest(adapter, vectors, text, k=3):
    """Ids of the best nodes by hand: map, then cosines."""
    query = VECTOR_OF[text] + adapter.change.astype(float) @ VECTOR_OF[text]
    scores = vectors @ query / np.linalg.norm(vectors, axis=1)
    return [f"n{row}" for row in np.argsort(-scores)[:k]]


def moved(nudge):
    vectors = NODES.copy()
    vectors[[int(node_id[1:]) for node_id in nudge.ids]] = nudge.vectors
    return vectors


def test_langchain():
    vectorstore = InMemoryVectorStore(Model())
    vectorstore.add_documents([Document(id=f"n{row}", page_content=f"node {row}") for row in range(N)])
    nudge = tune_langchain(vectorstore, PAIRS, **OPTIONS)
    assert nudge.adapter is not None
    assert nudge.improves
    plain, overlaid = (
        LangChainRetriever(vectorstore=vectorstore, k=3),
        LangChainRetriever(vectorstore=vectorstore, k=3, overlay=nudge),
    )
    before = [document.id for document in plain.invoke(TEXTS[0])]
    assert before == [document.id for document in vectorstore.similarity_search(TEXTS[0], k=3)]
    with pytest.warns(UserWarning, match="queries must pass nudge.adapter"):
        nudge.push()
    served = LangChainRetriever(vectorstore=vectorstore, k=3)
    wrapped = LangChainRetriever(vectorstore=vectorstore, k=3, query_embeddings=NudgeEmbeddings(Model(), vectorstore))
    for text in TEXTS[::25]:
        expected = nearest(nudge.adapter, moved(nudge), text)
        for retriever in (overlaid, served, wrapped):
            assert [document.id for document in retriever.invoke(text)] == expected
            assert [document.id for document in asyncio.run(retriever.ainvoke(text))] == expected
        mapped = NudgeEmbeddings(Model(), nudge).embed_query(text)
        found = vectorstore.similarity_search_by_vector(mapped, k=3)
        assert [document.id for document in found] == expected
    rollback(nudge.store, nudge.versions)
    after = LangChainRetriever(vectorstore=vectorstore, k=3)
    assert [document.id for document in after.invoke(TEXTS[0])] == before


def test_llama_index():
    index = VectorStoreIndex(
        [TextNode(id_=f"n{row}", text=f"node {row}") for row in range(N)], embed_model=EmbedModel()
    )
    nudge = tune_llama_index(index, PAIRS, **OPTIONS)
    assert nudge.adapter is not None
    overlaid = LlamaIndexRetriever(index, similarity_top_k=3, overlay=nudge)
    before = [found.node_id for found in LlamaIndexRetriever(index, similarity_top_k=3).retrieve(TEXTS[0])]
    assert before == [found.node_id for found in index.as_retriever(similarity_top_k=3).retrieve(TEXTS[0])]
    with pytest.warns(UserWarning, match="queries must pass nudge.adapter"):
        nudge.push()
    served = LlamaIndexRetriever(index, similarity_top_k=3)
    model = NudgeEmbedding(EmbedModel(), index)
    wrapped = LlamaIndexRetriever(index, similarity_top_k=3, embed_model=model)
    own = index.as_retriever(similarity_top_k=3, embed_model=model)
    for text in TEXTS[::25]:
        expected = nearest(nudge.adapter, moved(nudge), text)
        for retriever in (overlaid, served, wrapped, own):
            assert [found.node_id for found in retriever.retrieve(text)] == expected
            assert [found.node_id for found in asyncio.run(retriever.aretrieve(text))] == expected
    rollback(nudge.store, nudge.versions)
    after = LlamaIndexRetriever(index, similarity_top_k=3)
    assert [found.node_id for found in after.retrieve(TEXTS[0])] == before


def langchain_application():
    vectorstore = InMemoryVectorStore(Model())
    vectorstore.add_documents([Document(id=f"n{row}", page_content=f"node {row}") for row in range(N)])
    plain = partial(tune_langchain, vectorstore, PAIRS)
    vectorstore.embedding = NudgeEmbeddings(Model(), vectorstore)

    def answers(text, **options):
        found = LangChainRetriever(vectorstore=vectorstore, k=3, **options).invoke(text)
        return [document.id for document in found]

    return plain, answers


def llama_index_application():
    nodes = [TextNode(id_=f"n{row}", text=f"node {row}") for row in range(N)]
    index = VectorStoreIndex(nodes, embed_model=EmbedModel())
    index._embed_model = NudgeEmbedding(EmbedModel(), index)

    def answers(text, **options):
        found = LlamaIndexRetriever(index, similarity_top_k=3, **options).retrieve(text)
        return [node.node_id for node in found]

    return partial(tune_llama_index, index, PAIRS), answers


@pytest.mark.parametrize("application", [langchain_application, llama_index_application])
def test_wrappers_that_are_there_see_what_their_process_pushes_and_undoes(application):
    tune, answers = application()
    nudge = tune(**OPTIONS)
    still, vectors = QueryAdapter(np.zeros((D, D))), NODES
    for _ in range(2):
        for text in TEXTS[::50]:
            assert answers(text) == nearest(still, vectors, text)
        with pytest.warns(UserWarning, match="queries must pass nudge.adapter"):
            nudge.push()
        for text in TEXTS[::50]:
            assert answers(text) == nearest(nudge.adapter, moved(nudge), text)
        rollback(nudge.store, nudge.versions)


def test_retrievers_that_are_there_see_what_their_process_pushes_and_undoes():
    vectorstore = InMemoryVectorStore(Model())
    vectorstore.add_documents([Document(id=f"n{row}", page_content=f"node {row}") for row in range(N)])
    index = VectorStoreIndex(
        [TextNode(id_=f"n{row}", text=f"node {row}") for row in range(N)], embed_model=EmbedModel()
    )
    langchain, llama_index = LangChainRetriever(vectorstore=vectorstore, k=3), LlamaIndexRetriever(index, 3)
    for tuned, answer in (
        (tune_langchain(vectorstore, PAIRS, **OPTIONS), lambda text: [one.id for one in langchain.invoke(text)]),
        (tune_llama_index(index, PAIRS, **OPTIONS), lambda text: [one.node_id for one in llama_index.retrieve(text)]),
    ):
        before = answer(TEXTS[0])
        with pytest.warns(UserWarning, match="queries must pass nudge.adapter"):
            tuned.push()
        assert answer(TEXTS[0]) == nearest(tuned.adapter, moved(tuned), TEXTS[0]) != before
        rollback(tuned.store, tuned.versions)
        assert answer(TEXTS[0]) == before


@pytest.mark.parametrize("application", [langchain_application, llama_index_application])
def test_an_overlay_is_served_by_its_own_map_whatever_the_application_embeds_by(application):
    tune, answers = application()
    nudge = tune(**OPTIONS)
    assert nudge.adapter is not None
    still = QueryAdapter(np.zeros((D, D)))
    for text in TEXTS[::25]:
        assert answers(text, overlay=nudge) == nearest(nudge.adapter, moved(nudge), text)
    with pytest.warns(UserWarning, match="queries must pass nudge.adapter"):
        nudge.push()
    unmapped = tune(solver="nudge-n", metrics=["MRR@10"])
    for text in TEXTS[::25]:
        assert answers(text) == nearest(nudge.adapter, moved(nudge), text)
        assert answers(text, overlay=unmapped) == nearest(still, moved(unmapped), text)


def test_documents_are_embedded_as_they_are():
    adapter = QueryAdapter(RNG.normal(size=(D, D)))
    assert NudgeEmbeddings(Model(), adapter).embed_documents(["node 1"]) == Model().embed_documents(["node 1"])
    wrapped = NudgeEmbedding(EmbedModel(), adapter)
    assert wrapped.get_text_embedding("node 1") == EmbedModel().get_text_embedding("node 1")
    assert wrapped.get_query_embedding(TEXTS[0]) == NudgeEmbeddings(Model(), adapter).embed_query(TEXTS[0])


def test_sources_that_are_none():
    with pytest.raises(TypeError, match="is not supported"):
        NudgeEmbeddings(Model(), 3)
    with pytest.raises(TypeError):
        NudgeEmbedding(EmbedModel(), 3)


def test_adapters_are_pickled():
    adapter = QueryAdapter(RNG.normal(size=(D, D)))
    assert pickle.loads(pickle.dumps(adapter)).change.tobytes() == adapter.change.tobytes()
