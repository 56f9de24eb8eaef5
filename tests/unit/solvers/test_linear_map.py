"""The linear map of queries: its objective, what it learns, and how its settings are chosen."""

from __future__ import annotations

import numpy as np
import pytest

from nudge_rag import LabeledQueries
from nudge_rag.solvers import LinearMap, QueryAdapter
from nudge_rag.solvers.labels import prepare_labels
from nudge_rag.solvers.linear_map import objective as objectives
from nudge_rag.solvers.linear_map.adapter import map_labels
from nudge_rag.solvers.linear_map.objective import make_objective


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def labelled(seed=0, m=30, c=9, d=5):
    rng = np.random.default_rng(seed)
    nodes = unit(rng.normal(size=(c, d)))
    answers = [sorted({int(row), int((row + step) % c)}) for row, step in rng.integers(0, c, size=(m, 2))]
    grades = [rng.uniform(0.5, 2, size=len(rows)).tolist() for rows in answers]
    labels = LabeledQueries(rng.normal(size=(m, d)), answers, grades)
    return nodes, prepare_labels(labels, "t", n_nodes=c, dimension=d, dtype=np.dtype(float)), labels


def written_out(nodes, labels, tau, ridge, change):
    """The objective by its definition, one query at a time."""
    total = 0.0
    for vector, rows, grades in zip(labels.vectors, labels.answers, labels.grades, strict=True):
        mapped = (np.eye(len(change)) + change) @ (vector / np.linalg.norm(vector))
        logits = nodes @ mapped / tau
        weights = np.array(grades) / sum(grades)
        total += np.log(np.exp(logits).sum()) - (weights * logits[rows]).sum()
    return total / len(labels.answers) + ridge * (change**2).sum()


def test_objective_is_its_definition():
    nodes, prepared, labels = labelled()
    change = np.random.default_rng(1).normal(size=(5, 5)) / 3
    objective = make_objective(prepared, nodes, np.arange(9), 0.2, 0.7)
    assert objective.value_and_gradient(change)[0] == pytest.approx(written_out(nodes, labels, 0.2, 0.7, change))


def test_gradient_is_that_of_finite_differences():
    nodes, prepared, _ = labelled(2)
    objective = make_objective(prepared, nodes, np.arange(9), 0.1, 0.3)
    rng = np.random.default_rng(3)
    change, step = rng.normal(size=(5, 5)) / 3, 1e-6
    gradient = objective.value_and_gradient(change)[1]
    for row in range(5):
        for column in range(5):
            moved = np.zeros((5, 5))
            moved[row, column] = step
            above, below = (objective.value_and_gradient(change + sign * moved)[0] for sign in (1, -1))
            assert gradient[row, column] == pytest.approx((above - below) / (2 * step), abs=1e-6)


def test_objective_is_convex_along_any_line():
    nodes, prepared, _ = labelled(4)
    objective = make_objective(prepared, nodes, np.arange(9), 0.05, 0.01)
    rng = np.random.default_rng(5)
    for _ in range(20):
        first, second = rng.normal(size=(2, 5, 5))
        ends = [objective.value_and_gradient(change)[0] for change in (first, second)]
        middle = objective.value_and_gradient((first + second) / 2)[0]
        assert middle < sum(ends) / 2


def test_the_minimum_is_where_another_descent_ends():
    nodes, _, labels = labelled(6)
    adapter, descent = LinearMap(iterations=200).fit_at(nodes, labels, 0.2, 0.1)
    change, rate = np.zeros((5, 5)), 0.05
    objective = make_objective(labelled(6)[1], nodes, np.arange(9), 0.2, 0.1)
    for _ in range(4_000):
        change -= rate * objective.value_and_gradient(change)[1]
    assert descent.objective == pytest.approx(objective.value_and_gradient(change)[0], rel=1e-4)
    assert np.allclose(adapter.change, change, atol=0.05)


def test_labels_beyond_the_limits_are_sampled_with_every_answer_among_the_nodes(monkeypatch):
    nodes, prepared, _ = labelled(7, m=40, c=12)
    monkeypatch.setattr(objectives, "MOST_QUERIES", 3)
    monkeypatch.setattr(objectives, "MOST_NODES", 7)
    objective = make_objective(prepared, nodes, np.arange(12), 0.1, 0.1)
    scores = objective.scores
    assert len(scores.queries) == 3
    assert len(scores.originals) == 7
    assert np.bincount(scores.query_of_pair, weights=scores.weights).tolist() == pytest.approx([1, 1, 1])
    given = unit(prepared.vectors)
    for query, column in zip(scores.query_of_pair, scores.column_of_pair, strict=True):
        original = int(np.flatnonzero((given == scores.queries[query]).all(axis=1))[0])
        answers = prepared.node_of_pair[prepared.query_of_pair == original]
        assert any((nodes[answer] == scores.originals[column]).all() for answer in answers)
    again = make_objective(prepared, nodes, np.arange(12), 0.1, 0.1)
    assert again.scores.queries.tobytes() == scores.queries.tobytes()


