"""LangChain's callbacks write what was shown, once a question."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_nudge import live_version, rollback, tune
from langchain_nudge.recorder import RecorderCallback

from nudge_rag import LabeledPairs
from nudge_rag.feedback.log import ShownNode
from nudge_rag.feedback.recorder import Recorder


class Fixed(BaseRetriever):
    """Finds the same documents for every question."""

    ids: str
    fails: bool = False

    def _get_relevant_documents(self, query, *, run_manager):
        if self.fails:
            raise RuntimeError("no database")
        return [Document(id=node, page_content=f"text of {node}") for node in self.ids]


class Both(BaseRetriever):
    """Asks two retrievers and keeps the last documents of each, as ensembles and compressors do."""

    def _get_relevant_documents(self, query, *, run_manager):
        config = {"callbacks": run_manager.get_child()}
        chain = RunnableLambda(lambda question: Fixed(ids="cd").invoke(question, config=config))
        return [Fixed(ids="ab").invoke(query, config=config)[-1], chain.invoke(query, config=config)[-1]]


class NextDoor(Embeddings):
    """Puts every question nearer to the node after the one that answers it."""

    def embed_documents(self, texts):
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text):
        row = int(text.split()[1])
        vector = np.eye(6)[row]
        return list(vector if text.startswith("node") else vector + 1.2 * np.eye(6)[(row + 1) % 6])


@pytest.fixture
def recorder(tmp_path):
    recorder = Recorder(tmp_path / "feedback.sqlite3")
    yield recorder
    assert recorder.lost == 0, recorder.last_error
    recorder.close()


@pytest.fixture
def config(recorder):
    return {"callbacks": [RecorderCallback(recorder)]}


def shown(recorder):
    return [(r.query, [node.node_id for node in r.shown]) for r in recorder.log().retrievals]


def test_a_retriever(recorder, config):
    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=8))
    store.add_texts(["one", "two"], ids=["a", "b"])
    metadata = {"nudge_query_id": "mine", "nudge_user_id": "ann", "nudge_session_id": "s"}
    documents = store.as_retriever().invoke("cancel", config={**config, "metadata": metadata})
    retrieval = recorder.log().retrievals[0]
    assert (retrieval.query_id, retrieval.query, retrieval.user, retrieval.session) == ("mine", "cancel", "ann", "s")
    assert [node.node_id for node in retrieval.shown] == [document.id for document in documents]
    assert recorder.last_query_id == "mine"


async def test_async_retrievers(recorder, config):
    await Fixed(ids="ab").ainvoke("cancel", config={**config, "metadata": {"nudge_query_id": "mine"}})
    assert shown(recorder) == [("cancel", ["a", "b"])]
    assert recorder.feedback("mine", "b", "click")
    assert recorder.log().retrievals[0].query_id == recorder.log().feedback[0].query_id == "mine"


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_retrievers_within_retrievers_count_once(recorder, config, asynchronous):
    if asynchronous:
        await Both().ainvoke("cancel", config=config)
    else:
        Both().invoke("cancel", config=config)
    assert shown(recorder) == [("cancel", ["b", "d"])]


def test_what_the_chain_kept_was_shown(recorder, config):
    rerank = RunnableLambda(lambda documents: documents[::-1][:2])
    chain = RunnablePassthrough.assign(
        context=RunnableLambda(lambda given: given["input"]) | Fixed(ids="abcd") | rerank
    )
    chain.invoke({"input": "cancel"}, config=config)
    assert shown(recorder) == [("cancel", ["d", "c"])]


def test_documents_without_an_id(recorder):
    class Nameless(BaseRetriever):
        def _get_relevant_documents(self, query, *, run_manager):
            return [
                Document(page_content="one", metadata={"key": 7}),
                Document(page_content="two", metadata={"key": 8}),
            ]

    Nameless().invoke("a", config={"callbacks": [RecorderCallback(recorder)]})
    Nameless().invoke("b", config={"callbacks": [RecorderCallback(recorder, node_id=lambda d: d.metadata["key"])]})
    first, second = recorder.log().retrievals
    assert first.shown == (ShownNode(None, text="one"), ShownNode(None, text="two"))
    assert second.shown == (ShownNode("7"), ShownNode("8"))


def test_scores_that_a_retriever_or_a_reranker_writes_are_kept(recorder, config):
    metadata = {
        "a": {"score": 0.25},
        "b": {"score": 0.25, "relevance_score": 0.75},  # the reranker's, which came last
        "c": {"score": "high"},
        "d": {"score": float("nan")},
        "e": {"score": 10**400},
        "f": {},
        "g": {"score": True, "relevance_score": np.float32(0.5)},
    }

    class Scored(BaseRetriever):
        def _get_relevant_documents(self, query, *, run_manager):
            return [Document(id=node, page_content="text", metadata=fields) for node, fields in metadata.items()]

    Scored().invoke("cancel", config=config)
    assert {node.node_id: node.score for node in recorder.log().retrievals[0].shown} == {
        "a": 0.25,
        "b": 0.75,
        "c": None,
        "d": None,
        "e": None,
        "f": None,
        "g": 0.5,
    }


def test_two_retrievers_of_one_chain_under_one_query_id(recorder, config):
    chain = RunnablePassthrough.assign(
        contracts=lambda inputs, config: Fixed(ids="ab").invoke(inputs["question"], config=config),
        invoices=lambda inputs, config: Fixed(ids="cd").invoke(inputs["question"], config=config),
    )
    chain.invoke({"question": "cancel"}, config={**config, "metadata": {"nudge_query_id": "mine"}})
    for node in "bd":
        assert recorder.feedback("mine", node, "thumbs_up")
    shown_by = {
        retrieval.query_id: [node.node_id for node in retrieval.shown] for retrieval in recorder.log().retrievals
    }
    assert shown_by.keys() == {"mine", "mine#2"}  # the two run side by side, either may be first
    assert all(event.node_id in shown_by[event.query_id] for event in recorder.log().feedback)
    assert dict(recorder.log().to_pairs().qrels["q0"]) == {"b": 1.0, "d": 1.0}


def test_the_live_version_is_written_with_each_retrieval(tmp_path, monkeypatch):
    monkeypatch.setattr("nudge_rag.feedback.live_version.SECONDS_A_READ", 0.0)
    store = InMemoryVectorStore(NextDoor())
    store.add_texts([f"node {row}" for row in range(6)], ids=[f"n{row}" for row in range(6)])
    recorder = Recorder(tmp_path / "feedback.sqlite3", version=lambda: live_version(store, tmp_path / "v"))
    retriever = store.as_retriever().with_config(callbacks=[RecorderCallback(recorder)])
    pairs = LabeledPairs.from_pairs([(f"question {row} {form}", f"n{row}") for row in range(6) for form in range(4)])
    retriever.invoke("question 0 before")
    assert tune(store, pairs, versions=tmp_path / "v", solver="nudge-n").push().pushed
    retriever.invoke("question 0 between")
    rollback(store, tmp_path / "v")
    retriever.invoke("question 0 after")
    found = {retrieval.query.split()[-1]: retrieval.version for retrieval in recorder.log().retrievals}
    assert found == {"before": None, "between": "0001", "after": None}
    assert recorder.lost == 0, recorder.last_error


def test_a_failed_retrieval_leaves_no_trace(recorder, config):
    with pytest.raises(RuntimeError):
        Fixed(ids="ab", fails=True).invoke("cancel", config=config)
    Fixed(ids="ab").invoke("pay", config=config)
    assert shown(recorder) == [("pay", ["a", "b"])]
    handler = config["callbacks"][0]
    assert not handler._asked and not handler._tracker._spans


@pytest.mark.parametrize("broken", ["redact", "node_id"])
def test_a_broken_recorder_never_raises_and_is_seen(tmp_path, broken):
    recorder = Recorder(tmp_path / "feedback.sqlite3", redact=(lambda text: 1 / 0) if broken == "redact" else None)
    handler = RecorderCallback(recorder, node_id=(lambda document: 1 / 0) if broken == "node_id" else None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len(Fixed(ids="abc").invoke("cancel", config={"callbacks": [handler]})) == 3
    assert (recorder.lost, len(caught)) == (1, 1)
    assert "ZeroDivisionError" in str(recorder.check())
    recorder.close()
