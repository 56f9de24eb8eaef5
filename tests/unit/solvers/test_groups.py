"""The softmax in groups: which queries and nodes come together, and that it is the full one but for the sample."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nudge_rag.solvers import LabeledQueries, NudgeContrastive
from nudge_rag.solvers.contrastive import groups as module
from nudge_rag.solvers.contrastive.groups import (
    QueryGroups,
    _beside,
    _near_means,
    group_queries,
    is_cheaper_in_groups,
    reorder_queries,
    select_columns,
)
from nudge_rag.solvers.contrastive.lbfgs import minimize
from nudge_rag.solvers.contrastive.objective import ContrastiveObjective
from nudge_rag.solvers.labels import prepare_labels


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def objective(uncovered_weight=0.0, sphere=True, m=14, c=9, d=5):
    rng = np.random.default_rng(2)
    pairs = np.array([(i, j) for i in range(m) for j in sorted(rng.choice(c, size=rng.integers(1, 3), replace=False))])
    weights = rng.uniform(0.5, 2, size=len(pairs))
    weights /= np.bincount(pairs[:, 0], weights=weights)[pairs[:, 0]]
    labelled = {tuple(pair) for pair in pairs.tolist()}
    rejected = np.array([(i, j) for i in range(m) for j in (0, 3) if (i, j) not in labelled])
    return ContrastiveObjective(
        unit(rng.normal(size=(m, d))),
        pairs[:, 0],
        pairs[:, 1],
        weights,
        rng.normal(size=m),
        unit(rng.normal(size=(c, d))),
        0.3,
        sphere,
        uncovered_weight,
        (rejected[:, 0], rejected[:, 1], np.log1p(rng.uniform(0.5, 5, size=len(rejected)))),
    )


def in_two_groups(full):
    """Groups of 6 and 8 queries; each leaves out nodes that none of them labels or rejects, another counts thrice."""
    columns, counts = [], []
    for first, last in ((0, 6), (6, 14)):
        named = {
            int(column)
            for rows, nodes in ((full.query_of_pair, full.column_of_pair), full.rejected[:2])
            for row, column in zip(rows, nodes, strict=True)
            if first <= row < last
        }
        others = [column for column in range(9) if column not in named]
        shown = sorted([*named, *others[:1]])
        columns.append(np.array(shown))
        counts.append(np.log([3.0 if column in others else 1.0 for column in shown]))
    return replace(full, groups=QueryGroups(np.array([0, 6, 14]), tuple(columns), tuple(counts)))


def by_definition(one, vectors, strength):
    """The docstring's formula on the sphere, with each group's columns and how many nodes they stand for."""
    nodes = unit(vectors)
    total = strength * (((nodes - one.originals) ** 2).sum() + ((np.linalg.norm(vectors, axis=1) - 1) ** 2).sum())
    for group, (first, last) in enumerate(((0, 6), (6, 14))):
        columns, counts = one.groups.columns[group], np.exp(one.groups.log_counts[group])
        for i in range(first, last):
            own = one.column_of_pair[one.query_of_pair == i].tolist()
            times = dict(zip(columns.tolist(), counts, strict=True))
            for row, column, extra in zip(*one.rejected, strict=True):
                if row == i:
                    times[int(column)] *= np.exp(extra)
            now = {j: np.exp(one.queries[i] @ nodes[j] / one.tau) for j in times}
            before = {j: np.exp(one.queries[i] @ one.originals[j] / one.tau) for j in own}
            total += np.log(sum(times[j] * now[j] for j in times) + np.exp(one.others[i]))
            lost = sum(times[j] * (before[j] if j in own else now[j]) for j in times)
            total += one.uncovered_weight * np.log(lost + np.exp(one.others[i]))
            for j, weight in zip(own, one.weights[one.query_of_pair == i], strict=True):
                total -= weight * one.queries[i] @ nodes[j] / one.tau
    return total


@pytest.mark.parametrize("uncovered_weight", [0.0, 0.7])
def test_objective_in_groups_is_its_formula_and_its_gradient_that_of_finite_differences(uncovered_weight):
    one = in_two_groups(objective(uncovered_weight))
    vectors = one.originals + 0.2 * np.random.default_rng(0).normal(size=one.originals.shape)
    value, gradient = one.value_and_gradient(vectors, 0.4)
    assert value == pytest.approx(by_definition(one, vectors, 0.4), rel=1e-9)
    step = 1e-6
    for j, k in ((0, 0), (3, 2), (8, 4), (5, 1)):
        shift = np.zeros_like(vectors)
        shift[j, k] = step
        ends = [one.value_and_gradient(vectors + sign * shift, 0.4)[0] for sign in (1, -1)]
        assert gradient[j, k] == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-5)


def test_groups_that_hold_every_node_change_nothing():
    full = objective(0.3)
    everything = (np.arange(9), np.arange(9))
    one = replace(full, groups=QueryGroups(np.array([0, 6, 14]), everything, (np.zeros(9), np.zeros(9))))
    for got, expected in zip(
        one.value_and_gradient(full.originals * 1.1, 2.0),
        full.value_and_gradient(full.originals * 1.1, 2.0),
        strict=True,
    ):
        assert got == pytest.approx(expected, rel=1e-12)


def test_queries_that_are_alike_come_into_one_group(monkeypatch):
    monkeypatch.setattr(module, "GROUP_SIZE", 25)
    rng = np.random.default_rng(1)
    centres = unit(rng.normal(size=(8, 6)))
    kind = rng.permutation(np.repeat(np.arange(8), 25))
    order, bounds = group_queries(unit(centres[kind] + 0.01 * rng.normal(size=(200, 6))))
    assert sorted(order.tolist()) == list(range(200))
    assert np.diff(bounds).tolist() == [25] * 8
    pure = [len(set(kind[order[first:last]].tolist())) for first, last in itertools.pairwise(bounds)]
    assert sum(pure) <= 12  # 8 if no cut went through a kind
    same, _ = group_queries(np.ones((60, 3)))
    assert sorted(same.tolist()) == list(range(60))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 300), st.integers(1, 40), st.integers(1, 50))
def test_groups_are_as_few_and_as_even_as_can_be(count, size, sampled):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "GROUP_SIZE", size)
        patch.setattr(module, "ROWS_OF_A_DIRECTION", sampled)
        order, bounds = group_queries(np.random.default_rng(count).normal(size=(count, 3)).astype(np.float32))
    sizes = np.diff(bounds)
    assert len(sizes) == max(1, math.ceil(count / size))
    assert sizes.max() <= size
    assert sizes.max() - sizes.min() <= 1
    assert bounds[0] == 0
    assert sorted(order.tolist()) == list(range(count))


def test_columns_are_labels_nearest_nodes_and_a_sample_that_stands_for_the_rest(monkeypatch):
    monkeypatch.setattr(module, "NEAREST", (6, 6))
    monkeypatch.setattr(module, "SAMPLED", (10, 10))
    rng = np.random.default_rng(4)
    nodes = unit(rng.normal(size=(200, 6)))
    queries = unit(nodes[:1] + 0.1 * rng.normal(size=(30, 6)))
    pairs = (np.array([0, 29]), np.array([150, 160]))
    chosen = select_columns(queries, np.array([0, 30]), nodes, pairs, (np.array([3]), np.array([170])))
    columns, counts = chosen.columns[0], np.exp(chosen.log_counts[0])
    shares = np.exp(queries @ nodes.T / 0.05)
    mass = (shares / shares.sum(axis=1, keepdims=True)).sum(axis=0)
    named = {150, 160, 170, *np.argsort(-mass)[:6].tolist()}
    assert set(columns[counts == 1].tolist()) == named
    assert len(columns) == len(named) + 10
    assert counts.sum() == pytest.approx(200)
    assert (np.diff(columns) > 0).all()


@settings(deadline=None, max_examples=60)
@given(st.sets(st.integers(0, 30)), st.data())
def test_places_beside_what_is_kept(kept, data):
    others = sorted(set(range(40)) - kept)
    places = data.draw(st.lists(st.integers(0, len(others) - 1), max_size=8))
    found = _beside(np.array(sorted(kept), dtype=np.int64), np.array(places, dtype=np.int64))
    assert found.tolist() == [others[place] for place in places]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 400), st.integers(1, 40), st.booleans(), st.sampled_from([1, 3, 32]))
def test_the_largest_are_those_of_a_sort(seed, count, wanted, tied, sampled):
    rng = np.random.default_rng(seed)
    scores = rng.permutation(count).astype(np.float32)
    if tied:
        scores = scores // 5
    wanted = min(wanted, count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SAMPLED_SCORES", sampled)
        found = module._largest(scores, wanted)
    assert len(set(found.tolist())) == wanted
    assert found.tolist() == sorted(found.tolist())
    assert sorted(scores[found]) == sorted(scores)[-wanted:]


@pytest.mark.parametrize(
    ("at_once", "nodes_of_parts", "size"), [(1, 300, 32), (12, 300, 32), (100, 300, 32), (5, 100, 96)]
)
def test_nodes_near_the_means_of_parts_however_many_means_at_once(monkeypatch, at_once, nodes_of_parts, size):
    monkeypatch.setattr(module, "SCORES_AT_ONCE", 300 * at_once)
    monkeypatch.setattr(module, "FEWEST_MEANS", 1)
    monkeypatch.setattr(module, "NODES_OF_PARTS", nodes_of_parts)
    rng = np.random.default_rng(5)
    nodes, queries = unit(rng.normal(size=(300, 6))), unit(rng.normal(size=(420, 6)))
    bounds = np.array([0, 100, 190, 290, 420])
    found = list(_near_means(queries, bounds, nodes, 40))
    assert len(found) == 4
    for columns, (first, last) in zip(found, itertools.pairwise(bounds), strict=True):
        parts = [queries[start : min(start + size, last)] for start in range(first, last, size)]
        highest = np.max([nodes @ unit(part.mean(axis=0, keepdims=True))[0] for part in parts], axis=0)
        assert columns.tolist() == sorted(np.argsort(-highest)[:40].tolist())


def test_labels_in_another_order_are_the_same_labels():
    rng = np.random.default_rng(6)
    answers = [sorted(rng.choice(9, size=3, replace=False).tolist()) for _ in range(12)]
    labels = LabeledQueries(rng.normal(size=(12, 4)), answers, [[2.0, 1.0, -1.0]] * 12, rng.normal(size=(12, 2)))
    prepared = prepare_labels(labels, "t", n_nodes=9, dimension=4, dtype=np.dtype(float))
    order = rng.permutation(12)
    moved = reorder_queries(prepared, order)
    expected = prepare_labels(
        LabeledQueries(
            labels.vectors[order], [answers[i] for i in order], [[2.0, 1.0, -1.0]] * 12, labels.competitors[order]
        ),
        "t",
        n_nodes=9,
        dimension=4,
        dtype=np.dtype(float),
    )
    for name in ("vectors", "query_of_pair", "node_of_pair", "grades", "competitors"):
        assert getattr(moved, name).tolist() == getattr(expected, name).tolist()
    for name in ("query_of_pair", "node_of_pair", "weights"):
        assert getattr(moved.rejected, name).tolist() == getattr(expected.rejected, name).tolist()


def test_the_solution_in_groups_answers_as_many_queries_as_the_full_one(monkeypatch):
    rng = np.random.default_rng(0)
    nodes = unit(rng.normal(size=(400, 12))).astype(np.float32)
    places = unit(nodes + 0.7 * unit(rng.normal(size=(400, 12))))

    def labels(count):
        answers = rng.integers(0, 400, size=count)
        return unit(places[answers] + 0.3 * unit(rng.normal(size=(count, 12)))).astype(np.float32), answers

    (queries, answers), (test, wanted) = labels(1_500), labels(2_000)
    train = (queries, [[int(answer)] for answer in answers])
    solver = NudgeContrastive(taus=[0.05], strength=3.0)
    hits = {}
    for name, cheaper in (("groups", True), ("full", False)):
        monkeypatch.setattr(
            "nudge_rag.solvers.contrastive.descent.is_cheaper_in_groups", lambda *sizes, cheaper=cheaper: cheaper
        )
        moved = solver.fit(nodes, train).embeddings()
        hits[name] = ((test @ moved.T).argmax(axis=1) == wanted).mean()
    before = ((test @ nodes.T).argmax(axis=1) == wanted).mean()
    assert hits["full"] > before + 0.2
    assert hits["groups"] == pytest.approx(hits["full"], abs=0.02)


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_very_many_numbers_are_descended_on_in_their_own_precision(monkeypatch, similarity):
    rng = np.random.default_rng(3)
    nodes = (unit(rng.normal(size=(40, 8))) * rng.uniform(0.8, 1.2, size=(40, 1))).astype(np.float32)
    answers = rng.integers(0, 30, size=160)
    queries = unit(nodes[answers] + 0.6 * unit(rng.normal(size=(160, 8)))).astype(np.float32)
    solver = NudgeContrastive(taus=[0.05], strength=3.0, similarity=similarity)
    seen = []

    def minimizing(function, start, **options):
        found = minimize(function, start, **options)
        seen.append((start.dtype, found.point.dtype, found.gradient.dtype))
        return found

    monkeypatch.setattr("nudge_rag.solvers.contrastive.descent.minimize", minimizing)
    whole = solver.fit(nodes, (queries, [[int(answer)] for answer in answers]))
    monkeypatch.setattr("nudge_rag.solvers.contrastive.descent.LARGE", 100)
    single = solver.fit(nodes, (queries, [[int(answer)] for answer in answers]))
    assert seen == [(np.float64,) * 3, (np.float32,) * 3]
    assert single.vectors.dtype == np.float32
    np.testing.assert_allclose(single.vectors, whole.vectors, atol=1e-3)
    assert np.abs(whole.vectors - nodes[whole.rows]).max() > 0.05


def test_groups_pay_where_nodes_are_many():
    assert not is_cheaper_in_groups(100, 100_000)  # a single group
    assert not is_cheaper_in_groups(100_000, 200)
    assert is_cheaper_in_groups(100_000, 3_000)


@pytest.mark.slow
@pytest.mark.parametrize(("labels_a_query", "as_full"), [(60, True), (1, False)])
def test_queries_with_so_many_labels_that_all_nodes_cost_less_are_not_put_into_groups(
    monkeypatch, labels_a_query, as_full
):
    rng = np.random.default_rng(7)
    nodes = unit(rng.normal(size=(1_000, 8)))
    queries = np.repeat(nodes, 2, axis=0)
    answers = [[row // 2, *rng.choice(1_000, size=labels_a_query - 1).tolist()] for row in range(2_000)]
    solver = NudgeContrastive(taus=[0.05], strength=3.0, iterations=2)
    found = solver.fit(nodes, (queries, answers)).vectors
    monkeypatch.setattr("nudge_rag.solvers.contrastive.descent.is_cheaper_in_groups", lambda *sizes: False)
    assert (found.tobytes() == solver.fit(nodes, (queries, answers)).vectors.tobytes()) == as_full
