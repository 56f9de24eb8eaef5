"""What competes with labelled nodes: found by search or by scan, against brute force; and stores that fail."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nudge_rag import LabeledPairs, LabeledQueries, NudgeM, NudgeN, tune
from nudge_rag.common.similarity import score_matrix
from nudge_rag.stores import Capabilities, MappingStore, SearchResult, StoreError, UnknownIdError
from nudge_rag.tuning import competitors
from nudge_rag.tuning.competitors import find_competitors

D = 6


def make_store(n, similarity="cosine", seed=0, kind=MappingStore):
    rows = np.random.default_rng(seed).normal(size=(n, D))
    return kind({f"n{i}": row.tolist() for i, row in enumerate(rows)}, similarity=similarity, key="test"), rows


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(
    n=st.integers(1, 40),
    hidden=st.integers(0, 40),
    depth=st.integers(1, 45),
    similarity=st.sampled_from(["cosine", "dot", "l2"]),
    method=st.sampled_from(["search", "scan"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_best_unknown_nodes_are_those_of_brute_force(n, hidden, depth, similarity, method, seed):
    store, rows = make_store(n, similarity, seed)
    known = list(np.random.default_rng(seed).permutation(n)[: min(hidden, n)])
    queries = np.random.default_rng(seed + 1).normal(size=(5, D))
    names = [f"n{i}" for i in known]
    found = find_competitors(store, queries, names, rows[known], depth, method)
    scores = score_matrix(queries, rows, similarity)
    for query in range(5):
        order = [i for i in np.argsort(-scores[query], kind="stable") if i not in known][:depth]
        assert found.ids[query] == [f"n{i}" for i in order]
        np.testing.assert_allclose(found.scores[query], scores[query][order], atol=1e-12)
    assert found.reads.exact
    assert found.reads.recall == 1
    assert found.reads.vectors_read == (n if method == "scan" else 0)


@pytest.mark.parametrize("similarity", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("metric", ["CappedRecall@1", "nDCG@5", "MRR@3"])
@pytest.mark.parametrize("search", ["grid", "exact"])
def test_competitors_stand_for_the_nodes_that_a_solver_is_not_given(similarity, metric, search):
    """Solving with all nodes, and solving with labelled nodes and the scores of the others, is the same."""
    rng = np.random.default_rng(4)
    nodes = rng.normal(size=(60, D))
    nodes *= rng.uniform(0.9, 1.1, size=(60, 1)) / np.linalg.norm(nodes, axis=1)[:, None]
    places = nodes[:12] + rng.normal(size=(12, D)) * 0.4
    answers = rng.integers(0, 12, size=90)
    queries = places[answers] + rng.normal(size=(90, D)) * 0.2
    train, val = ((queries[part], [[int(a)] for a in answers[part]]) for part in (slice(0, 60), slice(60, 90)))
    solver = NudgeN(similarity=similarity, metric=metric, search=search)
    whole = solver.fit(nodes, train, val)
    scored = queries[60:] if similarity == "l2" else queries[60:] / np.linalg.norm(queries[60:], axis=1)[:, None]
    others = score_matrix(scored, nodes[12:], similarity)
    part = solver.fit(nodes[:12], train, LabeledQueries(*val, competitors=others))
    assert whole.gamma > 0
    assert part.gamma == pytest.approx(whole.gamma, abs=1e-9)
    np.testing.assert_allclose(part.curve.values, whole.curve.values, atol=1e-12)
    np.testing.assert_allclose(part.vectors, whole.vectors, atol=1e-12)


def test_competitors_count_for_nudge_m_too():
    nodes, query = np.eye(3), np.array([[0.6, 0.8, 0.0]])
    whole = NudgeM(point="edge").fit(nodes, (query, [[0]]), (query, [[0]]))
    part = NudgeM(point="edge").fit(nodes[:1], (query, [[0]]), LabeledQueries(query, [[0]], competitors=[[0.8, 0.0]]))
    assert part.gamma == whole.gamma == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("competitors", "message"),
    [
        ([[0.1], [0.2]], r"validation competitors must be \(queries, r\) scores, got shape \(2, 1\)"),
        ([[np.nan]], "validation competitors hold NaN"),
        ([[np.inf]], "validation competitors hold NaN or infinite"),
        ([[0.5]], "at least 5 deep for this metric, got 1"),
    ],
)
def test_bad_competitors(competitors, message):
    query = np.array([[0.6, 0.8, 0.0]])
    with pytest.raises(ValueError, match=message):
        NudgeN(metric="nDCG@5").fit(np.eye(3), (query, [[0]]), LabeledQueries(query, [[0]], competitors=competitors))


class Counting(MappingStore):
    """Notes every vector that leaves the store."""

    def __init__(self, table, **options):
        super().__init__(table, **options)
        self.read_ids = []
        self.scanned = 0

    def read(self, ids):
        self.read_ids.extend(ids)
        return super().read(ids)

    def scan(self, batch_size=1000):
        for ids, vectors in super().scan(batch_size):
            self.scanned += len(ids)
            yield ids, vectors


def learnable(rows, n_labelled, seed=3):
    """Queries that lie off their nodes, each node's always to the same side."""
    rng = np.random.default_rng(seed)
    shifts = rng.normal(size=rows.shape)
    embedded = {
        f"{i} n{node}": rows[node] + shifts[node] + rng.normal(size=D) * 0.2
        for node in range(n_labelled)
        for i in range(10)
    }
    pairs = LabeledPairs.from_pairs((text, text.split()[1]) for text in embedded)
    return pairs, lambda texts: np.array([embedded[text] for text in texts])


