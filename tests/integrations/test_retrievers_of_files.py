"""Retrievers over stores that their framework loaded from a file to which a nudge with a map of queries was pushed."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
from langchain_nudge import NudgeEmbeddings
from langchain_nudge import NudgeRetriever as LangChainRetriever
from llama_index.core import MockEmbedding
from llama_index.retrievers.nudge import NudgeEmbedding
from llama_index.retrievers.nudge import NudgeRetriever as LlamaIndexRetriever

from nudge_rag.journal.packed_map import pack_adapter
from nudge_rag.journal.push import push_vectors
from nudge_rag.solvers import QueryAdapter
from nudge_rag.tuning.adapters import ADAPTER
from tests.stores.test_persist_path import IDS, FaissMap, InMemory, LangChainFaiss, Simple
from tests.support.builders.common import DIMENSION, LangChainEmbeddings

QUERIES = [f"text of {node}" for node in IDS]
# The map turns every query away from the node that it would find.
CHANGE = -2 * np.eye(DIMENSION)
IN_FAISS = (FaissMap, LangChainFaiss)


def retriever_of(made, **options):
    if hasattr(made, "vector_store"):
        return LlamaIndexRetriever(made, similarity_top_k=3, **options)
    return LangChainRetriever(vectorstore=made, k=3, **options)


def wrapped(made, **options):
    """The framework's own retriever, with queries embedded by our wrapper."""
    if hasattr(made, "vector_store"):
        model = NudgeEmbedding(made._embed_model, made, **options)
        return made.as_retriever(similarity_top_k=3, embed_model=model)
    model = NudgeEmbeddings(made.embeddings, made, **options)
    return LangChainRetriever(vectorstore=made, k=3, query_embeddings=model)


def answers(retriever):
    if isinstance(retriever, LangChainRetriever):
        return [[document.id for document in retriever.invoke(query)] for query in QUERIES]
    return [[found.node_id for found in retriever.retrieve(query)] for query in QUERIES]


@pytest.fixture(params=[Simple, FaissMap, InMemory, LangChainFaiss], ids=lambda kind: kind.__name__)
def kind(request, tmp_path):
    made = request.param()
    made.save(made.make(), tmp_path)
    return made


def push_with_map(kind, folder):
    """What a retriever answers in the process that pushed, and without the map."""
    made = kind.load(folder)
    plain = answers(retriever_of(made, persist_path=folder / kind.file))
    store = kind.adapter(made, persist_path=folder / kind.file)
    rows = store.read(IDS[:3])
    push_vectors(store, IDS[:3], rows, rows + np.float32(0.01), details={ADAPTER: pack_adapter(QueryAdapter(CHANGE))})
    mapped = answers(retriever_of(made))
    assert all(before[0] not in after for before, after in zip(plain, mapped, strict=True))
    return mapped


def test_the_map_is_found_by_the_name_of_the_file(kind, tmp_path):
    mapped = push_with_map(kind, tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*does not say which file")
        retriever = retriever_of(kind.load(tmp_path), persist_path=tmp_path / kind.file)
        assert answers(retriever) == mapped
        if isinstance(kind, LangChainFaiss | InMemory):
            assert answers(pickle.loads(pickle.dumps(retriever))) == mapped


def test_wrappers_of_the_model_take_the_name_of_the_file(kind, tmp_path):
    mapped = push_with_map(kind, tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*does not say which file")
        assert answers(wrapped(kind.load(tmp_path), persist_path=tmp_path / kind.file)) == mapped
    if isinstance(kind, IN_FAISS):
        with pytest.warns(UserWarning, match="does not say which file .* name it by persist_path="):
            assert answers(wrapped(kind.load(tmp_path))) != mapped


@pytest.mark.parametrize("wrapper", [NudgeEmbeddings, NudgeEmbedding])
def test_a_wrapper_of_a_map_has_no_file(wrapper):
    model = MockEmbedding(DIMENSION) if wrapper is NudgeEmbedding else LangChainEmbeddings()
    with pytest.raises(TypeError, match=r"persist_path needs the .*vector store as the source, got QueryAdapter"):
        wrapper(model, QueryAdapter(CHANGE), persist_path="index.faiss")


def test_a_misspelt_option_of_a_wrapper_is_refused():
    message = r"NudgeEmbedding\(\) has no option 'map_document'; did you mean 'map_documents'\?"
    with pytest.raises(TypeError, match=message):
        NudgeEmbedding(MockEmbedding(DIMENSION), QueryAdapter(CHANGE), map_document=True)
    model = NudgeEmbedding(MockEmbedding(DIMENSION), QueryAdapter(CHANGE), embed_batch_size=7)
    assert model.embed_batch_size == 7


def test_without_the_name_it_is_found_or_missed_with_a_warning(kind, tmp_path):
    mapped = push_with_map(kind, tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = answers(retriever_of(kind.load(tmp_path)))
    told = [one for one in caught if "does not say which file it was loaded from" in str(one.message)]
    if isinstance(kind, IN_FAISS):
        assert found != mapped
        assert len(told) == 1
        assert "persist_path=" in str(told[0].message)
        assert told[0].filename == __file__
    else:
        assert found == mapped
        assert not told


def test_an_index_that_was_nudged_in_this_process_is_known(kind, tmp_path):
    made = kind.make()
    store = kind.adapter(made)
    rows = store.read(IDS[:3])
    with pytest.warns(UserWarning, match="has no file"):
        push_vectors(store, IDS[:3], rows, rows + np.float32(0.01), details={})
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*does not say which file")
        answers(retriever_of(made))


def test_a_file_for_a_store_that_keeps_itself(tmp_path):
    chromadb = pytest.importorskip("chromadb")
    from langchain_chroma import Chroma
    from llama_index.core import VectorStoreIndex
    from llama_index.vector_stores.chroma import ChromaVectorStore

    from tests.support.builders.common import LlamaIndexEmbedding

    client = chromadb.EphemeralClient()
    made = Chroma("files", LangChainEmbeddings(), client=client)
    with pytest.raises(
        ValueError, match="persist_path is for InMemoryVectorStore and FAISS; Chroma keeps its own data"
    ):
        LangChainRetriever(vectorstore=made, persist_path=tmp_path / "file")
    with pytest.raises(ValueError, match="Chroma keeps its own data"):
        NudgeEmbeddings(LangChainEmbeddings(), made, persist_path=tmp_path / "file")
    store = ChromaVectorStore(chroma_collection=client.get_or_create_collection("others"))
    index = VectorStoreIndex.from_vector_store(store, embed_model=LlamaIndexEmbedding())
    with pytest.raises(
        ValueError, match="persist_path is for SimpleVectorStore and FAISS; ChromaVectorStore keeps its"
    ):
        LlamaIndexRetriever(index, persist_path=tmp_path / "file")
    with pytest.raises(ValueError, match="ChromaVectorStore keeps its own data"):
        NudgeEmbedding(LlamaIndexEmbedding(), index, persist_path=tmp_path / "file")
