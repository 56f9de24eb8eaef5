"""A retriever whose store's history cannot be read: an error at its start, unless it is told to serve all the same."""

from __future__ import annotations

import shutil

import pytest
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_nudge import NudgeEmbeddings
from langchain_nudge import NudgeRetriever as LangChainRetriever
from langchain_nudge import tune as tune_langchain
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.retrievers.nudge import NudgeEmbedding
from llama_index.retrievers.nudge import NudgeRetriever as LlamaIndexRetriever
from llama_index.retrievers.nudge import tune as tune_llama_index

from nudge_rag import JournalError
from nudge_rag.stores import MappingStore
from nudge_rag.tuning.adapters import LiveAdapter
from tests.integrations.test_query_map import OPTIONS, PAIRS, TEXTS, EmbedModel, Model, N, moved, nearest


class LangChain:
    """A store in memory, its retriever and its embedding wrapper."""

    def __init__(self):
        self.store = InMemoryVectorStore(Model())
        self.store.add_documents([Document(id=f"n{row}", page_content=f"node {row}") for row in range(N)])

    def tune(self, versions):
        return tune_langchain(self.store, PAIRS, versions=versions, **OPTIONS)

    def ask(self, text, **options):
        return [found.id for found in LangChainRetriever(vectorstore=self.store, k=3, **options).invoke(text)]

    def wrap(self, **options):
        return NudgeEmbeddings(Model(), self.store, **options).embed_query(TEXTS[0])


class LlamaIndex:
    """A store in memory, its retriever and its embedding wrapper."""

    def __init__(self):
        nodes = [TextNode(id_=f"n{row}", text=f"node {row}") for row in range(N)]
        self.store = VectorStoreIndex(nodes, embed_model=EmbedModel())

    def tune(self, versions):
        return tune_llama_index(self.store, PAIRS, versions=versions, **OPTIONS)

    def ask(self, text, **options):
        retriever = LlamaIndexRetriever(self.store, similarity_top_k=3, **options)
        return [found.node_id for found in retriever.retrieve(text)]

    def wrap(self, **options):
        return NudgeEmbedding(EmbedModel(), self.store, **options).get_query_embedding(TEXTS[0])


@pytest.fixture(params=[LangChain, LlamaIndex])
def application(request):
    return request.param()


@pytest.fixture
def nudge(application, tmp_path):
    """A nudge with a map that is live, and whose history is in a folder that the store names."""
    nudge = application.tune(tmp_path / "versions")
    with pytest.warns(UserWarning, match="queries must pass nudge.adapter"):
        nudge.push()
    return nudge


def test_the_folder_that_the_store_names_is_found(application, nudge):
    assert application.ask(TEXTS[0]) == nearest(nudge.adapter, moved(nudge), TEXTS[0])
    assert application.wrap() == application.wrap(versions=nudge.versions)


def test_a_retriever_of_a_history_out_of_reach_does_not_start(application, nudge, tmp_path):
    shutil.move(tmp_path / "versions", tmp_path / "moved")
    for use in (lambda: application.ask(TEXTS[0]), application.wrap):
        with pytest.raises(JournalError, match=r"could not be read: .*versions.*on_unreadable='serve'"):
            use()
    # Told where it is, it is served with the map.
    found = application.ask(TEXTS[0], versions=tmp_path / "moved")
    assert found == nearest(nudge.adapter, moved(nudge), TEXTS[0])


def test_a_retriever_that_is_told_to_serve_warns(application, nudge, tmp_path):
    shutil.move(tmp_path / "versions", tmp_path / "moved")
    with pytest.warns(UserWarning, match="map of the live nudge could not be read"):
        found = application.ask(TEXTS[0], on_unreadable="serve")
    unmapped = type(nudge.adapter)(0 * nudge.adapter.change)
    assert found == nearest(unmapped, moved(nudge), TEXTS[0])
    with pytest.warns(UserWarning, match="map of the live nudge could not be read"):
        assert application.wrap(on_unreadable="serve") == pytest.approx(Model().embed_query(TEXTS[0]))


def test_an_overlay_over_an_unreadable_history_shows_its_own_nodes_if_told_to(application, nudge, tmp_path):
    expected = nearest(nudge.adapter, moved(nudge), TEXTS[0])
    assert application.ask(TEXTS[0], overlay=nudge) == expected
    shutil.move(tmp_path / "versions", tmp_path / "moved")
    with pytest.raises(JournalError, match="whether other nodes are nudged now could not be read"):
        application.ask(TEXTS[0], overlay=nudge)
    with pytest.warns(UserWarning, match="whether other nodes are nudged now could not be read"):
        assert application.ask(TEXTS[0], overlay=nudge, on_unreadable="serve") == expected


def test_another_answer_is_refused(application):
    with pytest.raises(ValueError, match="on_unreadable"):
        application.ask(TEXTS[0], on_unreadable="ignore")


def test_a_map_that_was_read_stays_if_the_history_goes_away():
    stores = [MappingStore({"n1": [1.0, 0.0]}, key="stays")]

    def open_store():
        if not stores:
            raise JournalError("gone")
        return stores[0]

    adapter = LiveAdapter(open_store, seconds=0.0)
    adapter.start()
    stores.clear()
    with pytest.warns(UserWarning, match="could not be read: gone"):
        assert adapter.map_query([0.6, 0.8]) == [0.6, 0.8]


def test_a_store_that_is_not_there_yet_starts():
    def open_store():
        raise ValueError("there is no table")

    adapter = LiveAdapter(open_store)
    adapter.start()
    with pytest.raises(ValueError, match="no table"):
        adapter.find()
