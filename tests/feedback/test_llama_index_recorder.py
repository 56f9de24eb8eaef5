"""LlamaIndex's instrumentation writes what was shown, once a question."""

from __future__ import annotations

import warnings

import pytest
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent
from llama_index.core.llms.mock import MockLLM
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine, SubQuestionQueryEngine
from llama_index.core.question_gen.types import SubQuestion
from llama_index.core.retrievers import BaseRetriever, QueryFusionRetriever
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.tools import QueryEngineTool
from llama_index.retrievers.nudge.recorder import record_retrievals
from llama_index_instrumentation.dispatcher import instrument_tags

from nudge_rag.feedback.recorder import Recorder

dispatcher = get_dispatcher(__name__)


class Fixed(BaseRetriever):
    """Finds the same nodes for every question."""

    def __init__(self, ids, fails=False):
        self.nodes = [
            NodeWithScore(node=TextNode(text=f"text of {node}", id_=node), score=1 - n / 10)
            for n, node in enumerate(ids)
        ]
        self.fails = fails
        super().__init__()

    def _retrieve(self, query_bundle):
        if self.fails:
            raise RuntimeError("no database")
        return list(self.nodes)


class Reverse(BaseNodePostprocessor):
    """A reranker that keeps the last two nodes, in reverse, as LlamaIndex's own rerankers report it."""

    def _postprocess_nodes(self, nodes, query_bundle=None):
        kept = nodes[::-1][:2]
        dispatcher.event(ReRankEndEvent(nodes=kept))
        return kept


@pytest.fixture
def recorder(tmp_path):
    recorder = Recorder(tmp_path / "feedback.sqlite3")
    stop = record_retrievals(recorder)
    yield recorder
    stop()
    assert recorder.lost == 0, recorder.last_error
    recorder.close()


def shown(recorder):
    return [(r.query, [node.node_id for node in r.shown]) for r in recorder.log().retrievals]


def test_a_retriever(recorder):
    index = VectorStoreIndex([TextNode(text="t", id_="a")], embed_model=MockEmbedding(8))
    with instrument_tags({"nudge.query_id": "mine", "nudge.user_id": "ann"}):
        index.as_retriever().retrieve("cancel")
    retrieval = recorder.log().retrievals[0]
    assert (retrieval.query_id, retrieval.query, retrieval.user) == ("mine", "cancel", "ann")
    assert retrieval.shown[0].node_id == "a" and retrieval.shown[0].score == pytest.approx(1)
    assert recorder.last_query_id == "mine"


async def test_async_retrievers(recorder):
    await Fixed("abc").aretrieve("cancel")
    assert shown(recorder) == [("cancel", ["a", "b", "c"])]


@pytest.mark.parametrize("use_async", [False, True])
def test_retrievers_within_retrievers_count_once(recorder, use_async):
    fusion = QueryFusionRetriever(
        [Fixed("abc"), Fixed("cde")], llm=MockLLM(), num_queries=1, similarity_top_k=4, use_async=use_async
    )
    nodes = fusion.retrieve("cancel")
    assert shown(recorder) == [("cancel", [node.node.node_id for node in nodes])]


def test_what_a_reranker_kept_was_shown(recorder):
    engine = RetrieverQueryEngine.from_args(Fixed("abcd"), llm=MockLLM(), node_postprocessors=[Reverse()])
    engine.query("cancel")
    assert shown(recorder) == [("cancel", ["d", "c"])]


def test_a_reranker_called_by_hand(recorder):
    nodes = Fixed("abcd").retrieve("cancel")
    Reverse().postprocess_nodes(nodes, query_str="cancel")
    assert shown(recorder) == [("cancel", ["d", "c"])]
    Reverse().postprocess_nodes(Fixed("xyz").nodes, query_str="other")
    assert shown(recorder) == [("cancel", ["d", "c"])]


def test_what_the_response_kept_was_shown(recorder):
    cutoff = SimilarityPostprocessor(similarity_cutoff=0.85)
    RetrieverQueryEngine.from_args(Fixed("abcd"), llm=MockLLM(), node_postprocessors=[cutoff]).query("cancel")
    assert shown(recorder) == [("cancel", ["a", "b"])]


def test_a_failed_retrieval_leaves_no_trace(recorder):
    with pytest.raises(RuntimeError):
        Fixed("ab", fails=True).retrieve("cancel")
    Fixed("ab").retrieve("pay")
    assert shown(recorder) == [("pay", ["a", "b"])]


def test_each_sub_question_keeps_its_own_nodes(recorder):
    class Generator:
        def generate(self, tools, query):
            return [SubQuestion(sub_question=f"about {tool.name}", tool_name=tool.name) for tool in tools]

        def _get_prompt_modules(self):
            return {}

        def get_prompts(self):
            return {}

    tools = [
        QueryEngineTool.from_defaults(
            RetrieverQueryEngine.from_args(Fixed(ids), llm=MockLLM(), node_postprocessors=[Reverse()]),
            name=ids,
            description=ids,
        )
        for ids in ("abc", "xyz")
    ]
    engine = SubQuestionQueryEngine.from_defaults(
        tools, llm=MockLLM(), question_gen=Generator(), use_async=False, verbose=False
    )
    engine.query("both")
    assert shown(recorder) == [("about abc", ["c", "b"]), ("about xyz", ["z", "y"])]


def test_a_broken_recorder_never_raises_and_is_seen(tmp_path):
    recorder = Recorder(tmp_path / "feedback.sqlite3", redact=lambda text: 1 / 0)
    stop = record_retrievals(recorder)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len(Fixed("abc").retrieve("cancel")) == 3
    stop()
    assert (recorder.lost, len(caught)) == (1, 1)
    assert "ZeroDivisionError" in str(recorder.check())
    recorder.close()


def test_stopping(recorder):
    other = Recorder(recorder.path.with_name("other.sqlite3"))
    record_retrievals(other)()
    Fixed("a").retrieve("cancel")
    assert shown(other) == []
    assert shown(recorder) == [("cancel", ["a"])]
    other.close()


def test_nothing_is_kept_of_traces_that_ended(tmp_path):
    recorder = Recorder(tmp_path / "feedback.sqlite3")
    stop = record_retrievals(recorder)
    handler = get_dispatcher().event_handlers[-1]
    for _ in range(20):
        RetrieverQueryEngine.from_args(Fixed("abcd"), llm=MockLLM(), node_postprocessors=[Reverse()]).query("cancel")
    stop()
    assert not handler._tracker._spans
    recorder.close()
