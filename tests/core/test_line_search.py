"""The exact line search against brute force on fine grids, for every metric and similarity."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nudge_rag import LabeledQueries, NudgeN


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def problem(seed, n=20, d=4, train=14, val=10, answers=3, unlabelled=6):
    rng = np.random.default_rng(seed)
    nodes = unit(rng.normal(size=(n, d)))

    def labels(count, upto):
        chosen = [rng.choice(upto, size=rng.integers(1, answers + 1), replace=False).tolist() for _ in range(count)]
        queries = unit(np.stack([nodes[rows].mean(axis=0) for rows in chosen]) + rng.normal(size=(count, d)) * 0.5)
        return LabeledQueries(queries, chosen, [rng.integers(1, 4, size=len(rows)).tolist() for rows in chosen])

    return nodes, labels(train, n - unlabelled), labels(val, n), rng


METRICS = ["CappedRecall@1", "Recall@3", "CappedRecall@4", "nDCG@5", "MRR@5", "Success@2"]


@given(st.integers(0, 100_000), st.sampled_from(METRICS))
@settings(max_examples=150, deadline=None)
def test_never_worse_than_a_fine_grid_and_every_step_has_its_true_value(seed, metric):
    nodes, train, val, _ = problem(seed)
    exact = NudgeN(metric=metric, search="exact").fit(nodes, train, val)
    best = exact.curve.values.max()
    grid = NudgeN(metric=metric, gammas=np.linspace(0, 2, 401), extend=False)
    assert best >= grid.fit(nodes, train, val).curve.values.max() - 1e-9
    # What the sweep says of a step is what the ranks inside it give.
    for gamma, value in list(zip(exact.curve.gammas, exact.curve.values, strict=True))[:40]:
        there = NudgeN(metric=metric, gamma=gamma).fit(nodes, train, val)
        assert there.curve.values[np.searchsorted(there.curve.gammas, gamma)] == pytest.approx(value, abs=1e-9)
    assert exact.curve.values[np.searchsorted(exact.curve.gammas, exact.gamma)] >= best - 1e-9


@pytest.mark.parametrize("similarity", ["dot", "l2"])
@pytest.mark.parametrize("seed", range(10))
def test_lengths_count_where_the_similarity_says_so(seed, similarity):
    nodes, train, val, rng = problem(seed)
    nodes = nodes * rng.uniform(0.7, 1.4, size=(len(nodes), 1))
    exact = NudgeN(metric="nDCG@3", search="exact", similarity=similarity).fit(nodes, train, val)
    for gamma, value in zip(exact.curve.gammas, exact.curve.values, strict=True):
        there = NudgeN(metric="nDCG@3", gamma=gamma, similarity=similarity).fit(nodes, train, val)
        assert there.curve.values[np.searchsorted(there.curve.gammas, gamma)] == pytest.approx(value, abs=1e-9)


def test_gamma_is_the_middle_of_the_best_step():
    """Node 0 wins the query at 66 degrees between turns of 47 degrees and the end of its arc, 80."""
    angles = np.deg2rad([[0, 85], [80, 0], [66, 0]])
    nodes = np.stack([np.cos(angles[0]), np.sin(angles[0])], axis=1)
    toward, wanted = (np.array([[np.cos(row[0]), np.sin(row[0])]]) for row in angles[1:])
    fit = NudgeN(search="exact").fit(nodes, (toward, [[0]]), (wanted, [[0]]))
    assert fit.gamma == pytest.approx(2 - 2 * np.cos(np.deg2rad((47 + 80) / 2)), abs=1e-6)
    assert fit.improved


def test_nodes_that_reach_the_same_target_tie():
    nodes = unit(np.array([[1.0, 0.2, 0.0], [1.0, -0.3, 0.1], [0.0, 0.0, 1.0]]))
    query = unit(np.array([[1.0, 0.05, 0.9]]))
    fit = NudgeN(search="exact").fit(nodes, (query, [[0, 1]]), (query, [[1]]))
    for gamma, value in zip(fit.curve.gammas, fit.curve.values, strict=True):
        there = NudgeN(gamma=gamma).fit(nodes, (query, [[0, 1]]), (query, [[1]]))
        assert there.curve.values[-1] == pytest.approx(value)


def test_nothing_to_gain():
    fit = NudgeN(search="exact").fit(np.eye(4), (np.eye(4)[[1]] + 0.1, [[0]]), (np.eye(4)[[3]], [[3]]))
    assert (fit.gamma, fit.improved) == (0.0, False)
    assert fit.embeddings().tobytes() == np.eye(4).tobytes()


def test_options_that_do_not_go_together():
    with pytest.raises(ValueError, match="pass neither gamma= nor gammas="):
        NudgeN(search="exact", gamma=0.1)
    with pytest.raises(ValueError, match="search must be 'grid' or 'exact'"):
        NudgeN(search="fine")
