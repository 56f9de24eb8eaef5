"""Retrievers over stores in memory that were loaded before another process pushed, or rolled back, a map of queries."""

from __future__ import annotations

import warnings

import faiss
import numpy as np
import pytest
from langchain_nudge import NudgeEmbeddings
from langchain_nudge import NudgeRetriever as LangChainRetriever
from llama_index.retrievers.nudge import NudgeEmbedding

from nudge_rag import rollback
from nudge_rag.journal.journal import original_vectors
from nudge_rag.journal.packed_map import pack_adapter
from nudge_rag.journal.push import push_vectors
from nudge_rag.solvers import QueryAdapter
from nudge_rag.stores import FaissStore
from nudge_rag.tuning.adapters import ADAPTER
from tests.integrations import test_retrievers_of_files
from tests.integrations.test_retrievers_of_files import (
    IDS,
    FaissMap,
    InMemory,
    LangChainFaiss,
    Simple,
    answers,
    retriever_of,
    wrapped,
)
from tests.support.builders.common import DIMENSION

AWAY = -2 * np.eye(DIMENSION)
# Turns queries by another way than AWAY does, so that answers tell which map they passed.
MIRROR = np.roll(np.eye(DIMENSION), 1, axis=0) - np.eye(DIMENSION)


def push_elsewhere(kind, folder, change, by):
    """Push as another process does, which loads the file itself; what a retriever answers there."""
    made = kind.load(folder)
    store = kind.adapter(made, persist_path=folder / kind.file)
    rows = original_vectors(store, IDS[:3], store.read(IDS[:3]))
    details = {} if change is None else {ADAPTER: pack_adapter(QueryAdapter(change))}
    push_vectors(store, IDS[:3], rows, rows + np.float32(by), details=details)
    return answers(retriever_of(made))


@pytest.fixture(params=[Simple, FaissMap, InMemory, LangChainFaiss], ids=lambda kind: kind.__name__)
def kind(request, tmp_path):
    made = request.param()
    made.save(made.make(), tmp_path)
    return made


@pytest.fixture(params=[retriever_of, wrapped], ids=["retriever", "wrapper"])
def serve(request):
    return request.param


def vectors_in(kind, made):
    return kind.adapter(made).vectors_in_memory(IDS[:3])


def is_as_before(kind, made, before):
    return all(np.array_equal(vectors_in(kind, made)[node], before[node]) for node in before)


def wrapped_in(made, adapter):
    """The framework's own retriever, whose queries pass a map that is given."""
    if hasattr(made, "vector_store"):
        return made.as_retriever(similarity_top_k=3, embed_model=NudgeEmbedding(made._embed_model, adapter))
    return LangChainRetriever(vectorstore=made, k=3, query_embeddings=NudgeEmbeddings(made.embeddings, adapter))


