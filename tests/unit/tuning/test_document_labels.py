"""Labels on documents go to the chunk that answers, not to all of them."""

from __future__ import annotations

import numpy as np
import pytest

from nudge_rag import LabeledPairs
from nudge_rag.stores.memory.mapping import MappingStore
from nudge_rag.tuning.document_labels import label_chunks


def planted(n_queries, answers, noise, seed=0):
    """Documents of ten chunks in random directions; each question lies between ``answers`` chunks of its document."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(20, 10, 24))
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    chunks = {f"d{d}-{c}": f"d{d}" for d in range(20) for c in range(10)}
    store = MappingStore({f"d{d}-{c}": vectors[d, c].tolist() for d in range(20) for c in range(10)})
    owners = rng.integers(0, 20, n_queries)
    meant = [rng.choice(10, answers, replace=False) for _ in owners]
    queries = {
        f"question {row}": vectors[owner, chosen].sum(axis=0) + noise * rng.normal(size=24)
        for row, (owner, chosen) in enumerate(zip(owners, meant, strict=True))
    }
    pairs = LabeledPairs.from_pairs([(f"question {row}", f"d{owner}") for row, owner in enumerate(owners)])
    truth = {f"question {row}": {f"d{o}-{c}" for c in m} for row, (o, m) in enumerate(zip(owners, meant, strict=True))}
    return store, chunks, pairs, queries, truth


def test_the_chunk_that_answers_is_found():
    store, chunks, pairs, queries, truth = planted(60, 1, 0.1)
    found = label_chunks(pairs, chunks, store, lambda texts: [queries[text] for text in texts], margins=[0.0])
    labels = {found.pairs.queries[query]: set(grades) for query, grades in found.pairs.qrels.items()}
    assert np.mean([labels[text] == truth[text] for text in truth]) > 0.95
    assert all(len(nodes) == 1 for nodes in labels.values())


def test_the_margin_is_chosen_on_held_out_queries_and_said():
    store, chunks, pairs, queries, _ = planted(300, 2, 0.15)
    found = label_chunks(pairs, chunks, store, lambda texts: [queries[text] for text in texts])
    assert list(found.scores) == [0.0, 0.02, 0.05, 0.1]
    assert found.scores[found.margin] == max(found.scores.values())
    by_hand = label_chunks(
        pairs, chunks, store, lambda texts: [queries[text] for text in texts], margins=[found.margin]
    )
    assert found.pairs == by_hand.pairs
    assert "chosen by nDCG@10 of documents on held-out queries (0: 0." in str(found)
    sizes = [len(nodes) for nodes in found.pairs.qrels.values()]
    assert max(sizes) < 10


def test_labels_are_those_of_a_loop():
    store, chunks, pairs, queries, _ = planted(30, 2, 0.3)
    found = label_chunks(pairs, chunks, store, lambda texts: [queries[text] for text in texts], margins=[0.08])
    for query, grades in pairs.qrels.items():
        vector = queries[pairs.queries[query]]
        (document,) = grades
        cosines = {
            node: float(np.dot(store.read([node])[0], vector) / np.linalg.norm(store.read([node])[0]))
            / float(np.linalg.norm(vector))
            for node, owner in chunks.items()
            if owner == document
        }
        assert set(found.pairs.qrels[query]) == {n for n, c in cosines.items() if c >= max(cosines.values()) - 0.08}


def test_grades_stay_and_unknown_documents_are_named():
    store = MappingStore({"a1": [1.0, 0.0], "a2": [0.0, 1.0]})
    pairs = LabeledPairs.from_pairs([("q", "a", -2), ("q", "gone"), ("r", "gone")])
    with pytest.warns(UserWarning, match=r"1 labelled node id\(s\) are not in the store, in 2 pair\(s\): 'gone' \(2\)"):
        found = label_chunks(pairs, {"a1": "a", "a2": "a", "x": "gone"}, store, lambda texts: [[0.9, 0.2]])
    assert dict(found.pairs.qrels["q0"]) == {"a1": -2}
    assert found.unknown.queries_left_empty == ("q1",)
    with pytest.raises(ValueError, match="no labelled document has a chunk in the store: labels name"):
        label_chunks(pairs, {"a1": "doc"}, store, lambda texts: [[0.9, 0.2]])
    with pytest.raises(ValueError, match="margins must be cosines of at least 0"):
        label_chunks(pairs, {"a1": "a"}, store, lambda texts: [[0.9, 0.2]], margins=[-1])
