"""The best scores of nodes that do not move, against a sort of all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nudge_rag.solvers.labels import prepare_labels
from nudge_rag.solvers.scoring import fixed_scores as module
from nudge_rag.solvers.scoring.fixed_scores import fixed_scores


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 60),
    st.integers(1, 12),
    st.sampled_from([0.0, 0.5, 0.97, 1.0]),
    st.booleans(),
    st.sampled_from(["cosine", "dot", "l2"]),
    st.integers(1, 3),
)
def test_the_best_scores_are_those_of_a_sort(
    seed: int, nodes: int, depth: int, covered_share: float, competing: bool, similarity: Any, threads: int
) -> None:
    rng = np.random.default_rng(seed)
    # Whole numbers: products are exact, and many tie.
    vectors = rng.integers(-3, 4, size=(nodes, 4)).astype(np.float64) + 0.5
    background = rng.integers(-3, 4, size=(7, 4)) + 0.5 if competing else None
    queries = rng.normal(size=(5, 4))
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    covered = np.flatnonzero(rng.random(nodes) < covered_share)
    answers = [[int(row)] for row in rng.integers(0, nodes, size=5)]
    labels = prepare_labels((queries, answers), "validation", n_nodes=nodes, dimension=4, dtype=np.dtype(np.float64))
    with pytest.MonkeyPatch.context() as patch:
        # Blocks of three queries and three nodes.
        patch.setattr(module, "SCORES_PER_BLOCK", 9)
        patch.setattr(module, "QUERIES_PER_BLOCK", 3)
        patch.setattr(module, "count_threads", lambda multiplications: threads)
        found = fixed_scores(labels, vectors, covered, background, depth=depth, similarity=similarity)
    scores = _scores(queries, vectors, similarity)
    others = np.delete(scores, covered, axis=1)
    if background is not None:
        others = np.concatenate([others, _scores(queries, background, similarity)], axis=1)
    others = np.concatenate([others, np.full((5, depth), -np.inf)], axis=1)
    np.testing.assert_allclose(np.sort(found.best, axis=1), np.sort(others, axis=1)[:, -depth:], rtol=1e-12, atol=1e-12)
    own = np.array([scores[query, rows[0]] if rows[0] not in covered else np.nan for query, rows in enumerate(answers)])
    np.testing.assert_allclose(found.answer, own, rtol=1e-12, atol=1e-12)


def test_every_row_is_checked_though_hardly_any_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SCORES_PER_BLOCK", 4)
    vectors = np.ones((20, 2))
    vectors[13] = 0.0
    labels = prepare_labels(([[1.0, 0.0]], [[0]]), "validation", n_nodes=20, dimension=2, dtype=np.dtype(np.float64))
    with pytest.raises(ValueError, match="13"):
        fixed_scores(labels, vectors, np.arange(19), None, depth=2, similarity="cosine")


def _scores(queries: Any, vectors: Any, similarity: str) -> Any:
    if similarity == "cosine":
        return queries @ (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).T
    return queries @ vectors.T - ((vectors**2).sum(axis=1) / 2 if similarity == "l2" else 0.0)
