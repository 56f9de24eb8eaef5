"""NUDGE-M against a fine grid of brute-force accuracies, and the cases that peers get wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nudge_rag.solvers import NudgeM


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def problem(seed, n=25, d=5, train=18, val=14):
    rng = np.random.default_rng(seed)
    nodes = unit(rng.normal(size=(n, d)))

    def labels(count):
        rows = rng.integers(0, n, size=count)
        return unit(nodes[rows] + rng.normal(size=(count, d)) * 0.5), [[int(row)] for row in rows]

    return nodes, labels(train), labels(val)


def first_place(nodes, queries, answers):
    (share,) = first_places(nodes[None], queries, answers)
    return share


def first_places(nodes, queries, answers):
    """Of each of several places of all nodes the share of queries whose answer is ranked first."""
    scores = queries @ nodes.transpose(0, 2, 1)
    own = scores[:, np.arange(len(queries)), [rows[0] for rows in answers]]
    return (own >= scores.max(axis=2)).mean(axis=1)


@pytest.mark.slow
@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_gamma_is_never_worse_than_a_fine_grid(seed):
    nodes, train, val = problem(seed)
    fit = NudgeM().fit(nodes, train, val)
    grid = np.concatenate([np.linspace(0, 3, 301), [10, 100]])
    steps = NudgeM(gamma=1.0).fit(nodes, train).embeddings() - nodes  # of which gamma takes a multiple
    far = NudgeM(gamma=100).fit(nodes, train).embeddings()
    np.testing.assert_allclose(far, nodes + 100 * steps, atol=1e-9)
    moved = first_places(nodes + grid[:, None, None] * steps, *val)
    assert first_place(fit.embeddings(), *val) >= max(moved) - 1e-12
    # Earlier steps that do equally well are preferred: nothing below the chosen stretch is as good.
    edge = NudgeM(point="edge").fit(nodes, train, val).gamma
    assert edge <= fit.gamma
    assert all(value < max(moved) + 1e-12 for gamma, value in zip(grid, moved, strict=True) if gamma < edge)
    assert fit.improved == (fit.gamma > 0)


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_curve_is_the_share_of_pairs_ranked_first(seed):
    nodes, train, val = problem(seed)
    curve = NudgeM().fit(nodes, train, val).curve
    # Between two starts of intervals there is no tie for rounding to decide.
    for left, right in zip(curve.gammas[:-1], curve.gammas[1:], strict=True):
        inside = NudgeM(gamma=(left + right) / 2).fit(nodes, train, val)
        position = int(np.searchsorted(inside.curve.gammas, inside.gamma))
        assert inside.curve.values[position] == pytest.approx(first_place(inside.embeddings(), *val))


def test_step_is_the_unit_sum_of_unit_queries():
    nodes = np.eye(3) * 2
    fit = NudgeM(gamma=0.5).fit(nodes, (np.array([[0, 3.0, 0], [0, 0, 0.1]]), [[0], [0]]))
    assert np.allclose(fit.vectors, [[2, 0.5 / np.sqrt(2), 0.5 / np.sqrt(2)]])
    assert (fit.embeddings()[1:] == nodes[1:]).all()


def test_nothing_to_gain_changes_nothing():
    nodes = np.eye(4, dtype=np.float32)
    fit = NudgeM().fit(nodes, (np.eye(4)[[1]], [[0]]), (np.eye(4)[[3]], [[3]]))
    assert (fit.gamma, fit.improved) == (0.0, False)
    assert fit.embeddings().tobytes() == nodes.tobytes()


def test_nodes_without_training_queries_hold_the_step_back():
    """Node 0 outranks node 1 for node 1's query from gamma = 1 on; its own query is won from 1/4 on."""
    nodes = np.array([[1.0, 0.0], [0.0, 1.0]])
    queries = np.array([[0.0, 1.0], unit(np.array([[0.75, 1.0]]))[0]])
    fit = NudgeM().fit(nodes, (queries[:1], [[0]]), (queries, [[1], [0]]))
    assert fit.gamma == pytest.approx((0.25 + 1) / 2)


@pytest.mark.parametrize("similarity", ["cosine", "l2"])
def test_other_similarities_are_refused_with_what_to_do(similarity):
    with pytest.raises(ValueError, match=f"a {similarity} store cannot rank: use NudgeN"):
        NudgeM(similarity=similarity)


def test_same_query_for_two_nodes_gives_no_spurious_interval():
    """Both nodes move by the same vector, so the second never catches up with the first."""
    nodes = unit(np.array([[1.0, 0.2, 0], [1.0, 0.3, 0], [0, 0, 1]])).astype(np.float32)
    query = unit(np.array([[1.0, 0.1, 0.1]])).astype(np.float32)
    fit = NudgeM().fit(nodes, (query, [[0, 1]]), (query, [[1]]))
    assert fit.gamma == 0.0


def test_empty_sets_and_bad_gamma():
    nodes, train, val = problem(0)
    with pytest.raises(ValueError, match="training set has no query"):
        NudgeM().fit(nodes, (np.zeros((0, 5)), []), val)
    with pytest.raises(ValueError, match="validation set has no query"):
        NudgeM().fit(nodes, train, None)
    with pytest.raises(ValueError, match="gamma must be between 0"):
        NudgeM(gamma=-1.0)
    with pytest.raises(ValueError, match="point must be"):
        NudgeM(point="top")
