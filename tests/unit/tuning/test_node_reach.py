"""``reach="nodes"``: a map of all nodes is tuned, measured, saved, pushed, given to new nodes, and undone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nudge_rag import Nudge, TuningState, reapply, rollback, status, tune
from nudge_rag.solvers import QueryAdapter
from nudge_rag.stores import MappingStore
from nudge_rag.stores.mapped import MappedStore
from nudge_rag.tuning.adapters import live_adapter
from nudge_rag.tuning.judging import judge_nudge
from tests.unit.tuning.test_reach import application, unit

# How little is tried does not show in what becomes of the map that is chosen.
pytestmark = pytest.mark.usefixtures("little_auto")


def mapped(node_map, vectors):
    """(I + B^T) v at the length of v, by the equation."""
    change = np.asarray(node_map.change, dtype=np.float64)
    turned = vectors + vectors @ change
    return turned / np.linalg.norm(turned, axis=1, keepdims=True) * np.linalg.norm(vectors, axis=1, keepdims=True)


def expected_nodes(nudge, nodes):
    moved = mapped(nudge.node_map, nodes)
    moved[[int(node_id[1:]) for node_id in nudge.ids]] = nudge.vectors
    return moved


@pytest.fixture(scope="module", params=["cosine", pytest.param("l2", marks=pytest.mark.slow)])
def tuned(request, little_auto, tmp_path_factory):
    store, pairs, embed, nodes = application(similarity=request.param)
    nudge = tune(store, pairs, embed, versions=tmp_path_factory.mktemp("versions"), reach="nodes")
    return store, pairs, embed, nodes, nudge


@pytest.fixture
def fresh(tuned, tmp_path):
    """The same nudge over a store of its own, with all ids and the table that holds its vectors."""
    _, _, _, nodes, nudge = tuned
    table = {f"n{row}": vector.tolist() for row, vector in enumerate(nodes)}
    store = MappingStore(table, similarity=nudge.store.capabilities.similarity, key="t")
    return replace(nudge, store=store, versions=tmp_path), list(table), table


@pytest.mark.slow
def test_the_figures_are_those_of_queries_among_all_mapped_nodes(tuned):
    _, _, embed, nodes, nudge = tuned
    assert nudge.node_map is not None
    assert nudge.adapter is None
    assert nudge.improves
    test = nudge.split.test
    best = np.argmax(unit(embed(list(test.queries.values()))) @ unit(expected_nodes(nudge, nodes)).T, axis=1)
    hits = [f"n{row}" in grades for row, grades in zip(best, test.qrels.values(), strict=True)]
    row = next(row for row in nudge.comparison.rows if row.metric == "Recall@1" and row.group == "all")
    assert row.after == pytest.approx(np.mean(hits))
    assert row.after > row.before + 0.1
    assert "nodes +" in str(nudge)
    assert "queries about +" in str(nudge).partition("by reach, expected:")[2].partition("\n")[0]


@pytest.mark.slow
def test_a_map_of_nodes_ranks_as_one_of_queries_but_for_the_lengths_of_nodes(tuned):
    _, _, embed, nodes, nudge = tuned
    queries = embed(list(nudge.split.test.queries.values()))
    change = np.asarray(nudge.node_map.change, dtype=np.float64)
    by_queries = (queries + queries @ change.T) @ nodes.T
    turned = nodes + nodes @ change
    by_nodes = queries @ nudge.node_map.apply_to_nodes(nodes).T
    np.testing.assert_allclose(by_nodes * np.linalg.norm(turned, axis=1), by_queries, atol=1e-9)


def test_a_push_maps_every_node_and_a_rollback_undoes_it_bit_for_bit(fresh, tuned):
    nudge, ids, _ = fresh
    before = nudge.store.read(ids)
    receipt = nudge.push()
    assert receipt.written == len(ids)
    np.testing.assert_allclose(nudge.store.read(ids), expected_nodes(nudge, tuned[3]), atol=1e-12)
    assert live_adapter(nudge.store, nudge.versions) is None
    assert len(status(nudge.store, nudge.versions).nudged) == len(ids)
    assert rollback(nudge.store, nudge.versions).restored == len(ids)
    assert nudge.store.read(ids).tobytes() == before.tobytes()


@pytest.mark.slow
def test_tuning_over_a_map_starts_from_the_originals(fresh, tuned):
    nudge, ids, _ = fresh
    nudge.push()
    _, pairs, embed, nodes, _ = tuned
    again = tune(nudge.store, pairs, embed, versions=nudge.versions, reach="nodes")
    np.testing.assert_array_equal(again.originals, nodes[[int(node_id[1:]) for node_id in again.ids]])
    rows = {(row.group, row.metric): row for row in nudge.comparison.rows}
    for row in again.comparison.rows:
        assert row.before == pytest.approx(rows[row.group, row.metric].before)
    again.push(force=True)
    np.testing.assert_allclose(nudge.store.read(ids), expected_nodes(again, nodes), atol=1e-12)


@pytest.mark.slow
def test_a_push_of_labelled_nodes_alone_takes_the_map_away(fresh, tuned):
    nudge, ids, _ = fresh
    nudge.push()
    labelled = replace(nudge, node_map=None, vectors=nudge.originals[:, ::-1].copy())
    wanted = tuned[3].copy()
    wanted[[int(node_id[1:]) for node_id in nudge.ids]] = labelled.vectors
    np.testing.assert_array_equal(labelled.overlay().read(ids), wanted)
    labelled.push(force=True)
    np.testing.assert_array_equal(nudge.store.read(ids), wanted)


@pytest.mark.slow
def test_reapply_maps_new_nodes_and_those_embedded_again_once(fresh):
    nudge, ids, table = fresh
    nudge.push()
    before = nudge.store.read(ids)
    rng = np.random.default_rng(1)
    new = unit(rng.normal(size=(2, before.shape[1])))
    table["late"], table["n3"] = new[0].tolist(), new[1].tolist()
    table["empty"] = [0.0] * before.shape[1]
    found = status(nudge.store, nudge.versions)
    assert set(found.unmapped) == {"late", "n3"}
    assert str(found).endswith("119 nudged, 0 lost, 1 changed, 0 missing, 2 unmapped")
    assert set(reapply(nudge.store, nudge.versions)) == {"late", "n3"}
    assert status(nudge.store, nudge.versions).unmapped == ()
    np.testing.assert_allclose(nudge.store.read(["late", "n3"]), mapped(nudge.node_map, new), atol=1e-12)
    others = [row for row, node_id in enumerate(ids) if node_id != "n3"]
    assert nudge.store.read([ids[row] for row in others]).tobytes() == before[others].tobytes()
    assert reapply(nudge.store, nudge.versions) == ()
    rollback(nudge.store, nudge.versions)
    np.testing.assert_array_equal(nudge.store.read(["late", "n3"]), new)
    assert table["empty"] == [0.0] * before.shape[1]


@pytest.mark.slow
def test_a_node_that_comes_back_with_its_mapped_vector_is_not_mapped_twice(fresh):
    nudge, _, table = fresh
    nudge.push()
    held = table.pop("n100")
    table["late"] = table["n7"][::-1]
    reapply(nudge.store, nudge.versions)
    table["n100"] = held
    reapply(nudge.store, nudge.versions)
    # Mapped again from its original, in a product of other size, whose last bits differ.
    assert table["n100"] == pytest.approx(held, abs=1e-12)


@pytest.mark.slow
def test_zero_vectors_stay(fresh):
    nudge, _, table = fresh
    table["empty"] = [0.0] * nudge.node_map.dimension
    assert nudge.push().written == len(table) - 1
    assert not any(table["empty"])


@pytest.mark.slow
def test_save_and_load_keep_the_map(tuned, tmp_path):
    store, _, _, _, nudge = tuned
    nudge.save(tmp_path / "saved")
    again = Nudge.load(tmp_path / "saved", store)
    assert again.node_map.change.tobytes() == nudge.node_map.change.tobytes()
    assert again.adapter is None


@pytest.mark.slow
def test_an_overlay_shows_what_a_push_would_write(fresh, tuned):
    nudge, ids, table = fresh
    for _ in range(2):  # over the originals, and over what is live
        overlay = nudge.overlay()
        wanted = expected_nodes(nudge, tuned[3])
        np.testing.assert_allclose(overlay.read(ids), wanted, atol=1e-12)
        asked = tuned[3][:5]
        scores = asked @ wanted.T if nudge.store.capabilities.similarity == "cosine" else None
        if scores is None:
            scores = -((asked[:, None] - wanted[None]) ** 2).sum(axis=2)
        best = np.argsort(-scores, axis=1)[:, :4]
        assert overlay.search(asked, 4).ids == [[ids[row] for row in line] for line in best]
        nudge.push()
    assert len(table) == len(ids)


def test_a_search_of_a_mapped_view_takes_a_filter():
    store = MappingStore({"a": [1.0, 0.0], "b": [0.0, 1.0]})
    view = MappedStore(store, lambda _, vectors: vectors[:, ::-1])
    assert view.search(np.array([[0.0, 1.0]]), 2, where="b".__eq__).ids == [["b"]]
    with pytest.raises(TypeError, match="a mapped view is read-only"):
        view.replace(["a"], np.zeros((1, 2)))


@pytest.mark.slow
def test_a_tuning_state_gives_what_tune_gives_before_and_after_a_push(fresh, tuned):
    nudge, ids, _ = fresh
    store, (_, pairs, embed, nodes, _) = nudge.store, tuned
    state = TuningState(store, embed, solver="auto", reach="nodes", versions=nudge.versions)
    half = list(pairs.queries)[::2]
    state.add_pairs(pairs.subset(half))
    state.add_pairs(pairs.subset([query for query in pairs.queries if query not in set(half)]))
    for _ in range(2):  # over the originals, and over what is live
        expected = tune(store, state.pairs(), embed, versions=nudge.versions, reach="nodes")
        found = state.solve()
        np.testing.assert_allclose(found.node_map.change, expected.node_map.change, atol=1e-6)
        np.testing.assert_allclose(found.vectors, expected.vectors, atol=1e-6)
        assert found.ids == expected.ids
        assert str(found.comparison) == str(expected.comparison)
        assert str(found.against_live) == str(expected.against_live)
        found.push(force=True)
        np.testing.assert_allclose(store.read(ids), expected_nodes(found, nodes), atol=1e-6)
    assert found.against_live is not None


@pytest.mark.slow
def test_a_judge_sees_all_nodes_mapped_and_as_they_were(fresh, tuned):
    nudge, ids, _ = fresh
    store, (_, pairs, embed, nodes, _) = nudge.store, tuned
    originals = store.read(ids)
    seen = {}

    def judge(view):
        vectors = view.read(ids)
        seen[len(seen)] = vectors
        scores = {"cosine": lambda asked: unit(asked) @ unit(vectors).T}.get(
            view.capabilities.similarity, lambda asked: -((asked[:, None] - vectors[None]) ** 2).sum(axis=2)
        )
        return lambda text: [ids[row] for row in np.argsort(-scores(np.asarray(embed([text])))[0])[:10]]

    judged = tune(store, pairs, embed, versions=nudge.versions, reach="nodes", judge=judge)
    np.testing.assert_array_equal(seen[0], originals)
    np.testing.assert_allclose(seen[1], expected_nodes(judged, nodes), atol=1e-6)
    row = next(row for row in judged.comparison.rows if (row.group, row.metric) == ("all", "nDCG@10"))
    assert judged.judgement.after == pytest.approx(row.after)
    assert judged.improves
    assert store.read(ids).tobytes() == originals.tobytes()
    judged.push()
    seen.clear()
    again = judge_nudge(replace(judged, node_map=None, vectors=judged.originals[:, ::-1].copy()), judge)
    untouched = originals.copy()
    untouched[[int(node_id[1:]) for node_id in judged.ids]] = judged.originals[:, ::-1]
    for found, wanted in zip(seen.values(), (originals, store.read(ids), untouched), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert again.judgement.baseline == "live"
    assert again.judgement.before == pytest.approx(judged.judgement.after)


@pytest.mark.slow
def test_a_map_that_helps_nobody_is_not_pushed(fresh):
    nudge, _, _ = fresh
    still = replace(nudge, node_map=None, gamma=0.0, tried=())
    assert still.refusal() == "gamma is 0: no step helped on the validation queries"
    assert nudge.refusal() is None


def test_a_mapped_node_without_a_direction_left_stays():
    away = QueryAdapter(-np.eye(3))
    vectors = np.array([[1.0, 2.0, 2.0], [0.0, 0.0, 0.0], [np.nan, 0.0, 0.0]])
    np.testing.assert_array_equal(away.apply_to_usable(vectors), vectors)
