"""The exact line search against brute force on fine grids, for every metric and similarity."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nudge_rag import LabeledQueries, NudgeM, NudgeN, parse_metric


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


def assert_values_of_steps(curve, metric, nodes, train, val, similarity="cosine"):
    """What the sweep says of a step is what the ranks inside it give; a search over a grid of them looks at those."""
    gammas = [*curve.gammas, curve.gammas[-1] + 1]  # the best is not the last: that is warned of
    solver = NudgeN(metric=metric, gammas=gammas, extend=False, similarity=similarity)
    grid = solver.fit(nodes, train, val).curve
    assert set(curve.gammas) <= set(grid.gammas)
    np.testing.assert_allclose(grid.values[np.searchsorted(grid.gammas, curve.gammas)], curve.values, rtol=0, atol=1e-9)


METRICS = ["CappedRecall@1", "Recall@3", "CappedRecall@4", "nDCG@5", "MRR@5", "Success@2"]


@pytest.mark.slow
@given(st.integers(0, 100_000), st.sampled_from(METRICS))
@example(seed=2768, metric="CappedRecall@4")  # two nodes that meet at their common target
@example(seed=34494, metric="CappedRecall@4")  # the same, with rounding errors
@example(seed=22726, metric="CappedRecall@1")  # two answers of one query, at their common target
@settings(max_examples=150, deadline=None)
def test_never_worse_than_a_fine_grid_and_every_step_has_its_true_value(seed, metric):
    nodes, train, val, _ = problem(seed)
    exact = NudgeN(metric=metric, search="exact").fit(nodes, train, val)
    best = exact.curve.values.max()
    grid = NudgeN(metric=metric, gammas=np.linspace(0, 2, 201), extend=False)
    assert best >= grid.fit(nodes, train, val).curve.values.max() - 1e-9
    assert_values_of_steps(exact.curve, metric, nodes, train, val)
    assert exact.curve.values[np.searchsorted(exact.curve.gammas, exact.gamma)] >= best - 1e-9


@pytest.mark.parametrize("similarity", ["dot", "l2"])
@pytest.mark.parametrize("seed", range(10))
def test_lengths_count_where_the_similarity_says_so(seed, similarity):
    nodes, train, val, rng = problem(seed)
    nodes = nodes * rng.uniform(0.7, 1.4, size=(len(nodes), 1))
    exact = NudgeN(metric="nDCG@3", search="exact", similarity=similarity).fit(nodes, train, val)
    assert_values_of_steps(exact.curve, "nDCG@3", nodes, train, val, similarity=similarity)


def brute_force_values(nodes, fit, targets, gammas, val, metric):
    """The metric at v + gamma g of each gamma from full rankings, ties in favour of the answer."""
    moved = np.repeat(nodes[None], len(gammas), axis=0)
    moved[:, fit.rows] += np.reshape(gammas, (-1, 1, 1)) * targets
    scores = val.vectors @ moved.transpose(0, 2, 1)
    queries = np.repeat(np.arange(len(val.answers)), [len(answers) for answers in val.answers])
    own = scores[:, queries, np.concatenate(val.answers)]
    ranks = (scores[:, queries] > own[..., None] + 1e-12).sum(axis=2)
    metric = parse_metric(metric)
    grades = np.concatenate(val.grades).astype(float)
    return metric.per_query(ranks.T, grades, queries, len(val.answers)).mean(axis=0)


@pytest.mark.slow
@given(st.integers(0, 100_000), st.sampled_from(METRICS))
@settings(max_examples=100, deadline=None)
def test_nudge_m_finds_every_step_of_any_metric_over_all_gammas(seed, metric):
    nodes, train, val, rng = problem(seed)
    nodes = nodes * rng.uniform(0.7, 1.4, size=(len(nodes), 1))
    fit = NudgeM(metric=metric).fit(nodes, train, val)
    targets = NudgeM(gamma=1.0).fit(nodes, train).vectors - nodes[fit.rows]
    by_hand = brute_force_values(nodes, fit, targets, fit.curve.gammas[:40], val, metric)
    np.testing.assert_allclose(by_hand, fit.curve.values[:40], rtol=0, atol=1e-9)
    best = fit.curve.values[np.searchsorted(fit.curve.gammas, fit.gamma)]
    grid = np.concatenate([np.linspace(0, 3, 150), np.geomspace(3, 1e4, 50)])
    assert best >= brute_force_values(nodes, fit, targets, grid, val, metric).max() - 1e-9
    assert fit.improved == (best > fit.curve.values[0] + 1e-12)
    assert fit.improved or fit.gamma == 0


def test_nudge_m_with_a_fixed_step_reports_its_value():
    nodes, train, val, _ = problem(5)
    searched = NudgeM(metric="nDCG@5").fit(nodes, train, val)
    fixed = NudgeM(metric="nDCG@5", gamma=searched.gamma).fit(nodes, train, val)
    assert fixed.gamma == searched.gamma
    assert fixed.vectors.tobytes() == searched.vectors.tobytes()
    other = NudgeM(metric="nDCG@5", gamma=0.123).fit(nodes, train, val)
    targets = NudgeM(gamma=1.0).fit(nodes, train).vectors - nodes[other.rows]
    (expected,) = brute_force_values(nodes, other, targets, [0.123], val, "nDCG@5")
    assert other.curve.values[np.searchsorted(other.curve.gammas, 0.123)] == pytest.approx(expected, abs=1e-9)
    with pytest.raises(ValueError, match="it takes no metric"):
        NudgeM(metric="nDCG@5", point="edge")


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


@pytest.mark.parametrize(
    "solver",
    [NudgeN(metric="nDCG@10", search="exact"), NudgeN(metric="nDCG@10", gammas=[0.0, 2.0]), NudgeM(metric="nDCG@10")],
    ids=["exact", "grid", "nudge-m"],
)
def test_answers_that_meet_at_their_target_are_worth_no_more_than_the_best_ranking(solver):
    nodes = unit(np.array([[1.0, 0.2, 0.0], [1.0, -0.3, 0.1], [0.0, 0.0, 1.0]]))
    query = unit(np.array([[1.0, 0.05, 0.9]]))
    single = unit(np.array([[1.0, 0.0, 0.0]]))
    train, val = (query, [[0, 1]]), (np.concatenate([query, single]), [[0, 1], [0]])
    assert solver.fit(nodes, train, val).curve.values.max() == pytest.approx(1)


def test_nothing_to_gain():
    fit = NudgeN(search="exact").fit(np.eye(4), (np.eye(4)[[1]] + 0.1, [[0]]), (np.eye(4)[[3]], [[3]]))
    assert (fit.gamma, fit.improved) == (0.0, False)
    assert fit.embeddings().tobytes() == np.eye(4).tobytes()


def test_options_that_do_not_go_together():
    with pytest.raises(ValueError, match="pass neither gamma= nor gammas="):
        NudgeN(search="exact", gamma=0.1)
    with pytest.raises(ValueError, match="search must be 'grid' or 'exact'"):
        NudgeN(search="fine")