@pytest.mark.parametrize("similarity", ["cosine", "dot", "l2"])
def test_search_and_scan_tune_alike_and_search_reads_labelled_vectors_only(tmp_path, similarity):
    results = {}
    for method in ("search", "scan"):
        store, rows = make_store(300, similarity, kind=Counting)
        pairs, embed = learnable(rows, 20)
        results[method] = tune(store, pairs, embed, solver="nudge-n", competitors=method, versions=tmp_path)
        assert sorted(set(store.read_ids)) == sorted(pairs.node_ids)
        assert store.scanned == (300 if method == "scan" else 0)
        assert results[method].reads.vectors_read == len(store.read_ids) + store.scanned
        assert results[method].reads.method == method
    search, scan = results["search"], results["scan"]
    assert search.gamma == scan.gamma > 0
    assert search.vectors.tobytes() == scan.vectors.tobytes()
    assert search.comparison == scan.comparison
    assert "20 vectors read (search, exact)" in str(search)
    assert "320 vectors read (scan, exact)" in str(scan)


@pytest.mark.parametrize("similarity", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("searched", [0, 6, 12, 10**6])
def test_searches_that_would_take_longer_than_a_scan_are_one_scan(monkeypatch, similarity, searched):
    """Whether from the first search on, or for the queries that still want for unlabelled nodes after one or two."""
    store, rows = make_store(50, similarity, kind=Counting)
    queries = np.random.default_rng(2).normal(size=(40, D))
    known = [f"n{node}" for node in range(30)]
    asked = []

    def scan_is_quicker(store, n_queries, dimension, size, k):
        assert (dimension, size) == (D, 50)
        asked.append((n_queries, k))
        return k > searched

    monkeypatch.setattr("nudge_rag.tuning.competitors._scan_is_quicker", scan_is_quicker)
    found = find_competitors(store, queries, known, rows[:30], 3, "auto")
    scores = score_matrix(queries, rows[30:], similarity)
    for query in range(40):
        order = np.argsort(-scores[query], kind="stable")[:3]
        assert found.ids[query] == [f"n{30 + node}" for node in order]
        np.testing.assert_allclose(found.scores[query], scores[query][order], atol=1e-12)
    assert asked[0] == (40, 6)
    assert store.scanned == found.reads.vectors_read == (0 if searched == 10**6 else 50)
    assert found.reads.method == ("search" if searched else "scan")
    assert (found.reads.exact, found.reads.recall) == (True, 1)
    n_left = {k: n_queries for n_queries, k in asked}
    assert all(0 < n_left[2 * k] < n_left[k] for k in n_left if 2 * k in n_left)


def test_a_scan_is_for_thousands_of_queries_of_a_database_and_hundreds_without_an_index():
    def is_scanned(n_queries, size, dimension, exact, asked=20):
        store = MappingStore({"a": [1.0]}, key="any")
        store._capabilities = Capabilities("cosine", exact_search=exact)
        return competitors._scan_is_quicker(store, n_queries, dimension, size, asked)

    # A search takes 2 ms, or 13 ms if it looks at 200,000 x 64 numbers; a scan 2 s, and 0.6 ms a query.
    assert [is_scanned(n, 200_000, 64, False) for n in (1_500, 2_500, 24_000)] == [False, True, True]
    assert [is_scanned(n, 200_000, 64, True) for n in (200, 400)] == [False, True]
    # A query's product with a million vectors takes longer than its search, unless that is a deep one.
    assert not is_scanned(100_000, 1_000_000, 384, False)
    assert is_scanned(10_000, 1_000_000, 384, False, asked=2_000)
    # Whatever is scanned quickly is searched quickly if the queries are few.
    assert not is_scanned(1_000, 10, 64, False)


@pytest.mark.slow
def test_auto_chooses_alike_by_search_and_by_scan(little_auto, tmp_path):
    store, rows = make_store(120)
    pairs, embed = learnable(rows, 15)
    search, scan = (tune(store, pairs, embed, competitors=each, versions=tmp_path) for each in ("search", "scan"))
    assert search.gamma == scan.gamma > 0
    assert [one.solver for one in search.tried] == [one.solver for one in scan.tried]
    np.testing.assert_allclose(search.vectors, scan.vectors, atol=1e-5)


class Coarse(MappingStore):
    """An approximate index: it never looks at every third node."""

    @property
    def capabilities(self):
        return Capabilities("cosine", dtype="float64", exact_search=False)

    def search(self, queries, k, *, where=None):
        return super().search(queries, k, where=lambda node: int(node[1:]) % 3 != 0)


def test_an_index_that_misses_nodes_is_measured_and_warned_about(little_auto, tmp_path):
    store, rows = make_store(90, kind=Coarse)
    pairs, embed = learnable(rows, 30)
    with pytest.warns(UserWarning, match=r"finds only \d+ of \d+ labelled nodes"):
        nudge = tune(store, pairs, embed, versions=tmp_path)
    assert not nudge.reads.exact
    assert 0 < nudge.reads.recall < 0.95
    queries = embed(list(nudge.split.val.queries.values()))
    known = [f"n{i}" for i in range(30)]
    with pytest.warns(UserWarning, match="labelled nodes"):
        reads = find_competitors(store, queries, known, rows[:30], 3, "search").reads
    # Six nearest, or twice as many and so on, until three of them are not known.
    lists = []
    for query in queries:
        k, ids = 6, []
        while len(set(ids) - set(known)) < 3:
            ids, k = store.search(query[None], k).ids[0], 2 * k
        lists.append(ids)
    scores = score_matrix(queries, rows, "cosine")
    last = [scores[q][int(ids[-1][1:])] for q, ids in enumerate(lists)]
    above = [(q, i) for q in range(len(queries)) for i in range(30) if scores[q][i] > last[q]]
    assert (reads.expected, reads.found) == (len(above), sum(f"n{i}" in lists[q] for q, i in above))


def test_an_index_is_measured_when_all_nodes_are_labelled(tmp_path):
    store, rows = make_store(30, kind=Coarse)
    queries = np.random.default_rng(4).normal(size=(8, D))
    with pytest.warns(UserWarning, match=r"finds only \d+ of \d+ labelled nodes"):
        found = find_competitors(store, queries, [f"n{i}" for i in range(30)], rows, 5, "search")
    assert found.ids == [[]] * 8
    # Of the nodes that score above the fifth that the index gives, it never gives every third.
    scores = score_matrix(queries, rows, "cosine")
    seen = np.arange(30) % 3 != 0
    expected = [np.flatnonzero(line > np.sort(line[seen])[-5]) for line in scores]
    assert found.reads.expected == sum(map(len, expected))
    assert found.reads.found == sum(int(seen[nodes].sum()) for nodes in expected)
    exact, _ = make_store(30)
    reads = find_competitors(exact, queries, [f"n{i}" for i in range(30)], rows, 5, "search").reads
    assert (reads.expected, reads.exact) == (0, True)


class Short(MappingStore):
    """Gives at most four neighbours, whatever is asked."""

    def search(self, queries, k, *, where=None):
        return super().search(queries, min(k, 4), where=where)


def test_a_store_that_gives_too_few_neighbours_is_counted():
    store, rows = make_store(50, kind=Short)
    queries = np.random.default_rng(1).normal(size=(6, D))
    with pytest.warns(UserWarning, match="fewer neighbours than asked for 6 of 6 queries"):
        found = find_competitors(store, queries, ["n0"], rows[:1], 10, "search")
    assert found.reads.short == 6
    assert all(len(ids) <= 4 for ids in found.ids)


class Broken(MappingStore):
    """Loses its connection at one of its methods."""

    at = ""

    def _maybe(self, where):
        if self.at == where:
            raise OSError("connection reset by peer")

    def count(self):
        self._maybe("count")
        return super().count()

    def read(self, ids):
        self._maybe("read")
        return super().read(ids)

    def search(self, queries, k, *, where=None):
        self._maybe("search")
        if self.at == "half":
            found = super().search(queries, k, where=where)
            return SearchResult(found.ids[:1], found.scores[:1])
        return super().search(queries, k, where=where)

    def scan(self, batch_size=1000):
        for at, batch in enumerate(super().scan(7)):
            if at == 1:
                self._maybe("scan")
            yield batch


@pytest.mark.parametrize(
    ("at", "method", "message"),
    [
        (
            "count",
            "search",
            "failed while the labelled nodes were read; nothing was written .OSError: connection",
        ),
        ("read", "search", "failed while the labelled nodes were read"),
        ("search", "search", "failed while searching the nearest nodes of"),
        ("half", "search", r"returned 1 lists of neighbours for \d+ queries"),
        ("scan", "scan", "failed while it was scanned"),
    ],
)
def test_a_lost_connection_is_a_clear_error(tmp_path, at, method, message):
    store, rows = make_store(50, kind=Broken)
    store.at = at
    pairs, embed = learnable(rows, 5)
    with pytest.raises(StoreError, match=message):
        tune(store, pairs, embed, competitors=method, versions=tmp_path)


def test_bad_arguments_and_bad_vectors(tmp_path):
    store, rows = make_store(30)
    pairs, embed = learnable(rows, 5)
    with pytest.raises(ValueError, match="competitors must be 'auto', 'search' or 'scan', got 'guess'"):
        tune(store, pairs, embed, competitors="guess", versions=tmp_path)
    store._table["n20"] = [np.nan] * D
    with pytest.raises(ValueError, match="vector of node 'n20' holds NaN"):
        tune(store, pairs, embed, competitors="scan", versions=tmp_path)
    store._table["n2"] = [np.inf] * D
    with pytest.raises(ValueError, match="vector of node 'n2' holds NaN"):
        tune(store, pairs, embed, versions=tmp_path)
    with pytest.raises(UnknownIdError):
        store.read(["gone"])
