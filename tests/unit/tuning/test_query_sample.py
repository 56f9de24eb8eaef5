"""What a sample of queries says of all: against sums by hand, and against drawing again and again."""

from __future__ import annotations

import numpy as np
import pytest

from nudge_rag import LabeledPairs, Split, tune
from nudge_rag.evaluation.metrics import parse_metric
from nudge_rag.evaluation.runs import Evaluation
from nudge_rag.stores import Capabilities, MappingStore
from nudge_rag.tuning.query_sample import FEWEST_OF_GROUP, MOST_ASKED, QuerySample

METRIC = parse_metric("nDCG@10")


def evaluation(values, rows=None):
    rows = range(len(values)) if rows is None else rows
    return Evaluation(tuple(f"q{row}" for row in rows), {METRIC: np.asarray(values, dtype=np.float64)})


def test_few_queries_are_all_asked():
    sample = QuerySample.draw([True, False] * (MOST_ASKED // 2))
    assert not sample.is_partial
    assert sample.rows.tolist() == list(range(MOST_ASKED))
    asked = evaluation(np.zeros(MOST_ASKED))
    assert sample.spread(evaluation(np.ones(MOST_ASKED)), asked) is asked
    assert sample.standard_error(evaluation(np.ones(MOST_ASKED)), asked, METRIC) == 0


def test_of_each_group_some_are_drawn_the_same_ones_each_time():
    group_of = [row % 20 == 0 for row in range(10_000)]
    sample, again = QuerySample.draw(group_of), QuerySample.draw(group_of)
    assert sample.rows.tolist() == again.rows.tolist() == sorted(set(sample.rows.tolist()))
    by_group = {bool(group_of[rows[0]]): rows for rows in sample.asked}
    assert len(by_group[False]) == 0.95 * MOST_ASKED
    assert len(by_group[True]) == FEWEST_OF_GROUP
    assert all(group_of[row] is group for group, rows in by_group.items() for row in rows)


def test_means_are_difference_estimates_of_each_group():
    # Four queries of which the first and third are asked, and two that are both asked.
    sample = QuerySample((np.array([0, 1, 2, 3]), np.array([4, 5])), (np.array([0, 2]), np.array([4, 5])))
    exact = evaluation([1.0, 0.5, 0.8, 0.1, 0.4, 0.2])
    asked = evaluation([0.6, 0.6, 0.3, 0.2], rows=[0, 2, 4, 5])
    values = sample.spread(exact, asked).values[METRIC]
    # Differences -0.4 and -0.2: 0.3 lower on average.
    assert values[:4].mean() == pytest.approx((1.0 + 0.5 + 0.8 + 0.1) / 4 - 0.3)
    assert values[[1, 3]].tolist() == pytest.approx([0.2, -0.2])
    assert values[4:].tolist() == pytest.approx([0.3, 0.2])


def test_the_standard_error_is_that_of_drawing_again():
    rng = np.random.default_rng(1)
    n_queries, n_asked = 400, 60
    exact = rng.uniform(size=n_queries)
    store = exact - rng.uniform(size=n_queries) * (rng.uniform(size=n_queries) < 0.4)
    means, errors, spreads = [], [], []
    for _ in range(600):
        rows = np.sort(rng.choice(n_queries, size=n_asked, replace=False))
        sample = QuerySample((np.arange(n_queries),), (rows,))
        asked = evaluation(store[rows], rows)
        values = sample.spread(evaluation(exact), asked).values[METRIC]
        means.append(values.mean())
        errors.append(sample.standard_error(evaluation(exact), asked, METRIC))
        spreads.append(values.var() / n_queries)
    # 600 draws tell a mean to 1/25 of its deviation, and a deviation to 3 %.
    assert np.mean(means) == pytest.approx(store.mean(), abs=4 * np.std(means) / 600**0.5)
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.12)
    # Values of single queries vary as much as the mean does, and the queries themselves besides.
    assert np.mean(spreads) == pytest.approx(np.var(exact) / n_queries + np.var(store - exact) / n_asked, rel=0.3)


class Coarse(MappingStore):
    """An approximate index that never looks at every third node; it counts the queries that it is asked."""

    asked = 0

    @property
    def capabilities(self):
        return Capabilities("cosine", dtype="float64", exact_search=False)

    def search(self, queries, k, *, where=None):
        return super().search(queries, k, where=lambda node: int(node[1:]) % 3 != 0)

    def search_with_defaults(self, queries, k):
        self.asked += len(queries)
        return self.search(queries, k)


@pytest.mark.filterwarnings("ignore:.*(finds only|fewer neighbours)")
def test_a_store_is_asked_some_of_many_held_out_queries():
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(60, 6))
    store = Coarse({f"n{row}": vector.tolist() for row, vector in enumerate(rows)}, key="sampled")
    shifts = rng.normal(size=rows.shape)
    n_test = MOST_ASKED + 500
    node_of = {f"query {number}": int(rng.integers(40)) for number in range(400 + n_test)}
    embedded = {text: rows[node] + shifts[node] + rng.normal(size=6) * 0.3 for text, node in node_of.items()}
    texts = list(node_of)
    parts = [texts[:200], texts[200:400], texts[400:]]
    split = Split(*(LabeledPairs.from_pairs((text, f"n{node_of[text]}") for text in part) for part in parts))
    nudge = tune(
        store, split, lambda asked: np.array([embedded[text] for text in asked]), solver="nudge-n", metrics=["nDCG@10"]
    )
    row, exact = (table.row("nDCG@10") for table in (nudge.comparison, nudge.exact_comparison))
    assert store.asked < 2.5 * MOST_ASKED
    assert row.n_queries == n_test
    # What asking all of them gives: a third of the nodes is never found.
    found = store.search(np.array([embedded[text] for text in parts[2]]), 10).ids
    answers = dict(zip(parts[2], found, strict=True))
    ranks = [ids.index(f"n{node_of[text]}") if f"n{node_of[text]}" in ids else 99 for text, ids in answers.items()]
    everything = np.mean([1 / np.log2(rank + 2) if rank < 10 else 0.0 for rank in ranks])
    error = float(nudge.summary.partition("standard error ")[2].partition(")")[0])
    assert f"asked for {MOST_ASKED} of {n_test} held-out queries" in nudge.summary
    assert 0 < error < 0.016
    assert abs(row.before - everything) < 3 * error
    assert exact.before - everything > 10 * error
    # A report shows the queries that were asked, and what the store answered to them.
    shown = nudge.held_out
    assert shown.pairs.n_queries == MOST_ASKED
    rankings = shown.rankings["untuned"]
    assert all(list(rankings[query]) == answers[text] for query, text in shown.pairs.queries.items())
