"""What is printed: the decision first, 80 columns, settings sorted with a reason each, at most five ids."""

from __future__ import annotations

import numpy as np
import pytest

import nudge_rag
from nudge_rag import LabeledPairs, PushReceipt, RollbackReceipt, SwitchReceipt
from nudge_rag.evaluation.comparison import Comparison, ComparisonRow
from nudge_rag.solvers import Candidate
from nudge_rag.stores.memory.mapping import MappingStore
from nudge_rag.tuning.printing import describe_candidates, describe_decision, describe_reaches, explain_candidates


def compared(before, after, low, high):
    return Comparison((ComparisonRow("all", "nDCG@10", 1200, before, after, after - before, 0.01, low, high),))


@pytest.mark.parametrize(
    ("improves", "gamma", "comparison", "first", "second"),
    [
        (True, 0.3, compared(0.4, 0.6, 0.15, 0.25), "Push: nDCG@10 on 1,200 held-out queries rises from 0.400 to", ""),
        (True, 0.3, compared(0.4, 0.41, -0.01, 0.03), "Push: nDCG@10", "The interval includes 0: it may be chance."),
        (False, 0.3, compared(0.4, 0.3, -0.2, -0.05), "Do not push: nDCG@10 on 1,200 held-out queries falls from", ""),
        (False, 0.3, compared(0.4, 0.4, 0.0, 0.0), "Do not push: nDCG@10 on 1,200 held-out queries stays", "chance"),
        (False, 0.0, compared(0.4, 0.4, 0.0, 0.0), "Do not push: no step helps", ""),
        (True, 0.3, None, "Push: held-out queries improve.", ""),
    ],
)
def test_the_decision(improves, gamma, comparison, first, second):
    text = describe_decision(improves, gamma, comparison)
    assert text.startswith(first)
    assert second in " ".join(text.split())
    assert max(len(line) for line in text.splitlines()) <= 80


def test_the_decision_names_groups_that_lose_significantly():
    def row(group, low, high, n=40, metric="nDCG@10"):
        return ComparisonRow(group, metric, n, 0.4, 0.3 if high < 0 else 0.5, 0.1, 0.01, low, high)

    rows = [row("all", 0.05, 0.15), row("covered", 0.1, 0.2), row("uncovered", -0.03, -0.01)]
    rows += [row("uncovered", -0.3, -0.1, metric="Recall@1"), row("unseen", -0.3, -0.1, n=3)]
    text = " ".join(describe_decision(True, True, Comparison(tuple(rows))).split())
    assert text.endswith("95% +0.050 .. +0.150). But uncovered queries fall from 0.400 to 0.300 (-0.030 .. -0.010).")


def test_settings_are_sorted_and_each_has_a_reason():
    candidates = [
        Candidate("low", 0.1, 0.70, 0.0, -0.01, 0.01, 9, allowed=True),
        Candidate("harmful", 0.9, 0.90, -0.05, -0.08, -0.02, 9, allowed=False),
        Candidate("not measured", note="needs more labels"),
        Candidate("equal", 0.4, 0.80, 0.0, -0.01, 0.01, 9, allowed=True),
        Candidate("best", 0.3, 0.80, 0.01, 0.0, 0.02, 9, allowed=True, chosen=True),
    ]
    lines = describe_candidates(candidates).splitlines()
    assert lines[0] == "chosen from: 5 settings, by validation"
    assert [line.strip("* ") for line in lines[1:]] == [
        "0.800  best, gamma 0.3",
        "chosen; uncovered queries +0.010 (+0.000 .. +0.020)",
        "0.800  equal, gamma 0.4",
        "as good on validation, but moves nodes further or was tried later",
        "0.700  low, gamma 0.1",
        "validation is 0.100 lower",
        "0.900  harmful, gamma 0.9",
        "loses too much: uncovered queries -0.050 (-0.080 .. -0.020)",
        "-  not measured",
        "needs more labels",
    ]
    assert lines[1].startswith("* ")


def test_if_no_setting_is_chosen_each_says_why():
    candidates = [
        Candidate("nudge-n", 0.0, 0.80, allowed=True),
        Candidate("nudge-contrastive", 0.3, 0.80, allowed=True),
        Candidate("map, tau 0.05", 0.0, 0.70, allowed=True),
        Candidate("nudge-n, offset 0.1", 0.2, 0.79, allowed=True, note="lowers moved nodes"),
    ]
    told = {name: reason for name, _, reason, _ in explain_candidates(candidates)}
    assert told == {
        "nudge-n, gamma 0": "moves no node",
        "nudge-contrastive, gamma 0.3": "no better on validation than the vectors as they are",
        "map, tau 0.05, gamma 0": "no better on validation than the vectors as they are",
        "nudge-n, offset 0.1, gamma 0.2": "lowers moved nodes",
    }


