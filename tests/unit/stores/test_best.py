"""The best nodes of each query, batch by batch: those of sums in exact fractions, ties by the order of reading."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from nudge_rag.common.ranking import rank_nodes
from nudge_rag.common.similarity import score_matrix
from nudge_rag.stores import MappingStore, scan
from nudge_rag.stores.lake.best import NO_ROW, Best, BestNodes, Question, merge_best, score_pairs
from nudge_rag.stores.lake.scanning import best_by_threads, best_of_fragment

RNG = np.random.default_rng(0)


def found(vectors, queries, k, similarity, batch=7, without=()):
    names = [f"n{row}" for row in range(len(vectors))]
    best = BestNodes(Question(np.asarray(queries, dtype=np.float64), k, similarity, frozenset(without)))
    for start in range(0, len(vectors), batch):
        best.add(names[start : start + batch], vectors[start : start + batch])
    return best.result()


def exact_order(vectors, query, similarity):
    """Rows from best to worst by fractions; those of equal scores in their order."""
    rows = [[Fraction(float(number)) for number in vector] for vector in vectors]
    asked = [Fraction(float(number)) for number in query]
    if similarity == "l2":
        scores = [-sum((a - b) ** 2 for a, b in zip(asked, row, strict=True)) for row in rows]
    else:
        scores = [sum(a * b for a, b in zip(asked, row, strict=True)) for row in rows]
    return sorted(range(len(rows)), key=lambda row: (-scores[row], row))


@pytest.mark.parametrize("similarity", ["dot", "l2"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_order_is_that_of_fractions(similarity, dtype):
    # Eighths: every product and sum of them is exact in float64, and hundreds of scores are equal.
    vectors = (RNG.integers(-8, 9, size=(300, 5)) / 8).astype(dtype)
    queries = RNG.integers(-8, 9, size=(6, 5)) / 8
    best = found(vectors, queries, 40, similarity)
    for rows, query in zip(best.rows, queries, strict=True):
        assert rows.tolist() == exact_order(vectors, query, similarity)[:40]


@pytest.mark.parametrize("similarity", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("batch", [1, 3, 50, 1000])
def test_scores_and_ties_do_not_depend_on_the_batch(similarity, batch):
    vectors = RNG.normal(size=(400, 48)).astype(np.float32)
    vectors[200:300] = vectors[:100]  # whose scores are equal, wherever they stand
    queries = RNG.normal(size=(9, 48))
    one, other = found(vectors, queries, 30, similarity, 400), found(vectors, queries, 30, similarity, batch)
    assert one.rows.tobytes() == other.rows.tobytes()
    assert one.scores.tobytes() == other.scores.tobytes()
    assert one.ids.tolist() == [[f"n{row}" for row in rows] for rows in one.rows.tolist()] == other.ids.tolist()
    _, scores = rank_nodes(queries, vectors.astype(np.float64), 30, similarity)
    np.testing.assert_allclose(one.scores, scores, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("similarity", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("scale", [1e-30, 1e-19, 1e-3, 1e6, 1e16, 1e18])
def test_tiny_and_huge_numbers_are_ranked_as_others(similarity, scale):
    vectors = (RNG.normal(size=(500, 16)) * scale).astype(np.float32)
    queries = RNG.normal(size=(5, 16)) * scale
    best = found(vectors, queries, 12, similarity, 60)
    wide = vectors.astype(np.float64) / scale
    rows, _ = rank_nodes(queries / scale, wide, 12, similarity)
    assert best.rows.tolist() == rows.tolist()


def test_nodes_that_come_in_order_of_their_scores_are_found():
    """Every node is better than all before it: the first bound is of no use."""
    vectors = np.sort(RNG.normal(size=2000))[:, None].astype(np.float32)
    best = found(vectors, [[1.0], [-1.0]], 3, "dot", 100)
    assert best.rows.tolist() == [[1999, 1998, 1997], [0, 1, 2]]


def test_equal_nodes_are_found_in_their_order():
    best = found(np.ones((900, 4), dtype=np.float32), np.ones((2, 4)), 5, "cosine", 100)
    assert best.rows.tolist() == [[0, 1, 2, 3, 4]] * 2


@pytest.mark.parametrize("similarity", ["cosine", "dot", "l2"])
def test_zeros_are_scored_as_everywhere(similarity):
    vectors = np.array([[0, 0], [1, 0], [0, 2]], dtype=np.float32)
    queries = np.array([[1.0, 0.0], [0.0, 0.0]])
    best = found(vectors, queries, 3, similarity)
    scores = score_matrix(queries, vectors.astype(np.float64), similarity)
    for row in range(2):
        assert dict(zip(best.rows[row].tolist(), best.scores[row].tolist(), strict=True)) == dict(
            enumerate(scores[row].tolist())
        )


def test_fewer_nodes_than_asked_for_and_nodes_left_out():
    best = found(np.eye(3, dtype=np.float32), np.eye(3), 5, "dot", 2, without=["n1"])
    assert best.read == 3
    assert best.ids[:, :2].tolist() == [["n0", "n2"], ["n0", "n2"], ["n2", "n0"]]
    assert best.ids[:, 2:].tolist() == [[None] * 3] * 3
    assert (best.rows[:, 2:] == NO_ROW).all()
    assert np.isneginf(best.scores[:, 2:]).all()


def test_a_vector_that_is_not_finite_is_named():
    with pytest.raises(ValueError, match="the vector of node 'n4' holds NaN"):
        found(np.array([[0.0], [1], [2], [3], [np.nan]]), [[1.0]], 1, "dot", 2)


def test_merging_is_the_same_in_any_order():
    vectors = RNG.integers(-2, 3, size=(60, 3)).astype(np.float32)
    queries = RNG.integers(-2, 3, size=(4, 3)).astype(np.float64)
    parts = []
    for start in (0, 20, 40):
        part = found(vectors[start : start + 20], queries, 8, "dot")
        parts.append(Best(part.scores, part.rows + start, part.ids, part.read))
    whole = found(vectors, queries, 8, "dot")
    for one, two, three in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        merged = merge_best(merge_best(parts[one], parts[two]), parts[three])
        assert merged.rows.tolist() == whole.rows.tolist()
        assert merged.scores.tolist() == whole.scores.tolist()
        assert merged.read == 60


class Part:
    """A fragment: some of the nodes, in batches of 7."""

    def __init__(self, vectors, start):
        self.vectors, self.start = vectors, start

    def batches(self, size):
        for first in range(0, len(self.vectors), 7):
            rows = self.vectors[first : first + 7]
            yield [f"n{self.start + first + row}" for row in range(len(rows))], rows


@pytest.mark.parametrize("similarity", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
def test_what_one_fragment_has_spares_the_others_their_worse_nodes(similarity, order):
    # Few values: many scores are equal to the k-th of another fragment, and the lower row goes first.
    vectors = RNG.integers(-1, 2, size=(90, 3)).astype(np.float32)
    question = Question(RNG.integers(-2, 3, size=(4, 3)).astype(np.float64), 8, similarity)
    whole, merged = found(vectors, question.queries, 8, similarity), Best.nothing(4, 8)
    for number in order:
        part = best_of_fragment(Part(vectors[30 * number : 30 * number + 30], 30 * number), question)
        rows = np.where(part.rows == NO_ROW, NO_ROW, part.rows + 30 * number)
        merged = merge_best(merged, Best(part.scores, rows, part.ids, part.read))
    assert merged.rows.tolist() == whole.rows.tolist()
    assert merged.scores.tobytes() == whole.scores.tobytes()
    assert merged.ids.tolist() == whole.ids.tolist()
    assert (question.floor <= whole.scores[:, -1]).all()
    # Nodes that lie opposite a query are worse than its eighth: their fragment gives it none.
    opposite = np.tile(-100 * question.queries[0], (7, 1)).astype(np.float32)
    assert (best_of_fragment(Part(opposite, 90), question).rows[0] == NO_ROW).all()


@pytest.mark.parametrize("similarity", ["cosine", "dot", "l2"])
@pytest.mark.parametrize(("n_threads", "at_once"), [(1, 100), (1, 3), (2, 100), (2, 4), (3, 2)])
def test_threads_with_shares_of_the_queries_find_what_one_finds(monkeypatch, similarity, n_threads, at_once):
    monkeypatch.setattr("nudge_rag.stores.lake.scanning._count_processors", lambda: n_threads)
    monkeypatch.setattr("nudge_rag.stores.lake.scanning.QUERIES_AT_ONCE", at_once)
    monkeypatch.setattr("nudge_rag.stores.lake.scanning.QUERIES_PER_THREAD", 3)
    # Few values: many nodes tie.
    vectors = RNG.integers(-1, 2, size=(60, 3)).astype(np.float32)
    queries = RNG.integers(-2, 3, size=(10, 3)).astype(np.float64)
    question = Question(queries, 8, similarity, frozenset(["n3", "n40"]))
    whole, shared = (ask(Part(vectors, 0), question) for ask in (best_of_fragment, best_by_threads))
    assert shared.rows.tolist() == whole.rows.tolist() != []
    assert shared.scores.tobytes() == whole.scores.tobytes()
    assert shared.ids.tolist() == whole.ids.tolist()
    assert shared.read == whole.read == 60


def test_what_a_thread_raises_is_raised(monkeypatch):
    monkeypatch.setattr("nudge_rag.stores.lake.scanning._count_processors", lambda: 2)
    monkeypatch.setattr("nudge_rag.stores.lake.scanning.QUERIES_PER_THREAD", 1)
    vectors = np.ones((8, 3), dtype=np.float32)
    vectors[5] = np.nan
    with pytest.raises(ValueError, match="vector of node 'n5' holds NaN"):
        best_by_threads(Part(vectors, 0), Question(np.eye(4, 3), 2, "dot"))


def test_pairs_are_scored_each_by_itself():
    queries, nodes = RNG.normal(size=(50, 33)), RNG.normal(size=(50, 33))
    together = score_pairs(queries, nodes, "dot")
    alone = [score_pairs(queries[row : row + 1], nodes[row : row + 1], "dot")[0] for row in range(50)]
    assert together.tolist() == alone


def test_a_store_without_fragments_is_scanned_here():
    vectors = RNG.normal(size=(50, 4))
    store = MappingStore({f"n{row}": vector.tolist() for row, vector in enumerate(vectors)}, similarity="l2")
    queries = RNG.normal(size=(3, 4))
    assert scan(store, queries, 7).ids == store.search(queries, 7).ids
    assert scan(store, np.zeros((0, 4)), 7).ids == []
    with pytest.raises(ValueError, match="k must be a positive integer"):
        scan(store, queries, 0)
    with pytest.raises(ValueError, match="dimension 3, the store has 4"):
        scan(store, queries[:, :3], 2)
    with pytest.raises(ValueError, match="a mapping store has no fragments: scan takes no filter"):
        scan(store, queries, 2, where=lambda node: True)
