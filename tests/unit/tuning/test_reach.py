"""``reach="queries"``: a map of queries is tuned, measured, saved, pushed and found again."""

from __future__ import annotations

import numpy as np
import pytest

from nudge_rag import CorruptArchiveError, LabeledPairs, Nudge, rollback, tune
from nudge_rag.solvers import QueryAdapter
from nudge_rag.stores import MappingStore
from nudge_rag.tuning.adapters import live_adapter, pack_adapter, unpack_adapter

# How little is tried does not show in what becomes of the map that is chosen.
pytestmark = pytest.mark.usefixtures("little_auto")


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def application(seed=0, n=120, d=12, labelled=40, per_node=6, noise=0.25, similarity="cosine"):
    """A store, pairs of half of its nodes, and a model whose queries are turned away from the nodes."""
    rng = np.random.default_rng(seed)
    nodes = unit(rng.normal(size=(n, d)))
    turned = 0.4 * np.eye(d) + 0.6 * np.linalg.qr(rng.normal(size=(d, d)))[0]
    texts = [f"query {number} of n{node}" for node in range(labelled) for number in range(per_node)]
    answers = np.repeat(np.arange(labelled), per_node)
    vectors = unit((nodes[answers] + noise * unit(rng.normal(size=(len(texts), d)))) @ turned)
    embedded = dict(zip(texts, vectors, strict=True))
    store = MappingStore(
        {f"n{row}": vector.tolist() for row, vector in enumerate(nodes)}, similarity=similarity, key="t"
    )
    pairs = LabeledPairs.from_pairs((text, f"n{node}") for text, node in zip(texts, answers, strict=True))
    return store, pairs, lambda asked: np.array([embedded[text] for text in asked]), nodes


@pytest.fixture(scope="module", params=["cosine", pytest.param("l2", marks=pytest.mark.slow)])
def tuned(request, little_auto, tmp_path_factory):
    store, pairs, embed, nodes = application(similarity=request.param)
    nudge = tune(store, pairs, embed, versions=tmp_path_factory.mktemp("versions"), reach="queries")
    return store, pairs, embed, nodes, nudge


@pytest.mark.slow
def test_the_figures_are_those_of_mapped_queries_among_all_nodes(tuned):
    _, _, embed, nodes, nudge = tuned
    assert nudge.adapter is not None
    assert nudge.improves
    moved = nodes.copy()
    moved[[int(node_id[1:]) for node_id in nudge.ids]] = nudge.vectors
    test = nudge.split.test
    queries = nudge.adapter(embed(list(test.queries.values())))
    best = np.argmax(unit(queries) @ unit(moved).T, axis=1)
    hits = [f"n{row}" in grades for row, grades in zip(best, test.qrels.values(), strict=True)]
    row = next(row for row in nudge.comparison.rows if row.metric == "Recall@1" and row.group == "all")
    assert row.after == pytest.approx(np.mean(hits))
    assert row.after > row.before + 0.1


def test_save_and_load_keep_the_adapter(tuned, tmp_path):
    store, _, _, _, nudge = tuned
    nudge.save(tmp_path / "saved")
    again = Nudge.load(tmp_path / "saved", store)
    assert again.adapter.change.tobytes() == nudge.adapter.change.tobytes()


def test_a_push_records_the_adapter_and_a_rollback_takes_it_away(tuned):
    store, _, _, _, nudge = tuned
    assert live_adapter(store, nudge.versions) is None
    with pytest.warns(UserWarning, match="queries must pass nudge.adapter"):
        assert nudge.push().pushed
    assert live_adapter(store, nudge.versions).change.tobytes() == nudge.adapter.change.tobytes()
    rollback(store, nudge.versions)
    assert live_adapter(store, nudge.versions) is None


def test_an_overlay_is_not_handed_out_in_silence(tuned):
    with pytest.warns(UserWarning, match="queries must pass nudge.adapter"):
        tuned[-1].overlay()


@pytest.mark.parametrize(
    "packed", [{}, {"dimension": 2, "float32": "!"}, {"dimension": 3, "float32": "AAAA"}, {"dimension": "x"}]
)
def test_damaged_adapters(packed):
    with pytest.raises(CorruptArchiveError, match="the adapter in the record of a push is damaged"):
        unpack_adapter(packed)


def test_packing_keeps_float32_bits():
    change = np.random.default_rng(0).normal(size=(5, 5)).astype(np.float32)
    assert unpack_adapter(pack_adapter(QueryAdapter(change))).change.tobytes() == change.tobytes()


def test_a_reach_needs_the_solver_that_has_one(tmp_path):
    store, pairs, embed, _ = application()
    with pytest.raises(ValueError, match="reach='queries' needs solver='auto', got 'nudge-n'"):
        tune(store, pairs, embed, versions=tmp_path, reach="queries", solver="nudge-n")
    with pytest.raises(ValueError, match="reach must be one of 'labelled', 'queries', 'nodes', got 'all'"):
        tune(store, pairs, embed, versions=tmp_path, reach="all")