def test_a_setting_that_expectation_decides_is_told_by_it():
    effects = {"uncovered": 0.0, "low": -0.01, "high": 0.01, "new_nodes": 0.0, "new_low": -0.01, "new_high": 0.01}
    effects |= {"allowed": True}
    candidates = [
        Candidate("less", 0.1, 0.80, **effects, expected=0.10),
        Candidate("better on validation alone", 0.1, 0.90, **effects | {"uncovered": -0.02}, expected=0.13),
        Candidate("later", 0.1, 0.90, **effects, expected=0.12),
        Candidate("no gain", 0.1, 0.90, **effects, expected=-0.01),
        Candidate("harmful", 0.1, 0.95, -0.05, -0.08, -0.02, 9, expected=0.2),
        Candidate("taken", 0.1, 0.70, 0.01, 0.0, 0.02, 9, expected=0.12, allowed=True, chosen=True, note="few nodes"),
    ]
    assert describe_candidates(candidates).startswith(
        "chosen from: 6 settings, by expected gain (first number: validation)\n* 0.700  taken"
    )
    assert [(name.partition(",")[0], reason) for name, _, reason, _ in explain_candidates(candidates)] == [
        ("taken", "chosen; expected +0.120; uncovered queries +0.010 (+0.000 .. +0.020); few nodes"),
        (
            "better on validation alone",
            "expected +0.130, no surer gain, and a group of queries loses more",
        ),
        ("later", "expected +0.120, no surer gain, by a solver or step that was tried later, or new nodes gain less"),
        ("less", "expected +0.100, 0.020 less"),
        ("no gain", "expected -0.010: no gain"),
        ("harmful", "loses too much: uncovered queries -0.050 (-0.080 .. -0.020)"),
    ]


def test_if_no_setting_is_expected_to_gain_none_is_said_to_move_no_node_but_the_one_that_does():
    candidates = [
        Candidate("nudge-n", 0.0, 0.80, expected=0.0, allowed=True),
        Candidate("node map, tau 0.05", 0.0, 0.70, expected=-0.1, allowed=True),
    ]
    told = [reason for _, _, reason, _ in explain_candidates(candidates)]
    assert told == ["expected +0.000: no gain, moves no node", "expected -0.100: no gain"]


def test_of_many_settings_the_best_are_shown_and_the_others_counted():
    many = [Candidate(f"setting {number}", 0.1, number / 100, allowed=True) for number in range(20)]
    lines = describe_candidates(many).splitlines()
    assert lines[0] == "chosen from: 20 settings, by validation"
    assert lines[1].split() == ["0.190", "setting", "19,", "gamma", "0.1"]
    assert (len(lines), lines[-1]) == (1 + 2 * 12 + 1, "  and 8 more in tried")


def test_each_reach_shows_what_its_best_setting_is_expected_to_gain():
    settings = [
        Candidate("nudge-n", 0.1, 0.8, expected=0.1),
        Candidate("nudge-contrastive, offset 0", 0.1, 0.8, expected=0.12),
        Candidate("map, tau 0.05, ridge 0.1", 0.0, 0.8, expected=0.16),
        Candidate("map + nudge-contrastive, offset 0", 0.3, 0.8, expected=0.15, chosen=True),
    ]
    assert describe_reaches(settings) == "by reach, expected: labelled +0.120, queries +0.150 (chosen)"
    rough = [*settings[:2], Candidate("map + nudge-contrastive", expected=0.13), Candidate("node map", expected=-0.01)]
    assert describe_reaches(rough) == "by reach, expected: labelled +0.120, queries about +0.130, nodes about -0.010"
    alone = describe_reaches([Candidate("nudge-n", 0.1, 0.8, expected=-0.1)])
    assert "labelled -0.100, queries and nodes were not tried" in alone.replace("\n", " ")
    assert max(len(line) for line in alone.splitlines()) <= 80
    assert describe_reaches([Candidate("not measured", note="needs more labels")]) is None
    no_map = [settings[0], Candidate("node map", note="no map helps")]
    assert describe_reaches(no_map) == "by reach, expected: labelled +0.100, nodes: no map helps"


def test_a_real_nudge_fits_80_columns(little_auto, tmp_path):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 8))
    store = MappingStore({f"node {number}": vector for number, vector in enumerate(vectors)})
    texts = {f"question {number}": vectors[number % 30] + rng.normal(size=8) * 0.3 for number in range(240)}
    pairs = LabeledPairs.from_pairs((text, f"node {at % 30}") for at, text in enumerate(texts))
    nudge = nudge_rag.tune(
        store,
        pairs,
        lambda asked: np.stack([texts[text] for text in asked]),
        metrics=["nDCG@10", "CappedRecall@100"],
        versions=tmp_path,
    )
    text = str(nudge)
    assert text.startswith(("Push: nDCG@10 on 48 held-out queries", "Do not push: "))
    assert max(len(line) for line in text.splitlines()) <= 80
    nudge.save(tmp_path / "saved")
    assert str(nudge_rag.Nudge.load(tmp_path / "saved", store, tmp_path)) == text


def test_receipts_are_sentences_with_at_most_five_ids():
    ids = tuple(f"n{number}" for number in range(2000))
    pushed = PushReceipt(True, 1234, "0002", "pushed as version 0002", changed_since=ids, missing=("gone",))
    assert str(pushed) == (
        "1,234 vectors pushed as version 0002. 2,000 node(s) changed since and are left alone: "
        "'n0', 'n1', 'n2', 'n3', 'n4' and 1995 more. 1 node(s) are no longer in the store: 'gone'."
    )
    assert "n1" not in repr(pushed)
    assert str(PushReceipt(False, 0, None, "gamma is 0")) == "Nothing was pushed: gamma is 0."
    assert str(RollbackReceipt(0, None)) == "Nothing was rolled back: no push is live."
    rolled_back = RollbackReceipt(67, "0001")
    assert str(rolled_back) == "67 vectors are as they were before version 0001, bit for bit."
    inexact = RollbackReceipt(67, "0001", missing=ids, exact=False)
    assert str(inexact).startswith(
        "67 vectors were written back, but the store did not keep them exactly. 2,000 node(s)"
    )
    assert "to the store's rounding" in str(RollbackReceipt(67, "0001", rounding=1e-7))
    assert str(SwitchReceipt("0003", 12)) == "Version 0003 is live; 12 nodes differ from the version before."
