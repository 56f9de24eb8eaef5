"""How far labels reach, and the learning curve."""

from __future__ import annotations

import numpy as np
import pytest

from nudge_rag import LabeledPairs, Split, StoreError
from nudge_rag.stores.memory.mapping import MappingStore
from nudge_rag.tuning.label_coverage import LabelCoverage, LearningPoint, coverage


def test_counts():
    store = MappingStore({name: [1.0, 0.0] for name in "abcde"})
    pairs = LabeledPairs.from_pairs([("1", "a"), ("2", "a"), ("3", "b"), ("4", "gone"), ("5", "c", -1), ("6", "c", 0)])
    found = coverage(pairs, store)
    assert (found.n_nodes, found.n_labelled, found.n_labels) == (5, 2, 4)
    assert found.nodes_with == {2: 1, 1: 2}
    assert found.unknown == ("gone",)
    assert found.uncovered == 2 / 4
    assert found.curve == () and found.worthwhile is None
    assert "2 of 5 nodes have a label, 4 labels in all (labels a node: nodes; 1: 2, 2: 1)" in str(found)
    with pytest.raises(ValueError, match="there is no learning curve"):
        found.expected(10)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"pairs": [("q", "a")]}, TypeError, "pairs must be LabeledPairs or a Split of them, got list"),
        ({"store": 3}, TypeError, "expected a store"),
        ({"metric": "nDCG"}, ValueError, "family@k"),
        ({"solver": "nudg-n"}, ValueError, "solver must be one of"),
        ({"worth": 0}, ValueError, "worth must be above 0, got 0"),
        ({"worth": float("nan")}, ValueError, "worth must be above 0, got nan"),
    ],
)
def test_what_is_wrong_is_refused_with_and_without_a_curve(changed, error, message):
    store, pairs, embedded = planted(40)
    right = {"store": store, "pairs": pairs}
    for embed in (None, lambda texts: [embedded[text] for text in texts]):
        with pytest.raises(error, match=message):
            coverage(**right | {"embed_queries": embed} | changed)


def test_a_store_that_fails_is_named():
    class Lost(MappingStore):
        def matching(self, ids, where):
            raise ConnectionError("gone")

    with pytest.raises(StoreError, match=r"mapping failed while nodes with labels were looked for.*gone"):
        coverage(LabeledPairs.from_pairs([("q", "a")]), Lost({"a": [1.0, 0.0]}))


def test_good_and_turing_predict_what_is_to_come():
    """Questions of a Zipf distribution over nodes: the estimate beside the share of new ones that hit no label."""
    rng = np.random.default_rng(0)
    chance = 1 / np.arange(1, 2001)
    nodes = rng.choice(2000, 4000, p=chance / chance.sum())
    store = MappingStore({f"n{node}": [1.0, 0.0] for node in range(2000)})
    seen, later = nodes[:2000], nodes[2000:]
    pairs = LabeledPairs.from_pairs([(f"question {number}", f"n{node}") for number, node in enumerate(seen)])
    assert coverage(pairs, store).uncovered == pytest.approx(np.mean(~np.isin(later, seen)), abs=0.03)


def test_the_fit_is_that_of_its_equation():
    points = tuple(LearningPoint(n, 0.4, 0.8 - 2 / np.sqrt(n)) for n in (100, 200, 400, 800))
    found = LabelCoverage(1, 1, 1, {}, (), 0.1, "nDCG@10", points, 0.8, 5)
    assert found.expected(3200) == pytest.approx(0.8 - 2 / np.sqrt(3200))


def planted(n_queries, seed=0):
    """Clusters of nodes whose questions point elsewhere than the nodes do: the more labels, the better the tuning."""
    rng = np.random.default_rng(seed)
    nodes = rng.normal(size=(60, 16))
    shift = rng.normal(size=(60, 16))
    owners = rng.integers(0, 60, n_queries)
    queries = nodes[owners] + 0.9 * shift[owners] + 0.5 * rng.normal(size=(n_queries, 16))
    store = MappingStore({f"n{row}": vector.tolist() for row, vector in enumerate(nodes)})
    pairs = LabeledPairs.from_pairs([(f"question {row}", f"n{owner}") for row, owner in enumerate(owners)])
    embedded = {f"question {row}": vector for row, vector in enumerate(queries)}
    return store, pairs, embedded


def test_the_learning_curve_rises_and_embeds_each_text_once():
    store, pairs, embedded = planted(600)
    asked = []

    def embed(texts):
        asked.extend(texts)
        return [embedded[text] for text in texts]

    found = coverage(pairs, store, embed)
    assert [point.n_queries for point in found.curve] == [52, 105, 210, 420]
    after = [point.after for point in found.curve]
    assert after[0] < after[-1] and len({point.before for point in found.curve}) == 1
    assert after[-1] > found.curve[-1].before + 0.1
    assert found.limit > after[-1]
    assert len(asked) == len(set(asked))
    # Where the fit says that a doubling is worth less than half a point, and not before.
    enough = found.curve[-1].n_queries + found.worthwhile
    assert found.expected(2 * enough) - found.expected(enough) <= 0.005 + 1e-6
    if found.worthwhile:
        assert found.expected(enough - 2) < found.expected(2 * (enough - 2)) - 0.005
    assert "nDCG@10 by training queries: untuned" in str(found)


def test_too_few_queries_for_a_curve():
    store, pairs, embedded = planted(9)
    found = coverage(pairs, store, lambda texts: [embedded[text] for text in texts])
    lacking = "it needs at least 8 training queries with an answer in the store, there are 6"
    assert (found.no_curve, found.curve, found.limit, found.worthwhile) == (lacking, (), None, None)
    assert f"no learning curve: {lacking}" in str(found)
    for ask in (lambda: found.expected(10), found.plot):
        with pytest.raises(ValueError, match=f"there is no learning curve: {lacking}"):
            ask()
    # Labels of nodes that the store does not hold teach nothing; a part without queries measures nothing.
    elsewhere = LabeledPairs.from_pairs([(text, "elsewhere") for text in embedded])
    lost = coverage(elsewhere, store, lambda texts: [embedded[text] for text in texts])
    assert "there are 0" in lost.no_curve
    many = planted(40)[1]
    split = Split(many, many.subset([]), many)
    assert (
        "at least 1 validation query"
        in coverage(split, store, lambda texts: [embedded[text] for text in texts]).no_curve
    )
