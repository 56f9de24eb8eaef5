"""Coarse indexes: the table of `tune` is what the store answers, before and after a push."""

from __future__ import annotations

import gc
import time

import faiss
import numpy as np
import psycopg
import pytest

from nudge_rag import LabeledPairs, tune
from nudge_rag.stores import FaissStore, PgVectorStore
from tests.support.builders.postgres import new_database

N, D, LISTS = 200, 16, 6


def make_data(labelled):
    """Nodes, queries around the first ``labelled`` of them, all pushed one way, and pairs."""
    rng = np.random.default_rng(0)
    nodes = rng.normal(size=(N, D)).astype(np.float32)
    nodes /= np.linalg.norm(nodes, axis=1)[:, None]
    answers = rng.integers(0, labelled, size=900)
    queries = nodes[answers] + rng.normal(size=(len(answers), D)) * 0.2 + 0.15
    queries /= np.linalg.norm(queries, axis=1)[:, None]
    texts = [f"q{row}" for row in range(len(answers))]
    vector_of = dict(zip(texts, queries.astype(np.float32), strict=True))
    pairs = LabeledPairs.from_pairs((text, f"n{answer}") for text, answer in zip(texts, answers, strict=True))
    return nodes, pairs, vector_of


def make_table(connection, nodes):
    connection.execute(f"CREATE TABLE nodes (id text PRIMARY KEY, embedding vector({D}))")
    with connection.cursor() as cursor:
        rows = [(f"n{row}", str(vector.tolist())) for row, vector in enumerate(nodes)]
        cursor.executemany("INSERT INTO nodes VALUES (%s, %s)", rows)


def searcher(connection):
    """Ask the database itself, with the settings of the connection."""
    order = "SELECT id FROM nodes ORDER BY embedding <=> %s::vector LIMIT %s"
    return lambda query, k: [row[0] for row in connection.execute(order, [str(query.tolist()), k])]


def tune_on(store, pairs, vector_of):
    return tune(
        store,
        pairs,
        lambda texts: np.stack([vector_of[text] for text in texts]),
        metrics=["Recall@1", "Recall@10"],
        solver="nudge-n",
    )


def share_found(search, nudge, vector_of, k):
    """Recall@k of the held-out queries, counted on what the database itself answers."""
    test = nudge.split.test
    hits = [set(search(vector_of[text], 10)[:k]) & set(test.qrels[query]) for query, text in test.queries.items()]
    return sum(map(bool, hits)) / len(hits)


def share_by_scores(vectors, nudge, vector_of, k):
    test = nudge.split.test
    hits = [
        {f"n{row}" for row in np.argsort(-(vectors @ vector_of[text]), kind="stable")[:k]} & set(test.qrels[query])
        for query, text in test.queries.items()
    ]
    return sum(map(bool, hits)) / len(hits)


@pytest.mark.parametrize("labelled", [80, N])
def test_table_is_what_a_faiss_index_with_lists_answers(labelled):
    nodes, pairs, vector_of = make_data(labelled)
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(D), D, LISTS, faiss.METRIC_INNER_PRODUCT)
    index.train(nodes)
    index.add(nodes)
    index.nprobe = 1
    store = FaissStore(index, {row: f"n{row}" for row in range(N)})

    def search(query, k):
        return [f"n{row}" for row in index.search(query[None], k)[1][0]]

    with pytest.warns(UserWarning, match="finds only|fewer neighbours"):
        nudge = tune_on(store, pairs, vector_of)
    row_of = {f"n{row}": row for row in range(N)}
    moved = nodes.copy()
    moved[[row_of[node_id] for node_id in nudge.ids]] = nudge.vectors
    for k in (1, 10):
        row, exact = (table.row(f"Recall@{k}") for table in (nudge.comparison, nudge.exact_comparison))
        assert row.before == pytest.approx(share_found(search, nudge, vector_of, k))
        assert row.before < exact.before - 0.1
    nudge.push(force=True)
    for k in (1, 10):
        assert nudge.comparison.row(f"Recall@{k}").after == pytest.approx(share_found(search, nudge, vector_of, k))
    assert nudge.gamma > 0
    if labelled == N:
        # All nodes are known, so that the exact figures are those of brute force.
        assert nudge.exact_comparison.row("Recall@1").before == pytest.approx(
            share_by_scores(nodes, nudge, vector_of, 1)
        )
        assert nudge.exact_comparison.row("Recall@1").after == pytest.approx(
            share_by_scores(moved, nudge, vector_of, 1)
        )
    assert "answers, whose index misses nodes" in " ".join(str(nudge).split())
    assert nudge.improves == (nudge.comparison.row("Recall@1").difference > 0)