def test_adapter_maps_directions_and_keeps_lengths():
    rng = np.random.default_rng(8)
    change, queries = rng.normal(size=(4, 4)), 3 * rng.normal(size=(6, 4)).astype(np.float32)
    mapped = QueryAdapter(change)(queries)
    wanted = queries @ (np.eye(4) + change).T
    wanted *= np.linalg.norm(queries, axis=1, keepdims=True) / np.linalg.norm(wanted, axis=1, keepdims=True)
    assert mapped.dtype == np.float32
    assert np.allclose(mapped, wanted, atol=1e-5)
    assert np.allclose(QueryAdapter(np.zeros((4, 4)))(queries), queries, atol=1e-6)
    # -I sends every query to zero: they stay.
    assert np.allclose(QueryAdapter(-np.eye(4))(queries), queries)


def test_mapped_nodes_rank_queries_as_mapped_queries_rank_nodes():
    rng = np.random.default_rng(9)
    adapter = QueryAdapter(rng.normal(size=(4, 4)) / 4)
    query, nodes = rng.normal(size=(1, 4)), unit(rng.normal(size=(6, 4)))
    moved = nodes @ (np.eye(4) + adapter.change)
    assert np.allclose(adapter.apply_to_nodes(nodes), unit(moved))
    by_query = (query @ (np.eye(4) + adapter.change).T) @ nodes.T
    assert np.allclose(by_query, query @ moved.T)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (np.zeros((2, 3)), r"adapter must be a square matrix, got shape \(2, 3\)"),
        (np.full((2, 2), np.nan), "adapter holds NaN or infinite values"),
    ],
)
def test_adapters_that_are_none(change, message):
    with pytest.raises(ValueError, match=message):
        QueryAdapter(change)


def test_queries_that_do_not_fit_an_adapter():
    with pytest.raises(ValueError, match="query embeddings have dimension 3, the adapter takes 2"):
        QueryAdapter(np.zeros((2, 2)))(np.ones((1, 3)))


def test_mapped_labels_leave_out_scores_of_unmapped_queries():
    labels = LabeledQueries(np.eye(2), [[0], [1]], competitors=np.zeros((2, 3)))
    mapped = map_labels(labels, QueryAdapter(np.array([[0.0, 1.0], [0.0, 0.0]])))
    assert mapped.competitors is None
    assert np.allclose(mapped.vectors, [[1, 0], [np.sqrt(0.5), np.sqrt(0.5)]])


def test_a_map_that_harms_held_out_nodes_is_not_chosen():
    # Labels at random: a map can only fit noise, and scatters the queries of all other nodes.
    rng = np.random.default_rng(10)
    nodes = unit(rng.normal(size=(60, 8)))
    queries = unit(nodes + 0.05 * rng.normal(size=nodes.shape))
    fit = LinearMap(metric="MRR@10", ridges=[1e-4]).fit(nodes, (queries, [[int(row)] for row in rng.permutation(60)]))
    assert fit.adapter is None or fit.tried[0].change >= -fit.tried[0].error


@pytest.mark.parametrize(("name", "values"), [("taus", [0.0]), ("ridges", [-1.0]), ("ridges", [])])
def test_bad_settings(name, values):
    with pytest.raises(ValueError, match=f"{name} must be positive, got"):
        LinearMap(**{name: values})


@pytest.mark.parametrize("in_cache", [1, 7, 250_000])
def test_rows_are_mapped_in_parts_and_bad_ones_named_by_their_number_among_all(in_cache, monkeypatch):
    monkeypatch.setattr("nudge_rag.common.arrays.NUMBERS_IN_CACHE", in_cache)
    rng = np.random.default_rng(0)
    change, rows = rng.normal(size=(3, 3)), rng.normal(size=(8, 3))
    rows[5] = np.linalg.svd(np.eye(3) + change)[2][0]
    mapped = QueryAdapter(change)(rows)
    for row, found in zip(rows, mapped, strict=True):
        there = row + change @ row
        assert found == pytest.approx(np.linalg.norm(row) * there / np.linalg.norm(there), abs=1e-12)
    assert mapped.dtype == np.float64
    rows[6] = 0
    with pytest.raises(ValueError, match="query embeddings row 6 is a zero vector"):
        QueryAdapter(change)(rows)
    rows[6, 1] = np.nan
    with pytest.raises(ValueError, match="query embeddings row 6 holds NaN"):
        QueryAdapter(change)(rows)
    assert QueryAdapter(change)(np.zeros((0, 3))).shape == (0, 3)
