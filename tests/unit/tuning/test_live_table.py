"""Originals, live and new vectors, side by side on the same held-out queries."""

from __future__ import annotations

import json

import numpy as np
import pytest

from nudge_rag import LabeledPairs, Nudge, TuningState, tune
from nudge_rag.evaluation.comparison import Comparison, compare
from nudge_rag.evaluation.runs import evaluate_run
from nudge_rag.evaluation.significance import bootstrap_interval
from nudge_rag.feedback.pairs import Split
from nudge_rag.stores import MappingStore
from tests.support.wanted_nodes import WantedNodes, pairs

N = 12
WORLD = WantedNodes(N, kept=0.3)
IDS, NODES, embed = WORLD.ids, WORLD.nodes, WORLD.embed
METRICS = ("Recall@1", "nDCG@3")
NONE = LabeledPairs({}, {})


@pytest.fixture
def store():
    return WORLD.store()


def by_brute_force(vectors, held_out, nodes=IDS):
    """Rank every node for every query by cosine."""
    unit = np.asarray(vectors) / np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = embed(list(held_out.queries.values()))
    orders = np.argsort(-(queries @ unit.T), axis=1)
    run = {query: [nodes[row] for row in order] for query, order in zip(held_out.queries, orders, strict=True)}
    return evaluate_run(held_out.qrels, run, METRICS)


def after_a_push(store, folder, nodes=range(8), words="abcdefghij"):
    first = tune(store, pairs(nodes, words), embed, solver="nudge-n", versions=folder, metrics=METRICS)
    assert first.push().pushed
    return first


def test_three_columns_are_what_brute_force_gives(store, tmp_path):
    assert not after_a_push(store, tmp_path).comparison.has_live, "nothing was live then"
    second = tune(store, pairs(range(N)), embed, solver="nudge-n", versions=tmp_path, metrics=METRICS)
    held_out = second.split.test
    vectors = {"before": NODES, "live": store.read(IDS), "after": second.overlay().read(IDS)}
    measured = {name: by_brute_force(each, held_out) for name, each in vectors.items()}
    assert len({each.mean("nDCG@3") for each in measured.values()}) == 3, "the three are told apart"
    for metric in METRICS:
        row = second.comparison.row(metric)
        for name, each in measured.items():
            assert getattr(row, name) == pytest.approx(each.mean(metric)), (metric, name)
        live, new = (measured[name].of(metric, list(held_out.queries)) for name in ("live", "after"))
        assert row.live_difference == pytest.approx((new - live).mean())
        assert (row.live_low, row.live_high) == bootstrap_interval(live, new)
    text = str(second)
    assert max(map(len, text.splitlines())) <= 80
    for word in ("originals", "live", "new", "of new against live"):
        assert word in text
    plain = json.loads(json.dumps(second.to_dict()))
    assert plain["comparison"]["rows"][0]["live"] == second.comparison.rows[0].live
    assert plain["against_live"]["version"] == "0001"
    assert Comparison.from_dict(plain["comparison"]) == second.comparison


def test_a_state_shows_the_same_three_columns_as_tune(store, tmp_path):
    after_a_push(store, tmp_path)
    split = pairs(range(N), "klmnopqrst").split(0.7, 0.1, 0.2)
    state = TuningState(store, embed, versions=tmp_path, metrics=METRICS)
    state.add_pairs(split)
    found = state.solve()
    expected = tune(store, split, embed, solver="nudge-n", versions=tmp_path, metrics=METRICS)
    assert found.comparison.has_live
    assert [row.live for row in found.comparison.rows] == pytest.approx([row.live for row in expected.comparison.rows])
    assert found.query_hashes == expected.query_hashes


def test_a_state_that_lost_pairs_of_the_live_version_does_not_push(store, tmp_path):
    after_a_push(store, tmp_path)
    state = TuningState(store, embed, versions=tmp_path)
    state.add_pairs(pairs(range(8, N), "klmnopqrst"))
    with pytest.warns(UserWarning, match="it would forget 64 of the 64 queries"):
        assert not state.solve().push().pushed


def test_queries_of_nodes_that_left_the_store_are_not_forgotten(store, tmp_path):
    """They are among the new pairs; no push can learn them."""
    after_a_push(store, tmp_path)
    del store._table["n3"]
    with pytest.warns(UserWarning, match="'n3'"):
        nudge = tune(store, pairs(range(N)), embed, solver="nudge-n", versions=tmp_path)
    assert nudge._what_is_lost() is None
    state = TuningState(store, embed, versions=tmp_path)
    with pytest.warns(UserWarning, match="'n3'"):
        state.add_pairs(pairs(range(N)))
    state.save(tmp_path / "state")
    again = TuningState.load(tmp_path / "state", store, embed, versions=tmp_path)
    kept = {*nudge.query_hashes} - {*state.solve().query_hashes}
    tested = {*state.pairs().test.queries}
    assert len(kept) <= len(tested), "only queries of the test part are not among them"
    assert again.solve().query_hashes == state.solve().query_hashes


