"""Both frameworks' NudgeRetriever serves two rankings interleaved, and the recorder keeps the teams."""

from __future__ import annotations

import pickle

import langchain_nudge
import llama_index.retrievers.nudge as llama_nudge
import numpy as np
import pytest
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core import VectorStoreIndex
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.schema import TextNode
from llama_index_instrumentation.dispatcher import instrument_tags

from nudge_rag import LabeledPairs, Split
from nudge_rag.feedback.interleaving import BOTH, LIVE, NEW, takes_part
from nudge_rag.feedback.recorder import Recorder

# The question is nearest to n0, the labels say n7.
NODES = {f"n{row}": [np.cos(0.1 * row), np.sin(0.1 * row)] for row in range(10)}
QUESTION = [float(np.cos(0.03)), float(np.sin(0.03))]
PAIRS = LabeledPairs.from_pairs([(f"question {number}", "n7") for number in range(12)])
SPLIT = Split(*(PAIRS.subset(list(PAIRS.queries)[start : start + 4]) for start in (0, 4, 8)))


class LangChainModel(Embeddings):
    def embed_documents(self, texts):
        return [NODES[text] for text in texts]

    def embed_query(self, text):
        return QUESTION


class LlamaIndexModel(BaseEmbedding):
    def _get_text_embedding(self, text):
        return NODES[text]

    def _get_query_embedding(self, query):
        return QUESTION

    async def _aget_query_embedding(self, query):
        return QUESTION


def langchain():
    store = InMemoryVectorStore.from_texts(list(NODES), LangChainModel(), ids=list(NODES))
    nudge = langchain_nudge.tune(store, SPLIT, solver="nudge-n")

    def retriever(**options):
        return langchain_nudge.NudgeRetriever(vectorstore=store, k=4, **options)

    def ask(given, recorder, user=None):
        metadata = {} if user is None else {"nudge_user_id": user}
        callbacks = [langchain_nudge.RecorderCallback(recorder)]
        return [document.id for document in given.invoke("q", config={"callbacks": callbacks, "metadata": metadata})]

    return retriever, nudge, ask


def llama_index():
    index = VectorStoreIndex([TextNode(text=node, id_=node) for node in NODES], embed_model=LlamaIndexModel())
    nudge = llama_nudge.tune(index, SPLIT, solver="nudge-n")

    def retriever(**options):
        return llama_nudge.NudgeRetriever(index, similarity_top_k=4, **options)

    def ask(given, recorder, user=None):
        stop = llama_nudge.record_retrievals(recorder)
        try:
            with instrument_tags({} if user is None else {"nudge.user_id": user}):
                return [found.node_id for found in given.retrieve("q")]
        finally:
            stop()

    return retriever, nudge, ask


@pytest.fixture(params=[langchain, llama_index], ids=["LangChain", "LlamaIndex"])
def framework(request):
    return request.param()


@pytest.fixture
def recorder(tmp_path):
    recorder = Recorder(tmp_path / "feedback.sqlite3")
    yield recorder
    assert recorder.lost == 0, recorder.last_error
    recorder.close()


def test_answers_are_drafted_from_both_rankings(framework, recorder):
    retriever, nudge, ask = framework
    live, new = ask(retriever(), recorder), ask(retriever(overlay=nudge), recorder)
    assert live[0] == "n0" and new[0] == "n7" != live[0]
    both = retriever(interleave=nudge)
    answers = [ask(both, recorder) for _ in range(20)]
    recorded = recorder.log().retrievals[2:]
    for answer, retrieval in zip(answers, recorded, strict=True):
        assert [node.node_id for node in retrieval.shown] == answer and len(answer) == 4
        for node in retrieval.shown:
            assert node.team in (LIVE, NEW, BOTH)
            assert node.node_id in {LIVE: live, NEW: new, BOTH: [*live, *new]}[node.team]
        assert {retrieval.shown[0].team, retrieval.shown[1].team} == {LIVE, NEW}
    assert {answer[0] for answer in answers} == {"n0", "n7"}
    for retrieval in recorded:
        recorder.feedback(retrieval.query_id, "n7", "click")
    result = recorder.compare()
    assert (result.winner, result.wins, result.n_queries) == (NEW, 20, 20)


def test_a_share_of_the_users(framework, recorder):
    retriever, nudge, ask = framework
    both = retriever(interleave=nudge, interleave_share=0.5)
    users = [f"user {number}" for number in range(12)]
    for user in [*users, None]:
        ask(both, recorder, user)
    interleaved = {retrieval.user for retrieval in recorder.log().retrievals if retrieval.shown[0].team is not None}
    assert interleaved == {user for user in users if takes_part(user, 0.5, "interleave")}
    assert 0 < len(interleaved) < len(users)
    with pytest.raises(ValueError, match="interleave_share"):
        retriever(interleave=nudge, interleave_share=2)


async def test_async_answers_are_drafted_as_well(tmp_path):
    recorder = Recorder(tmp_path / "feedback.sqlite3")
    retriever, nudge, _ = langchain()
    callbacks = [langchain_nudge.RecorderCallback(recorder)]
    await retriever(interleave=nudge).ainvoke("q", config={"callbacks": callbacks})
    retriever, nudge, _ = llama_index()
    stop = llama_nudge.record_retrievals(recorder)
    await retriever(interleave=nudge).aretrieve("q")
    stop()
    assert [{node.team for node in found.shown[:2]} for found in recorder.log().retrievals] == [{LIVE, NEW}] * 2
    recorder.close()


def test_a_langchain_retriever_that_is_changed_or_pickled(recorder):
    retriever, nudge, ask = langchain()
    both = retriever(interleave=nudge)
    assert len(ask(both, recorder)) == 4
    both.k = 2
    assert set(ask(both, recorder)) == {"n0", "n7"}
    assert both._rival is not None
    assert both.__getstate__()["__pydantic_private__"]["_rival"] is None
    assert pickle.dumps(both.interleave.vectors)
    both.interleave = None
    assert ask(both, recorder)[0] == "n0"
