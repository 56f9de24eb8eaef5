"""rank_nodes: the best of each query as a sort of all its scores gives them, ties by row, in one thread or several."""

from __future__ import annotations

import numpy as np
import pytest

from nudge_rag.common import ranking
from nudge_rag.common.ranking import rank_nodes

RNG = np.random.default_rng(3)


def by_sorting(queries, vectors, k):
    """Rows by (-score, row): of small integers, whose products are exact in any order."""
    scores = [[int(sum(a * b for a, b in zip(query, vector, strict=True))) for vector in vectors] for query in queries]
    return [sorted(range(len(vectors)), key=lambda row: (-line[row], row))[:k] for line in scores]


@pytest.mark.parametrize("n_nodes", [1, 5, 64, 200, 1300, 1343])
@pytest.mark.parametrize("k", [1, 3, 10])
def test_the_best_are_those_of_a_sort_of_all(n_nodes, k):
    # Few values: most scores tie with others, across groups and with the columns that belong to none.
    vectors, queries = (RNG.integers(-2, 3, size=(rows, 3)).astype(np.float32) for rows in (n_nodes, 6))
    rows, scores = rank_nodes(queries, vectors, k, "dot")
    assert rows.tolist() == by_sorting(queries.tolist(), vectors.tolist(), min(k, n_nodes))
    assert scores.tolist() == [
        [float(query @ vectors[row]) for row in line] for query, line in zip(queries, rows, strict=True)
    ]


@pytest.mark.parametrize("similarity", ["cosine", "dot", "l2"])
def test_threads_and_blocks_change_nothing(monkeypatch, similarity):
    queries, vectors = RNG.normal(size=(40, 8)), RNG.normal(size=(3000, 8))
    alone = rank_nodes(queries, vectors, 10, similarity)
    monkeypatch.setattr(ranking, "SCORES_PER_BLOCK", 9_000)
    monkeypatch.setattr(ranking, "count_threads", lambda multiplications: 3)
    shared = rank_nodes(queries, vectors, 10, similarity)
    assert shared[0].tolist() == alone[0].tolist()
    np.testing.assert_allclose(shared[1], alone[1], rtol=1e-12)


def test_no_queries_and_scores_that_are_no_numbers():
    assert rank_nodes(np.zeros((0, 2)), np.eye(2), 2, "dot")[0].shape == (0, 2)
    large = np.full((1, 2), 1e30, dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(ValueError, match="a score is NaN"):
        rank_nodes(large, large, 1, "l2")
