"""LangChain's NudgeRetriever as a drop-in: its fields, options, copies and traces are those of the framework's own."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.vectorstores import InMemoryVectorStore, VectorStoreRetriever
from langchain_nudge import NudgeEmbeddings, NudgeRetriever, embedding_store, tune
from pydantic import ValidationError

from tests.integrations.test_langchain import ids, make_store, make_vectorstore
from tests.support.builders.registry import here


@pytest.fixture
def store(world, tmp_path):
    return make_store("in-memory", world, tmp_path)


@pytest.fixture
def nudge(store, world, tmp_path):
    return tune(store, world.pairs, versions=tmp_path / "v", solver="nudge-n")


def even(document):
    return document.metadata["even"]


@pytest.mark.parametrize("name", ["top_k", "filters", "embeddings", "score_threshold", "search_kwarg"])
def test_fields_that_do_not_exist_are_refused(store, name):
    with pytest.raises(ValidationError, match=rf"{name}\n  Extra inputs are not permitted"):
        NudgeRetriever(vectorstore=store, **{name: 3})


def test_search_kwargs_are_honoured_and_fields_and_calls_go_before_them(store, world):
    query = world.queries[0]
    retriever = NudgeRetriever(vectorstore=store, search_kwargs={"k": 3, "filter": even})
    assert len(retriever.invoke(query)) == 3
    assert all(map(even, retriever.invoke(query)))
    assert len(NudgeRetriever(vectorstore=store, search_kwargs={"k": 3}, k=5).invoke(query)) == 5
    assert len(retriever.invoke(query, k=7)) == 7
    assert not any(map(even, retriever.invoke(query, filter=lambda document: not even(document))))


LATER = {"in-memory": "in-memory", "chroma": "chroma", "qdrant-Dot": "qdrant", "lancedb": "lance", "faiss": "faiss"}
LATER |= {"milvus": "milvus"}


@pytest.mark.parametrize("options", [{"k": 3}, {"k": 30}], ids=str)
@pytest.mark.parametrize("kind", here(LATER))
async def test_a_retriever_may_be_made_before_documents_are_added(kind, world, tmp_path, options):
    """Some integrations make the collection with the first documents; until then their own search answers or fails."""
    query, answers = world.queries[0], []
    for own in (True, False):
        folder = tmp_path / str(own)
        folder.mkdir()
        store = make_vectorstore(kind, world, folder, None)
        made = store.as_retriever(search_kwargs=options) if own else NudgeRetriever(vectorstore=store, **options)
        for asked in (made.invoke, made.ainvoke):
            try:
                found = asked(query)
                answers.append(len(await found if asked == made.ainvoke else found))
            except Exception as error:
                answers.append(type(error))
        store.add_documents([Document(id=n, page_content=text, metadata=metadata) for n, text, metadata in world.rows])
        answers.append([document.page_content for document in made.invoke(query)])
        assert len(answers[-1]) == options["k"]
    assert answers[:3] == answers[3:]


COUNTED = {"in-memory": "in-memory", "chroma": "chroma", "qdrant-Dot": "qdrant", "lancedb": "lance", "faiss": "faiss"}


@pytest.mark.parametrize("kind", here(COUNTED))
def test_a_number_that_numpy_counted_is_a_number(kind, world, tmp_path):
    store, query = make_store(kind, world, tmp_path), world.queries[0]
    expected = ids(NudgeRetriever(vectorstore=store, k=3).invoke(query))
    assert len(expected) == 3
    assert ids(NudgeRetriever(vectorstore=store, search_kwargs={"k": np.int64(3)}).invoke(query)) == expected
    assert ids(NudgeRetriever(vectorstore=store).invoke(query, k=np.int32(3))) == expected


def test_search_types_are_the_frameworks_and_so_are_their_errors(store):
    with pytest.raises(ValidationError, match="search_type of hybrid not allowed"):
        NudgeRetriever(vectorstore=store, search_type="hybrid")
    with pytest.raises(ValidationError, match="`score_threshold` is not specified with a float value"):
        NudgeRetriever(vectorstore=store, search_type="similarity_score_threshold")
    assert isinstance(NudgeRetriever(vectorstore=store), VectorStoreRetriever)


def test_what_an_overlay_cannot_honour_is_refused_when_the_retriever_is_made(store, nudge):
    with pytest.raises(ValueError, match=r"offset of search_kwargs cannot be honoured by InMemoryVectorStore with an"):
        NudgeRetriever(vectorstore=store, overlay=nudge, search_kwargs={"offset": 3})


def test_fields_that_are_changed_or_copied_take_effect(store, world, nudge, tmp_path):
    query = world.queries[1]
    nudged = ids(NudgeRetriever(vectorstore=store, overlay=nudge).invoke(query))
    plain = NudgeRetriever(vectorstore=store)
    own = ids(plain.invoke(query))
    assert own != nudged
    assert ids(plain.model_copy(update={"overlay": nudge}).invoke(query)) == nudged
    plain.overlay = nudge
    assert ids(plain.invoke(query)) == nudged
    plain.overlay = None
    assert ids(plain.invoke(query)) == own
    other = InMemoryVectorStore.from_texts(["topic 5"], world.langchain, ids=["only"])
    assert ids(plain.model_copy(update={"vectorstore": other}).invoke(query)) == ["only"]

    class Elsewhere(type(world.langchain)):
        def embed_query(self, text):
            return world.vector("topic 11")

    plain.query_embeddings = Elsewhere()
    assert ids(plain.invoke(query))[0] == world.node_id(11)


def test_it_pickles_and_deep_copies_with_its_overlay(store, world, nudge):
    for overlay in (None, nudge):
        retriever = NudgeRetriever(vectorstore=store, overlay=overlay, k=5)
        expected = retriever.invoke(world.queries[1])
        for again in (copy.deepcopy(retriever), pickle.loads(pickle.dumps(retriever)), copy.copy(retriever)):
            assert again.invoke(world.queries[1]) == expected
        assert retriever.invoke(world.queries[1]) == expected


class Started(BaseCallbackHandler):
    """Keeps what a retriever says of itself when it starts."""

    def __init__(self):
        self.said = []

    def on_retriever_start(self, serialized, query, *, tags=None, metadata=None, **kwargs):
        self.said.append((tags, metadata))


@pytest.mark.parametrize("given", [None, ["mine"]])
async def test_traces_as_the_frameworks_own_retriever(store, world, given):
    said = []
    for make in (store.as_retriever, lambda **options: NudgeRetriever(vectorstore=store, **options)):
        handler = Started()
        retriever = make(**({} if given is None else {"tags": given}))
        retriever.invoke(world.queries[0], config={"callbacks": [handler]})
        await retriever.ainvoke(world.queries[0], config={"callbacks": [handler]})
        said.append(handler.said)
    (own_tags, own), (our_tags, ours) = said[0][0], said[1][0]
    assert said[0][1] == (own_tags, own)
    assert said[1][1] == (our_tags, ours)
    assert (our_tags[: len(own_tags)], ours.keys()) == (own_tags, own.keys())
    assert {key: value for key, value in ours.items() if key != "ls_retriever_name"} == {
        key: value for key, value in own.items() if key != "ls_retriever_name"
    }
    assert ours["ls_retriever_name"] == "nudge"
    assert ours["ls_vector_store_provider"] == "InMemoryVectorStore"


def test_old_classes_name_the_one_that_took_their_place():
    pytest.importorskip("langchain_community")

    class PGVector:
        pass

    PGVector.__module__ = "langchain_community.vectorstores.pgvector"
    with pytest.raises(TypeError, match=r"langchain_community.vectorstores.pgvector.PGVector is an old class: use"):
        embedding_store(PGVector())
    if "qdrant" in here({"qdrant": "qdrant"}):
        from langchain_qdrant import Qdrant

        with pytest.raises(TypeError, match=r"use langchain_qdrant.QdrantVectorStore"):
            embedding_store(object.__new__(Qdrant))


def test_another_spelling_of_an_id_in_qdrant(world, tmp_path):
    qdrant = pytest.importorskip("langchain_qdrant")
    from qdrant_client import QdrantClient, models

    client = QdrantClient(":memory:")
    client.create_collection("numbers", models.VectorParams(size=16, distance=models.Distance.COSINE))
    store = qdrant.QdrantVectorStore(client, "numbers", world.langchain, validate_collection_config=False)
    store.add_documents([Document(page_content=f"topic {i}") for i in range(20)], ids=list(range(20)))
    retriever = NudgeRetriever(vectorstore=store, k=2)
    assert retriever.invoke("topic 3")[0].id == "3"
    assert NudgeRetriever(vectorstore=store, k=2, score_key="score").invoke("topic 3")[0].id == "3"


def test_embeddings_of_its_own_are_named_in_the_trace(store, world):
    retriever = NudgeRetriever(vectorstore=store, query_embeddings=DeterministicFakeEmbedding(size=16))
    assert retriever._get_ls_params()["ls_embedding_provider"] == "DeterministicFakeEmbedding"


@pytest.mark.parametrize("maps_documents", [False, True])
def test_embeddings_that_look_up_what_is_live_are_copied(maps_documents, store, world):
    embeddings = NudgeEmbeddings(world.langchain, store, map_documents=maps_documents)
    for copied in (pickle.loads(pickle.dumps(embeddings)), copy.deepcopy(embeddings)):
        assert copied.embed_query("question 1 about 2") == world.vector("question 1 about 2")
        assert copied.embed_documents(["topic 2"]) == [world.vector("topic 2")]


@pytest.mark.parametrize("kind", here({"faiss": "faiss"}))
def test_a_nudge_of_faiss_is_pickled_with_its_store(kind, world, tmp_path, servers):
    store = make_vectorstore(kind, world, tmp_path, servers)
    store.add_documents([Document(id=node, page_content=text) for node, text, _ in world.rows])
    nudge = tune(store, world.pairs, solver="nudge-n")
    again = pickle.loads(pickle.dumps(nudge))
    assert again.store.read(list(nudge.ids)).tobytes() == nudge.store.read(list(nudge.ids)).tobytes()
    retriever = NudgeRetriever(vectorstore=store, overlay=nudge, k=5)
    assert pickle.loads(pickle.dumps(retriever)).invoke(world.queries[1]) == retriever.invoke(world.queries[1])
