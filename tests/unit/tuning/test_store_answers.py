"""What a store with cells answers, known exactly because the cells are."""

from __future__ import annotations

import numpy as np
import pytest

from nudge_rag import LabeledPairs, tune
from nudge_rag.stores import Capabilities, MappingStore, SearchResult
from nudge_rag.tuning.store_answers import Ranking, StoreAnswers


class Cells(MappingStore):
    """Searches among the nodes on the query's side of a plane alone, as an index with two lists would."""

    @property
    def capabilities(self):
        return Capabilities("cosine", dtype="float64", exact_search=False)

    def search(self, queries, k, *, where=None):
        lists = []
        for query in queries:
            side = MappingStore({n: v for n, v in self.vectors.items() if (v[0] > 0) == (query[0] > 0)}, key="side")
            lists.append(side.search(query[None], min(k, side.count())))
        return SearchResult([one.ids[0] for one in lists], [one.scores[0] for one in lists])


def make_store():
    # Two nodes on either side of the plane x = 0; "edge" is just beyond it, next to the query.
    angles = {"right": 30.0, "far": 60.0, "edge": 95.0, "left": 150.0}
    vectors = {name: [np.cos(np.radians(angle)), np.sin(np.radians(angle))] for name, angle in angles.items()}
    store = Cells(vectors, key="cells")
    store.vectors = {name: np.array(vector) for name, vector in vectors.items()}
    return store


def at(*degrees):
    return np.array([[np.cos(np.radians(angle)), np.sin(np.radians(angle))] for angle in degrees])


def exact_rankings(vectors, queries):
    names = ["right", "far", "edge", "left"]
    rankings = []
    for scores in queries @ vectors.T:
        order = np.argsort(-scores)
        rankings.append(Ranking([names[row] for row in order], scores[order]))
    return rankings


def answers_of(store):
    names = ["right", "far", "edge", "left"]
    return StoreAnswers(store, names, store.read(names))


def test_stored_vectors_are_asked_of_the_store():
    store, query = make_store(), at(85.0)
    answers = answers_of(store)
    exact = exact_rankings(answers.stored, query)
    assert list(exact[0].ids) == ["edge", "far", "right", "left"]
    assert answers.rank(query, answers.stored, exact, 2) == [["far", "right"]]
    assert not answers.has_estimated


def test_an_index_that_finds_all_says_nothing():
    store, query = make_store(), at(30.0)
    answers = answers_of(store)
    # "edge" and "left" do not belong among the best two of this query.
    assert answers.rank(query, answers.stored, exact_rankings(answers.stored, query), 2) is None


@pytest.mark.parametrize(
    ("place", "found"),
    [(80.0, ["edge", "far"]), (100.0, ["far", "right"])],
    ids=["to the query's side", "not across the plane"],
)
def test_a_moved_node_is_found_where_its_new_neighbours_are(place, found):
    store, query = make_store(), at(85.0)
    answers = answers_of(store)
    moved = np.array(answers.stored)
    moved[2] = at(place)[0]
    ranked = answers.rank(query, moved, exact_rankings(moved, query), 2)
    if place < 90:
        # Its neighbours there are found, so the exact ranking is the store's.
        assert ranked is None
        assert exact_rankings(moved, query)[0].ids[:2] == found
    else:
        assert ranked == [found]
        assert answers.has_estimated
    # That is what the store answers once the vector is written.
    store.replace(["edge"], moved[2:3])
    store.vectors["edge"] = moved[2]
    assert store.search(query, 2).ids == [found]


def test_no_queries_are_no_answers():
    answers = answers_of(make_store())
    assert answers.rank(np.zeros((0, 2)), answers.stored, [], 2) is None


@pytest.mark.filterwarnings("ignore:.*(finds only|fewer neighbours)")
def test_the_gate_uses_what_the_store_answers():
    """By exact scores the nudge helps; the store finds nothing of it, since the node stays in the other cell."""
    store = make_store()
    pairs = LabeledPairs.from_pairs((f"q{number}", "left") for number in range(40))
    nudge = tune(store, pairs, lambda texts: at(*[88.0] * len(texts)), metrics=["MRR@1"], solver="nudge-n")
    assert nudge.gamma > 0
    assert nudge.exact_comparison.row("MRR@1").after == 1
    store.vectors["left"] = nudge.vectors[0]
    assert store.search(at(88.0), 1).ids != [["left"]]
    assert nudge.comparison.row("MRR@1").after == 0
    assert not nudge.improves