def test_the_table_says_if_the_live_version_was_trained_on_held_out_queries(store, tmp_path):
    first = after_a_push(store, tmp_path)
    learned = list(first.split.train.queries)[:5]
    held_out = pairs(range(8), "uv")
    both = LabeledPairs(
        {**held_out.queries, **{f"seen {q}": first.split.train.queries[q] for q in learned}},
        {**held_out.qrels, **{f"seen {q}": first.split.train.qrels[q] for q in learned}},
    )
    split = Split(pairs(range(8), "klmnopqrst"), pairs(range(8), "xy"), both)
    nudge = tune(store, split, embed, solver="nudge-n", versions=tmp_path, metrics=METRICS)
    assert nudge.comparison.seen == 5
    assert "live was made from 5 of these queries" in str(nudge)
    unseen = nudge.comparison.row("nDCG@3", "unseen")
    assert unseen.n_queries == 16
    assert unseen.live == pytest.approx(by_brute_force(store.read(IDS), held_out).mean("nDCG@3"))
    assert nudge.against_live.queries == nudge.comparison.row("Recall@1", "unseen").n_queries
    whole = Split(
        split.train,
        split.val,
        LabeledPairs(
            {q: first.split.train.queries[q] for q in learned}, {q: first.split.train.qrels[q] for q in learned}
        ),
    )
    every = tune(store, whole, embed, solver="nudge-n", versions=tmp_path, metrics=METRICS)
    assert "live was made from 5 of these queries" in str(every)
    assert {row.group for row in every.comparison.rows} == {"all", "covered", "uncovered"}


def test_worse_than_live_is_the_decision_and_stays_it_when_saved(store, tmp_path):
    after_a_push(store, tmp_path, range(N))
    split = Split(pairs(range(2), "klmnopqrst"), pairs(range(2), "uv"), pairs(range(N), "wxyz"))
    nudge = tune(store, split, embed, solver="nudge-n", versions=tmp_path)
    assert nudge.improves
    assert str(nudge).startswith("Do not push: it is worse than what is live")
    nudge.save(tmp_path / "saved")
    again = Nudge.load(tmp_path / "saved", store, tmp_path)
    assert again.against_live == nudge.against_live
    assert str(again) == str(nudge)
    with pytest.warns(UserWarning, match="it is worse than what is live"):
        assert not again.push().pushed
    again.rollback()
    assert again.push().pushed, "what it was worse than is gone"


def test_evaluations_of_other_queries_are_not_compared():
    one, other = (evaluate_run({query: {"a": 1}}, {}, ["MRR@3"]) for query in ("q", "r"))
    with pytest.raises(ValueError, match="must hold the same queries"):
        compare(one, one, {"all": ["q"]}, live=other)


@pytest.mark.parametrize(
    "plain",
    [
        None,
        [],
        {"rows": [{"group": 1, "metric": "MRR@3", "n_queries": 1}]},
        {"rows": [{"group": "all", "metric": "MRR@3", "n_queries": 1, "before": "x"}]},
        {"rows": [], "seen": "many"},
    ],
)
def test_other_things_are_no_comparison(plain):
    with pytest.raises(ValueError, match="not a comparison"):
        Comparison.from_dict(plain)


def test_a_saved_nudge_knows_its_store_by_its_history_and_not_by_its_address(store, tmp_path):
    history = tmp_path / "history"

    class Moved(MappingStore):
        """The same table at another address; its history is with it."""

        def history(self):
            from nudge_rag.stores.storages import FolderStorage

            return FolderStorage(self.place)

    def at(key, place, table=store._table):
        opened = Moved(table, key=key)
        opened.place = place
        return opened

    here = at("localhost", history)
    assert tune(here, pairs(range(8)), embed, solver="nudge-n").push().pushed
    nudge = tune(here, pairs(range(N)), embed, solver="nudge-n")
    state = TuningState(here, embed)
    state.add_pairs(pairs(range(N)))
    nudge.save(tmp_path / "nudge")
    state.save(tmp_path / "state")
    for key in ("localhost", "127.0.0.1"):
        assert Nudge.load(tmp_path / "nudge", at(key, history)).ids == nudge.ids
        assert len(TuningState.load(tmp_path / "state", at(key, history), embed)) == len(state)
    other = at("localhost", tmp_path / "other", {node: vector[::-1] for node, vector in store._table.items()})
    assert tune(other, pairs(range(8)), embed, solver="nudge-n").push(force=True).pushed
    with pytest.raises(ValueError, match="their histories are not the same"):
        Nudge.load(tmp_path / "nudge", other)
    with pytest.raises(ValueError, match="their histories are not the same"):
        TuningState.load(tmp_path / "state", other, embed)
