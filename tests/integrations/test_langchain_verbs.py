"""LangChain: every verb of the library on the user's own vector store."""

from __future__ import annotations

import numpy as np
import pytest
from langchain_nudge import (
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
from tests.integrations.test_langchain import make_store
from tests.support.builders.registry import here

STORES = here({"in-memory": "in-memory", "chroma": "chroma"})


@pytest.fixture(params=STORES)
def vectorstore(request, world, tmp_path, servers):
    return make_store(request.param, world, tmp_path, servers)


def vectors_of(vectorstore):
    return {
        node: row for part, rows in embedding_store(vectorstore).scan() for node, row in zip(part, rows, strict=True)
    }


def test_push_status_versions_reapply_and_rollback_take_the_vectorstore(vectorstore, world, tmp_path):
    folder, before = tmp_path / "v", vectors_of(vectorstore)
    nudge = tune(vectorstore, world.pairs, versions=folder, solver="nudge-n")
    assert live_version(vectorstore, folder) is None
    assert nudge.push().pushed
    assert live_version(vectorstore, folder) == "0001"
    found = status(vectorstore, folder)
    assert (found.version, set(found.nudged), found.lost, found.edited) == ("0001", set(nudge.ids), (), ())
    assert [version.name for version in versions(vectorstore, folder)] == ["0001"]
    lost = nudge.ids[:2]
    embedding_store(vectorstore).replace(lost, np.array([before[node] for node in lost]))
    assert set(status(vectorstore, folder).lost) == set(reapply(vectorstore, folder)) == set(lost)
    assert status(vectorstore, folder).lost == ()
    assert rollback(vectorstore, folder).exact
    after = vectors_of(vectorstore)
    assert all(np.array_equal(before[node], after[node]) for node in before)
    assert status(vectorstore, folder).version is None
    assert live_version(vectorstore, folder) is None
    assert prune(vectorstore, folder) == ("0001",)
    assert versions(vectorstore, folder) == []


def test_a_saved_nudge_is_loaded_for_a_vectorstore_and_switched_to(vectorstore, world, tmp_path):
    nudge = tune(vectorstore, world.pairs, versions=tmp_path / "v", solver="nudge-n")
    nudge.save(tmp_path / "nudge")
    again = load_nudge(tmp_path / "nudge", vectorstore, tmp_path / "v")
    assert again.ids == nudge.ids
    assert np.array_equal(again.vectors, nudge.vectors)
    assert again.push(mode="side-by-side").pushed
    assert status(vectorstore, tmp_path / "v").ready == "0001"
    assert switch(vectorstore, tmp_path / "v", accept_gap=True).nodes == len(nudge.ids)
    assert status(vectorstore, tmp_path / "v").version == "0001"


def test_evaluate_asks_the_vectorstore_with_and_without_an_overlay(vectorstore, world, tmp_path):
    split = world.pairs.split(0.7, 0.1, 0.2, seed=0)
    nudge = tune(vectorstore, split, versions=tmp_path / "v", solver="nudge-n")
    found = evaluate(vectorstore, split.test, ["Recall@1", "Recall@3"], overlay=nudge)
    for name, overlay in (("vector store", None), ("overlay", nudge)):
        retriever = NudgeRetriever(vectorstore=vectorstore, k=3, overlay=overlay)
        hits = [
            len({one.id for one in retriever.invoke(text)[:1]} & set(split.test.qrels[query]))
            for query, text in split.test.queries.items()
        ]
        assert found.mean(name, "Recall@1") == pytest.approx(np.mean(hits))
    assert found.mean("overlay", "Recall@1") > found.mean("vector store", "Recall@1")


def test_a_tuning_state_takes_a_vectorstore(vectorstore, world, tmp_path):
    state = TuningState(vectorstore, versions=tmp_path / "v")
    state.add_pairs(world.pairs)
    nudge = state.solve()
    reference = nudge_rag.TuningState(
        embedding_store(vectorstore), lambda texts: [world.vector(text) for text in texts], versions=tmp_path / "v"
    )
    reference.add_pairs(world.pairs)
    assert nudge.vectors.tobytes() == reference.solve().vectors.tobytes()
    state.save(tmp_path / "state")
    again = TuningState.load(tmp_path / "state", vectorstore, versions=tmp_path / "v")
    assert isinstance(again, TuningState)
    assert again.solve().vectors.tobytes() == nudge.vectors.tobytes()


def test_a_store_of_ones_own_is_taken_as_it_is(tmp_path):
    store = MappingStore({"a": [1.0, 0.0]})
    assert embedding_store(store) is store
    assert status(store, tmp_path).version is None


def test_options_that_do_not_exist_are_refused(vectorstore, world, tmp_path):
    with pytest.raises(TypeError, match=r"tune\(\) has no option 'gama'"):
        tune(vectorstore, world.pairs, gama=3)
    with pytest.raises(TypeError, match="sed"):
        TuningState(vectorstore, sed=3)


def test_the_applications_own_pipeline_judges(vectorstore, world, tmp_path):
    """A plain retriever finds what `evaluate` finds; one that drops what is moved decides against."""
    split = world.pairs.split(0.7, 0.1, 0.2, seed=0)
    options = {"versions": tmp_path / "v", "solver": "nudge-n", "metrics": ["Recall@1", "Recall@3"]}

    def judge(view):
        return view.as_retriever(search_kwargs={"k": 3})

    nudge = tune(vectorstore, split, judge=judge, **options)
    found = evaluate(vectorstore, split.test, ["Recall@1", "Recall@3"], overlay=nudge)
    assert nudge.judgement.before == pytest.approx(found.mean("vector store", "Recall@1"))
    assert nudge.judgement.after == pytest.approx(found.mean("overlay", "Recall@1"))
    assert nudge.improves
    moved = set(nudge.ids)

    def without_moved(view):
        retriever = view.as_retriever(search_kwargs={"k": 3})
        return lambda text: [one.id for one in retriever.invoke(text) if one.id not in moved]

    assert not tune(vectorstore, split, judge=without_moved, **options).improves
    with pytest.raises(TypeError, match="judge must be a function"):
        tune(vectorstore, split, judge=3, **options)
    assert nudge.push().pushed
    again = tune(vectorstore, split, judge=judge, **options)
    assert again.judgement is None or again.judgement.evaluation.systems == ("originals", "live", "new")
