"""What push refuses because of what is live: worse on held-out queries, or queries that it would forget."""

from __future__ import annotations

import numpy as np
import pytest

from nudge_rag import Nudge, tune, versions
from nudge_rag.evaluation.metrics import parse_metric
from nudge_rag.evaluation.runs import Evaluation
from nudge_rag.tuning.gate import compare_with_live, count_forgotten, hash_queries
from tests.support.wanted_nodes import WantedNodes, pairs

WORLD = WantedNodes(12)
IDS, NODES, embed = WORLD.ids, WORLD.nodes, WORLD.embed


@pytest.fixture
def store():
    return WORLD.store()


def nudge_of(store, folder, nodes, words="abcdefghij"):
    return tune(store, pairs(nodes, words), embed, solver="nudge-n", versions=folder)


def test_queries_of_the_live_version_are_not_forgotten_unless_forced(store, tmp_path):
    first = nudge_of(store, tmp_path, range(8))
    assert first.push().pushed
    second = nudge_of(store, tmp_path, range(4, 12))
    held = {text for part in (first.split.train, first.split.val) for text in part.queries.values()}
    new = {text for part in (second.split.train, second.split.val) for text in part.queries.values()}
    with pytest.warns(UserWarning, match=rf"it would forget {len(held - new)} of the {len(held)} queries that version"):
        receipt = second.push()
    assert not receipt.pushed
    assert [version.state for version in versions(store, tmp_path)] == ["committed"]
    assert second.push(force=True).pushed
    details = versions(store, tmp_path)[-1].manifest["details"]
    assert details["query_hashes"] == list(hash_queries(new))
    assert not any(word in str(details["query_hashes"]) for word in held | new), "no text is recorded"


def test_all_pairs_together_may_be_pushed(store, tmp_path):
    assert nudge_of(store, tmp_path, range(6)).push().pushed
    # All pairs of before, the same seed: what was trained on before is trained on again, or held out.
    split = nudge_of(store, tmp_path, range(6)).split
    more = pairs(range(6, 12)).split(0.7, 0.1, 0.2, seed=0)
    whole = type(split)(*(one | other for one, other in zip(split, more, strict=True)))
    nudge = tune(store, whole, embed, solver="nudge-n", versions=tmp_path)
    assert nudge.push().pushed


def test_what_is_worse_than_live_is_refused(store, tmp_path):
    """The first nudge learned all nodes; the second one learns half of them, and is measured on all."""
    assert nudge_of(store, tmp_path, range(12)).push().pushed
    every = pairs(range(12), "klmnopqrst")
    few = pairs(range(2), "abcdefghij")
    split = type(nudge_of(store, tmp_path, range(2)).split)(few, pairs(range(2), "uv"), every)
    nudge = tune(store, split, embed, solver="nudge-n", versions=tmp_path)
    assert nudge.improves
    assert nudge.against_live.is_worse
    assert nudge.against_live.queries == 120
    assert "Against what is live: nDCG@10 is" in str(nudge)
    with pytest.warns(UserWarning, match="it is worse than what is live"):
        assert not nudge.push().pushed
    nudge.save(tmp_path / "saved")
    assert Nudge.load(tmp_path / "saved", store, tmp_path).query_hashes == nudge.query_hashes


def test_held_out_queries_that_the_live_version_saw_do_not_count():
    metric = parse_metric("MRR@10")
    live = Evaluation(("a", "b", "c"), {metric: np.array([1.0, 0.2, 0.3])})
    new = Evaluation(("a", "b", "c"), {metric: np.array([0.1, 0.4, 0.3])})
    fair = compare_with_live(metric, live, new, {"a"})
    assert (fair.live, fair.new, fair.queries, fair.seen) == (0.25, pytest.approx(0.35), 2, 1)
    assert not fair.is_worse
    assert "1 that the live version was made from are left out" in str(fair)
    assert compare_with_live(metric, live, new, ()).is_worse
    none = compare_with_live(metric, live, new, {"a", "b", "c"})
    assert not none.is_worse
    assert str(none).startswith("Not compared with what is live")


@pytest.mark.parametrize("recorded", [None, "abc", 7, {"a": 1}, [1, None]])
def test_details_that_nobody_should_have_written_forget_nothing(recorded):
    assert count_forgotten({"query_hashes": recorded}, []) == (0, 0)


def test_more_pairs_the_next_night_are_pushed_and_judged_on_queries_that_nothing_was_trained_on(store, tmp_path):
    """The ordinary week: all pairs again, and some more; the split is tune's own."""
    first = nudge_of(store, tmp_path, range(6))
    assert first.push().pushed
    learned = {text for part in (first.split.train, first.split.val) for text in part.queries.values()}
    second = nudge_of(store, tmp_path, range(12))
    tested = set(second.split.test.queries.values())
    assert tested
    assert not tested & learned
    assert learned <= {text for part in (second.split.train, second.split.val) for text in part.queries.values()}
    assert second.push().pushed
