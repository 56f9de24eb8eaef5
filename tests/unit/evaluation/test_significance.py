"""The randomization test against full enumeration, the bootstrap against the normal interval, the table."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from nudge_rag import evaluate
from nudge_rag.evaluation.comparison import compare
from nudge_rag.evaluation.significance import bootstrap_interval, randomization_p_value


@pytest.mark.parametrize("seed", range(5))
def test_small_samples_count_every_flip(seed):
    differences = np.random.default_rng(seed).normal(0.4, 1, size=8)
    observed = abs(differences.mean()) - 1e-12
    flips = [abs(np.mean(differences * signs)) >= observed for signs in itertools.product([1, -1], repeat=8)]
    assert randomization_p_value(np.zeros(8), differences) == pytest.approx(np.mean(flips))


def test_random_flips_approach_full_enumeration(monkeypatch):
    differences = np.random.default_rng(1).normal(0.5, 1, size=11)
    exact = randomization_p_value(np.zeros(11), differences)
    monkeypatch.setattr("nudge_rag.evaluation.significance.EXACT_UP_TO", 0)
    monkeypatch.setattr("nudge_rag.evaluation.significance.VALUES_PER_CHUNK", 1000)
    assert randomization_p_value(np.zeros(11), differences) == pytest.approx(exact, abs=0.02)


def test_extremes():
    assert randomization_p_value([1, 2, 3], [1, 2, 3]) == 1.0
    assert randomization_p_value(np.zeros(500), np.ones(500)) == pytest.approx(1 / 10_001)


def test_bootstrap_covers_like_the_normal_interval():
    differences = np.random.default_rng(2).normal(0.1, 1, size=2000)
    low, high = bootstrap_interval(np.zeros(2000), differences)
    margin = 1.96 * differences.std() / np.sqrt(2000)
    assert low == pytest.approx(differences.mean() - margin, abs=0.005)
    assert high == pytest.approx(differences.mean() + margin, abs=0.005)


def test_many_queries_with_few_values_are_drawn_by_value():
    """As of nDCG with one answer a query: the same intervals and p-values as by drawing queries, up to chance."""
    rng = np.random.default_rng(4)
    before = rng.choice([0.0, 0.5, 0.63, 1.0], size=4_000, p=[0.3, 0.2, 0.2, 0.3])
    after = np.where(
        rng.uniform(size=4_000) < 0.9, before, rng.choice([0.0, 0.5, 1.0], size=4_000, p=[0.32, 0.3, 0.38])
    )
    differences = after - before
    low, high = bootstrap_interval(before, after)
    error = differences.std() / np.sqrt(4_000)
    assert low == pytest.approx(differences.mean() - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(differences.mean() + 1.96 * error, abs=0.1 * error)
    # A sum of so many independent signs is normal.
    z = abs(differences.sum()) / np.sqrt((differences**2).sum())
    assert 0.5 < z < 3
    assert randomization_p_value(before, after) == pytest.approx(math.erfc(z / math.sqrt(2)), abs=0.02)


@pytest.mark.parametrize("values", [([1], [1, 2]), ([], []), ([np.nan], [1]), ([[1]], [[1]])])
def test_bad_values(values):
    with pytest.raises(ValueError, match="before and after"):
        randomization_p_value(*values)


def test_table_shows_groups_apart():
    qrels = {f"q{i}": {"a": 1} for i in range(10)}
    before = evaluate(qrels, {}, ["MRR@5"])
    after = evaluate(qrels, {f"q{i}": ["x", "a"] for i in range(8)}, ["MRR@5"])
    table = compare(before, after, {"all": list(qrels), "covered": [f"q{i}" for i in range(8)], "uncovered": []})
    assert (table.row("MRR@5").before, table.row("MRR@5").after) == (0.0, 0.4)
    assert table.row("MRR@5", "covered").difference == 0.5
    assert table.row("MRR@5", "covered").p_value == pytest.approx(2 / 2**8)
    assert table.row("MRR@5", "uncovered").before is None
    lines = str(table).splitlines()
    assert [line.split()[0] for line in lines[2:5]] == ["all", "covered", "uncovered"]
    assert lines[4].split()[1:] == ["0", "MRR@5", "-", "-", "-", "-", "-"]
    assert len(table.to_dict()["rows"]) == 3
    few = compare(before, after, {"covered": ["q1", "q2"]})
    assert "too few queries to tell: covered (2)" in str(few)
    with pytest.raises(ValueError, match="no row"):
        table.row("nDCG@10")
    with pytest.raises(ValueError, match="same queries"):
        compare(before, evaluate({"q": {"a": 1}}, {}, ["MRR@5"]), {})
