"""The offset that lowers moved nodes: by hand, and against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nudge_rag.evaluation.metrics import parse_metric
from nudge_rag.solvers.contrastive.offset import RIDGE, common_direction, lower_scores, shift_of_offset
from nudge_rag.solvers.labels import prepare_labels
from nudge_rag.solvers.scoring.validation import ValidationScorer


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_common_direction_is_the_ridge_regression_of_one():
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(40, 6)) + np.array([2, 1, 0, 0, 0, 0])
    units = unit(queries)
    ridge = RIDGE * np.cov(units.T, bias=True).trace() / 6
    # min |U u - 1|^2 + m ridge |u|^2 as one least-squares problem.
    rows = np.vstack([units, np.sqrt(40 * ridge) * np.eye(6)])
    wanted = np.linalg.lstsq(rows, np.r_[np.ones(40), np.zeros(6)])[0]
    wanted /= (units @ wanted).mean()
    np.testing.assert_allclose(common_direction(queries), wanted, atol=1e-10)


def test_the_common_direction_of_many_queries_is_summed_in_blocks(monkeypatch):
    queries = np.random.default_rng(1).normal(size=(40, 6)) + 0.5
    whole = common_direction(queries)
    monkeypatch.setattr("nudge_rag.common.arrays.ROWS_AT_ONCE", 7)
    np.testing.assert_allclose(common_direction(queries), whole, rtol=1e-12)


def test_one_query_and_queries_that_cancel_out():
    np.testing.assert_allclose(common_direction(np.array([[0.0, 3.0]])), [0.0, 1.0], atol=1e-12)
    assert common_direction(np.array([[1.0, 0.0], [-1.0, 0.0]])).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("n_queries", [1, 2, 50, 1_500])
@pytest.mark.parametrize("apart", [0.0, 1e-6, 1e-4, 1e-2])
def test_of_queries_that_hardly_differ_it_is_their_mean_in_single_precision_too(n_queries, apart):
    rng = np.random.default_rng(3)
    queries = (rng.normal(size=384) + apart * rng.normal(size=(n_queries, 384))).astype(np.float32)
    units = unit(queries.astype(np.float64))
    # The vector that all of them score 1 with: no other one is shorter.
    direction = common_direction(queries)
    np.testing.assert_allclose(units @ direction, 1, atol=1e-4)
    assert np.linalg.norm(direction) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("dtype", [np.int64, np.float16, np.float32])
def test_common_direction_of_numbers_of_another_kind(dtype):
    queries = np.random.default_rng(4).integers(0, 5, size=(40, 6)).astype(dtype)
    queries[:, 0] += 1
    np.testing.assert_allclose(common_direction(queries), common_direction(queries.astype(np.float64)), atol=1e-5)


@pytest.mark.parametrize("similarity", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_fall_by_the_offset(similarity, dtype):
    rng = np.random.default_rng(1)
    queries = unit(rng.normal(size=(300, 32)) + 3 * np.eye(32)[0])
    nodes = (unit(rng.normal(size=(20, 32)) + 3 * np.eye(32)[1]) * rng.uniform(0.5, 2, size=(20, 1))).astype(dtype)
    moved = lower_scores(nodes, common_direction(queries), 0.05, keep_lengths=similarity != "dot")
    assert moved.dtype == dtype
    lengths = np.linalg.norm(nodes, axis=1)
    if similarity == "dot":
        fall = (queries @ (nodes - moved).T).mean()
        assert fall == pytest.approx(0.05 * lengths.mean(), rel=1e-4)
    else:
        np.testing.assert_allclose(np.linalg.norm(moved, axis=1), lengths, rtol=1e-5)
        assert (queries @ (unit(nodes) - unit(moved)).T).mean() == pytest.approx(0.05, rel=0.2)
    assert lower_scores(nodes, common_direction(queries), 0.0, keep_lengths=similarity != "dot") is nodes


@settings(deadline=None, max_examples=80)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.floats(0, 0.5), min_size=1, max_size=4),
    st.sampled_from(["cosine", "dot", "l2"]),
    st.booleans(),
    st.sampled_from([1, 12]),
)
def test_one_product_tells_the_metric_at_every_offset(seed, offsets, similarity, keep_lengths, answers_a_query):
    rng = np.random.default_rng(seed)
    nodes = rng.normal(size=(30, 6)) + 0.5
    queries = rng.normal(size=(9, 6)) + 0.5
    rows = np.sort(rng.permutation(30)[:20])
    answers = [sorted(rng.permutation(30)[:answers_a_query].tolist()) for _ in queries]
    labels = prepare_labels((queries, answers), "t", n_nodes=30, dimension=6, dtype=np.dtype(float))
    ignored = np.array([0, 4, 4]), np.array([2, 7, rows[0]])
    others = {(int(query), int(node)) for query, node in zip(*ignored, strict=True)}
    others -= set(zip(labels.query_of_pair.tolist(), labels.node_of_pair.tolist(), strict=True))
    left_out = tuple(np.array([pair[place] for pair in sorted(others)], dtype=np.int64) for place in (0, 1))
    scorer = ValidationScorer(labels, nodes, rows, None, parse_metric("nDCG@5"), similarity, left_out)
    moved, direction = rng.normal(size=(20, 6)) + 0.5, common_direction(queries)
    shifts = [shift_of_offset(moved, direction, offset, keep_lengths=keep_lengths) for offset in offsets]
    found = scorer.per_query_shifted(moved, direction, shifts)
    assert len(found) == len(offsets)
    for values, shift, offset in zip(found, shifts, offsets, strict=True):
        lowered = lower_scores(moved, direction, offset, keep_lengths=keep_lengths)
        np.testing.assert_allclose(shift.scale[:, None] * moved + shift.along[:, None] * direction, lowered, atol=1e-9)
        assert values.tolist() == scorer.per_query(lowered).tolist()