@pytest.mark.filterwarnings("ignore:.*(finds only|fewer neighbours)")
@pytest.mark.server
@pytest.mark.parametrize("labelled", [80, N])
def test_table_is_what_pgvector_with_lists_answers(servers, labelled):
    nodes, pairs, vector_of = make_data(labelled)
    address = new_database(servers)
    with psycopg.connect(address, autocommit=True) as connection:
        make_table(connection, nodes)
        connection.execute(f"CREATE INDEX ON nodes USING ivfflat (embedding vector_cosine_ops) WITH (lists = {LISTS})")

        # In a table this small the planner would look at every row.
        connection.execute(f"ALTER DATABASE {connection.info.dbname} SET enable_seqscan = off")
        connection.execute("SET enable_seqscan = off")

        search = searcher(connection)
        nudge = tune_on(PgVectorStore(address, "nodes"), pairs, vector_of)
        row, exact = (table.row("Recall@1") for table in (nudge.comparison, nudge.exact_comparison))
        assert row.before == pytest.approx(share_found(search, nudge, vector_of, 1))
        assert row.before < exact.before - 0.1
        if labelled == N:
            assert exact.before == pytest.approx(share_by_scores(nodes, nudge, vector_of, 1))
        nudge.push(force=True)
        # Nothing was written when it was estimated what the index would find.
        assert row.after == pytest.approx(share_found(search, nudge, vector_of, 1), abs=0.05)
        assert "estimated from their neighbours" in nudge.summary
        assert abs(row.after - exact.after) > 0.1


@pytest.mark.filterwarnings("ignore:.*(finds only|fewer neighbours)")
@pytest.mark.server
def test_table_is_what_pgvector_with_a_sparse_graph_answers(servers):
    """Of what HNSW leaves out since it looks at ef_search nodes and no more, nothing is said."""
    nodes, pairs, vector_of = make_data(N)
    address = new_database(servers)
    with psycopg.connect(address, autocommit=True) as connection:
        make_table(connection, nodes)
        graph = "USING hnsw (embedding vector_cosine_ops) WITH (m = 3, ef_construction = 6)"
        connection.execute(f"CREATE INDEX ON nodes {graph}")
        for setting in ("enable_seqscan = off", "hnsw.ef_search = 12"):
            connection.execute(f"ALTER DATABASE {connection.info.dbname} SET {setting}")
            connection.execute(f"SET {setting}")

        search = searcher(connection)
        store = PgVectorStore(address, "nodes")
        assert store.default_width() == 12
        nudge = tune_on(store, pairs, vector_of)
        row, exact = (table.row("Recall@10") for table in (nudge.comparison, nudge.exact_comparison))
        assert row.before == pytest.approx(share_found(search, nudge, vector_of, 10))
        assert row.before < exact.before - 0.03
        nudge.push(force=True)
        # What the push has replaced counts among the ef_search nodes until it is vacuumed away.
        connection.execute("VACUUM nodes")
        assert row.after == pytest.approx(share_found(search, nudge, vector_of, 10), abs=0.1)


@pytest.mark.server
@pytest.mark.parametrize("kind", ["hnsw", "ivfflat"])
@pytest.mark.parametrize(
    ("condition", "passing"), [("number % 2 = 0", 1_000), ("number % 400 = 7", 5), ("number < 0", 0)]
)
def test_filtered_search_of_pgvector_finds_k_nodes_if_so_many_pass(servers, kind, condition, passing):
    random = np.random.default_rng(5)
    nodes, queries = (random.normal(size=(count, D)).astype(np.float32) for count in (2_000, 20))
    address = new_database(servers)
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"CREATE TABLE nodes (id text PRIMARY KEY, number int, embedding vector({D}))")
        with connection.cursor() as cursor:
            rows = [(f"n{row}", row, str(vector.tolist())) for row, vector in enumerate(nodes)]
            cursor.executemany("INSERT INTO nodes VALUES (%s, %s, %s)", rows)
        connection.execute(f"CREATE INDEX found ON nodes USING {kind} (embedding vector_l2_ops)")
        connection.execute("ANALYZE nodes")
        connection.execute(f"ALTER DATABASE {connection.info.dbname} SET enable_seqscan = off")
        connection.execute("SELECT pg_stat_reset()")

        found = PgVectorStore(address, "nodes", similarity="l2").search(queries, 10, where=condition)

        # What a session has counted is seen once it has ended.
        gc.collect()
        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        while connection.execute(others).fetchone() != (0,):
            time.sleep(0.01)
        used = connection.execute("SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'found'").fetchone()
        passes = {row[0] for row in connection.execute(f"SELECT id FROM nodes WHERE {condition}").fetchall()}
    assert len(passes) == passing
    distances = ((queries[:, None, :].astype(float) - nodes[None, :, :]) ** 2).sum(axis=2)
    hits = 0
    for line, ids, scores in zip(distances, found.ids, found.scores, strict=True):
        exact = [name for name in (f"n{row}" for row in np.argsort(line)) if name in passes][:10]
        assert len(ids) == len(exact)
        assert set(ids) <= passes
        assert (np.diff(scores) <= 0).all()
        hits += len(set(ids) & set(exact))
        # Where the index has looked at all it would look at, or cannot go on, every row is looked at.
        if kind == "ivfflat" or passing < 10:
            assert ids == exact
    assert hits >= 0.9 * 20 * min(passing, 10)
    # HNSW since pgvector 0.8 goes on until enough pass; an IVFFlat index is not asked.
    assert (used[0] > 0) == (kind == "hnsw")
