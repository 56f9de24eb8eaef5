"""Metrics by hand, and vectorised against one query at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nudge_rag import MRR, CappedRecall, Metric, Recall, Success, evaluate, nDCG, parse_metric

QRELS = {"q": {"a": 3, "b": 1, "c": 0, "d": 1}}
RUN = {"q": ["c", "a", "x", "b"]}


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        # gains 3 at place 2 and 1 at place 4, ideal 3, 1, 1
        ("nDCG@10", (3 / np.log2(3) + 1 / np.log2(5)) / (3 + 1 / np.log2(3) + 1 / np.log2(4))),
        ("nDCG@2", (3 / np.log2(3)) / (3 + 1 / np.log2(3))),
        ("Recall@4", 2 / 3),
        ("Recall@1", 0),
        ("CappedRecall@2", 1 / 2),
        ("CappedRecall@10", 2 / 3),
        ("MRR@10", 1 / 2),
        ("MRR@1", 0),
        ("Success@2", 1),
        ("Success@1", 0),
    ],
)
def test_by_hand(metric, expected):
    assert evaluate(QRELS, RUN, [metric]).mean(metric) == pytest.approx(expected)


@pytest.mark.parametrize("metric", ["nDCG@10", "nDCG@2", "Recall@1", "CappedRecall@1", "MRR@3", "Success@1"])
def test_answers_that_tie_for_the_first_place_are_worth_no_more_than_the_best_ranking(metric):
    values = parse_metric(metric).per_query(np.zeros(3, dtype=int), np.ones(3), np.array([0, 0, 1]), 2)
    assert values.tolist() == [1.0, 1.0]


def test_metrics_are_values():
    assert {nDCG @ 10: 1}[parse_metric("nDCG@10")] == 1
    assert [str(family @ 5) for family in (nDCG, Recall, CappedRecall, MRR, Success)] == [
        "nDCG@5",
        "Recall@5",
        "CappedRecall@5",
        "MRR@5",
        "Success@5",
    ]
    assert parse_metric(Recall @ 3) == Metric("Recall", 3)


@pytest.mark.parametrize("bad", ["nDCG", "nDCG@", "nDCG@0", "nDCG@-1", "nDCG@1.5", "NDCG@10", "@10", "Recall@²"])
def test_bad_names(bad):
    with pytest.raises(ValueError, match=r"family|cut-off"):
        parse_metric(bad)


def test_bad_types():
    with pytest.raises(TypeError, match="got int"):
        parse_metric(10)
    with pytest.raises(ValueError, match="positive integer"):
        _ = nDCG @ True


def test_missing_and_unjudged_queries():
    evaluation = evaluate({"q": {"a": 1}, "gone": {"a": 1}, "none": {"a": 0}}, {"q": ["a"], "none": ["a"]}, ["nDCG@5"])
    assert evaluation.values[nDCG @ 5].tolist() == [1.0, 0.0, 0.0]
    assert evaluation.mean("nDCG@5") == pytest.approx(1 / 3)


def test_scores_rank_downwards_and_ties_go_by_id():
    run = {"q": {"b": 0.5, "a": 0.5, "c": 0.9}}
    assert evaluate({"q": {"a": 1}}, run, ["MRR@3"]).means() == {"MRR@3": 0.5}


def test_bad_runs():
    with pytest.raises(ValueError, match="twice"):
        evaluate({"q": {"a": 1}}, {"q": ["a", "a"]}, ["MRR@3"])
    with pytest.raises(ValueError, match="no query"):
        evaluate({}, {}, ["MRR@3"])


@given(st.integers(0, 1000), st.sampled_from(["nDCG@3", "Recall@2", "CappedRecall@2", "MRR@4", "Success@1"]))
def test_many_rankings_at_once_equal_one_at_a_time(seed, name):
    rng = np.random.default_rng(seed)
    queries = np.sort(rng.integers(0, 5, size=12))
    ranks = np.stack([rng.permutation(12) for _ in range(4)], axis=1)
    grades = rng.integers(-1, 4, size=12).astype(float)
    metric = parse_metric(name)
    together = metric.per_query(ranks, grades, queries, 6)
    assert together.shape == (6, 4)
    for column in range(4):
        alone = metric.per_query(ranks[:, column], grades, queries, 6)
        for query in range(6):
            own = queries == query
            single = metric.per_query(ranks[own, column], grades[own], np.zeros(own.sum(), dtype=int), 1)
            assert alone[query] == together[query, column] == pytest.approx(single[0])