def answers_and_warnings(retriever):
    """Answers of a retriever, or of one that is made now, and what is told of the vectors in memory."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = answers(retriever() if callable(retriever) else retriever)
    told = [one for one in caught if "in memory, and" in str(one.message)]
    assert {one.filename for one in told} <= {test_retrievers_of_files.__file__}  # which asks, or makes, the retriever
    return found, [str(one.message) for one in told]


def check_old_answers(kind, made, retriever, held_before, answers_before, answers_now, message):
    """A store that could take over what is in its file has the new answers, any other the old ones and a warning."""
    found, told = answers_and_warnings(retriever)
    if is_as_before(kind, made, held_before):
        assert found == answers_before
        assert len(told) == 1
        assert message in told[0]
        assert "load the store again" in told[0]
        assert answers_and_warnings(retriever) == (answers_before, [])
    else:
        assert isinstance(kind, Simple | InMemory)
        assert not isinstance(kind, FaissMap | LangChainFaiss)
        assert (found, told) == (answers_now, [])


def test_vectors_from_before_the_first_map_are_searched_without_one(kind, serve, tmp_path):
    made = kind.load(tmp_path)
    retriever = serve(made, persist_path=tmp_path / kind.file)
    before, held = answers(retriever), vectors_in(kind, made)
    now = push_elsewhere(kind, tmp_path, AWAY, 0.01)
    assert now != before
    message = (
        "holds the vectors from before any push in memory, and version 0001 is live by its history. Queries pass no"
    )
    check_old_answers(kind, made, retriever, held, before, now, message)
    again = kind.load(tmp_path)
    assert answers_and_warnings(serve(again, persist_path=tmp_path / kind.file)) == (now, [])


def test_vectors_of_an_earlier_version_keep_its_map(kind, serve, tmp_path):
    before = push_elsewhere(kind, tmp_path, AWAY, 0.01)
    made = kind.load(tmp_path)
    retriever, held = serve(made, persist_path=tmp_path / kind.file), vectors_in(kind, made)
    assert answers(retriever) == before
    now = push_elsewhere(kind, tmp_path, MIRROR, 0.02)
    assert now != before
    message = "of version 0001 in memory, and version 0002 is live by its history. Queries pass the map of version 0001"
    check_old_answers(kind, made, retriever, held, before, now, message)


def test_a_retriever_that_is_made_after_the_push_finds_the_map_of_its_vectors(kind, serve, tmp_path):
    before = push_elsewhere(kind, tmp_path, AWAY, 0.01)
    made = kind.load(tmp_path)
    push_elsewhere(kind, tmp_path, MIRROR, 0.02)
    with pytest.warns(UserWarning, match="of version 0001 in memory, and version 0002 is live"):
        retriever = serve(made, persist_path=tmp_path / kind.file)
    assert answers_and_warnings(retriever) == (before, [])


def test_vectors_of_a_version_that_was_rolled_back_keep_its_map(kind, serve, tmp_path):
    now = answers(retriever_of(kind.load(tmp_path)))
    before = push_elsewhere(kind, tmp_path, AWAY, 0.01)
    made = kind.load(tmp_path)
    retriever, held = serve(made, persist_path=tmp_path / kind.file), vectors_in(kind, made)
    assert answers(retriever) == before
    rollback(kind.adapter(kind.load(tmp_path), persist_path=tmp_path / kind.file))
    message = "of version 0001 in memory, and nothing is live by its history. Queries pass the map of version 0001"
    check_old_answers(kind, made, retriever, held, before, now, message)


def test_pushes_and_rollbacks_by_the_process_itself_are_followed_without_a_warning(kind, serve, tmp_path):
    made, path = kind.load(tmp_path), tmp_path / kind.file
    retriever = serve(made, persist_path=path)
    plain, store = answers(retriever), kind.adapter(made, persist_path=path)
    rows = store.read(IDS[:3])
    found = [plain]
    for number, change in enumerate((AWAY, MIRROR), 1):
        details = {ADAPTER: pack_adapter(QueryAdapter(change))}
        push_vectors(store, IDS[:3], rows, rows + np.float32(0.01 * number), details=details)
        mapped, told = answers_and_warnings(retriever)
        assert mapped not in found
        assert not told
        found.append(mapped)
    rollback(store, version="0002")
    assert answers_and_warnings(retriever) == (found[1], [])
    rollback(store)
    assert answers_and_warnings(retriever) == (plain, [])


@pytest.mark.parametrize("n_lost", [1, 2, 3])
def test_nodes_that_were_embedded_again_take_the_map_away_only_if_all_were(kind, tmp_path, n_lost):
    push_elsewhere(kind, tmp_path, AWAY, 0.01)
    made = kind.load(tmp_path)
    for node in IDS[:n_lost]:
        kind.put(made, node, f"text of {node}")
    kind.save(made, tmp_path)
    again, path = kind.load(tmp_path), tmp_path / kind.file
    plain, mapped = (answers(wrapped_in(again, QueryAdapter(change))) for change in (0 * AWAY, AWAY))
    assert plain != mapped
    found, told = answers_and_warnings(lambda: retriever_of(again, persist_path=path))
    if n_lost < 3:
        assert (found, told) == (mapped, [])
    else:
        assert found == plain
        assert len(told) == 1


def test_an_ivf_index_is_asked_for_the_vectors_that_it_searches():
    quantizer = faiss.IndexFlatL2(DIMENSION)
    index = faiss.IndexIDMap2(faiss.IndexIVFFlat(quantizer, DIMENSION, 2))
    vectors = np.random.default_rng(0).normal(size=(90, DIMENSION)).astype(np.float32)
    index.train(vectors)
    index.add_with_ids(vectors, np.arange(100, 190))
    held = FaissStore(index, {100 + row: f"n{row}" for row in range(90)}).vectors_in_memory(["n70", "gone", "n3"])
    assert held.keys() == {"n70", "n3"}
    assert np.array_equal(held["n70"], vectors[70])
    assert np.array_equal(held["n3"], vectors[3])
