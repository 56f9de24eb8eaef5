"""LlamaIndex: every verb of the library on the user's own index or vector store."""

from __future__ import annotations

import numpy as np
import pytest
from llama_index.core import VectorStoreIndex
from llama_index.retrievers.nudge import (
    NudgeRetriever,
    TuningState,
    embedding_store,
    evaluate,
    live_version,
    load_nudge,
    prune,
    reapply,
    rollback,
    status,
    switch,
    tune,
    versions,
)

import nudge_rag
from nudge_rag.stores import MappingStore
from tests.integrations.test_llama_index import make_index
from tests.support.builders.registry import here

STORES = here({"simple": "simple", "chroma": "chroma"})


@pytest.fixture(params=STORES)
def index(request, world, tmp_path, servers):
    return make_index(request.param, world, tmp_path, servers)


def vectors_of(index):
    return {node: row for part, rows in embedding_store(index).scan() for node, row in zip(part, rows, strict=True)}


def test_push_status_versions_reapply_and_rollback_take_the_index(index, world, tmp_path):
    folder, before = tmp_path / "v", vectors_of(index)
    nudge = tune(index, world.pairs, versions=folder, solver="nudge-n")
    assert live_version(index, folder) is None
    assert nudge.push().pushed
    assert live_version(index, folder) == "0001"
    found = status(index, folder)
    assert (found.version, set(found.nudged), found.lost, found.edited) == ("0001", set(nudge.ids), (), ())
    assert [version.name for version in versions(index, folder)] == ["0001"]
    lost = nudge.ids[:2]
    embedding_store(index).replace(lost, np.array([before[node] for node in lost]))
    assert set(status(index, folder).lost) == set(reapply(index, folder)) == set(lost)
    assert status(index, folder).lost == ()
    assert rollback(index, folder).exact
    after = vectors_of(index)
    assert all(np.array_equal(before[node], after[node]) for node in before)
    assert status(index.vector_store, folder).version is None
    assert live_version(index.vector_store, folder) is None
    assert prune(index, folder, keep=1) == ()
    assert prune(index, folder) == ("0001",)
    assert versions(index, folder) == []


def test_a_saved_nudge_is_loaded_for_an_index_and_switched_to(index, world, tmp_path):
    nudge = tune(index, world.pairs, versions=tmp_path / "v", solver="nudge-n")
    nudge.save(tmp_path / "nudge")
    again = load_nudge(tmp_path / "nudge", index, tmp_path / "v")
    assert again.ids == nudge.ids
    assert np.array_equal(again.vectors, nudge.vectors)
    assert again.push(mode="side-by-side").pushed
    assert status(index, tmp_path / "v").ready == "0001"
    assert switch(index, tmp_path / "v", accept_gap=True).nodes == len(nudge.ids)
    assert status(index, tmp_path / "v").version == "0001"


def test_evaluate_asks_the_index_with_and_without_an_overlay(index, world, tmp_path):
    split = world.pairs.split(0.7, 0.1, 0.2, seed=0)
    nudge = tune(index, split, versions=tmp_path / "v", solver="nudge-n")
    found = evaluate(index, split.test, ["Recall@1", "Recall@3"], overlay=nudge)
    for name, overlay in (("index", None), ("overlay", nudge)):
        retriever = NudgeRetriever(index, similarity_top_k=3, overlay=overlay)
        hits = [
            len({one.node_id for one in retriever.retrieve(text)[:1]} & set(split.test.qrels[query]))
            for query, text in split.test.queries.items()
        ]
        assert found.mean(name, "Recall@1") == pytest.approx(np.mean(hits))
    assert found.mean("overlay", "Recall@1") > found.mean("index", "Recall@1")


def test_a_tuning_state_takes_an_index(index, world, tmp_path):
    state = TuningState(index, versions=tmp_path / "v")
    state.add_pairs(world.pairs)
    nudge = state.solve()
    reference = nudge_rag.TuningState(
        embedding_store(index), lambda texts: [world.vector(text) for text in texts], versions=tmp_path / "v"
    )
    reference.add_pairs(world.pairs)
    assert nudge.vectors.tobytes() == reference.solve().vectors.tobytes()
    state.save(tmp_path / "state")
    again = TuningState.load(tmp_path / "state", index, versions=tmp_path / "v")
    assert isinstance(again, TuningState)
    assert again.solve().vectors.tobytes() == nudge.vectors.tobytes()


def test_a_store_of_ones_own_is_taken_as_it_is(tmp_path):
    store = MappingStore({"a": [1.0, 0.0]})
    assert embedding_store(store) is store
    assert status(store, tmp_path).version is None


def test_options_that_do_not_exist_are_refused(index, world, tmp_path):
    with pytest.raises(TypeError, match=r"tune\(\) has no option 'gama'"):
        tune(index, world.pairs, gama=3)
    with pytest.raises(TypeError, match="sed"):
        TuningState(index, sed=3)


def test_a_model_without_a_name_is_recorded_as_none(world, tmp_path):
    index = make_index("simple", world, tmp_path)
    assert world.llama_index.model_name == "unknown"
    assert tune(index, world.pairs, versions=tmp_path / "v", solver="nudge-n").model is None


def test_a_bare_vector_store_is_searched(world, tmp_path, servers):
    if "chroma" not in STORES:
        pytest.skip("chromadb is not installed")
    index = make_index("chroma", world, tmp_path, servers)
    whole = NudgeRetriever(index, similarity_top_k=4).retrieve(world.queries[0])
    bare = NudgeRetriever(index.vector_store, similarity_top_k=4, embed_model=world.llama_index)
    assert [(one.node_id, one.score) for one in bare.retrieve(world.queries[0])] == [
        (one.node_id, one.score) for one in whole
    ]
    simple = make_index("simple", world, tmp_path)
    with pytest.raises(TypeError, match="SimpleVectorStore keeps no texts: pass the VectorStoreIndex"):
        NudgeRetriever(simple.vector_store)
    with pytest.raises(TypeError, match="takes a VectorStoreIndex or a supported vector store, got int"):
        NudgeRetriever(3)
    assert isinstance(simple, VectorStoreIndex)


def test_the_applications_own_pipeline_judges(index, world, tmp_path):
    """A plain retriever finds what `evaluate` finds; one that drops what is moved decides against."""
    split = world.pairs.split(0.7, 0.1, 0.2, seed=0)
    options = {"versions": tmp_path / "v", "solver": "nudge-n", "metrics": ["Recall@1", "Recall@3"]}

    def judge(view):
        return view.as_retriever(similarity_top_k=3)

    nudge = tune(index, split, judge=judge, **options)
    found = evaluate(index, split.test, ["Recall@1", "Recall@3"], overlay=nudge)
    assert nudge.judgement.before == pytest.approx(found.mean(found.systems[0], "Recall@1"))
    assert nudge.judgement.after == pytest.approx(found.mean("overlay", "Recall@1"))
    assert nudge.improves
    moved = set(nudge.ids)

    def without_moved(view):
        retriever = view.as_retriever(similarity_top_k=3)
        return lambda text: [one.node_id for one in retriever.retrieve(text) if one.node_id not in moved]

    assert not tune(index, split, judge=without_moved, **options).improves
    with pytest.raises(TypeError, match="judge must be a function"):
        tune(index, split, judge=3, **options)
    assert nudge.push().pushed
    again = tune(index, split, judge=judge, **options)
    assert again.judgement is None or again.judgement.evaluation.systems == ("originals", "live", "new")
