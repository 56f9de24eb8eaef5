"""LangChain's callbacks write what was shown, once a question."""

from __future__ import annotations

import warnings

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_nudge.recorder import RecorderCallback

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
