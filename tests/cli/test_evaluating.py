"""What `eval` and a night's gate ask of a store: many queries at once, and a query that fails fails alone."""

from __future__ import annotations

import numpy as np
import pytest

from nudge_rag import LabeledPairs
from nudge_rag.cli.evaluating import QUERIES_AT_ONCE, compare_stores
from nudge_rag.stores import MappingStore

N = QUERIES_AT_ONCE + 7
ANGLES = np.linspace(0, 3, 9)
NODES = {f"n{row}": [np.cos(angle), np.sin(angle)] for row, angle in enumerate(ANGLES)}
TEXTS = {f"text {number}": number % 9 for number in range(N)}
PAIRS = LabeledPairs.from_pairs([(text, f"n{row}") for text, row in TEXTS.items()])


class CountingStore(MappingStore):
    """A store that notes how many queries each search has, and refuses those that point down."""

    def __init__(self):
        super().__init__(NODES)
        self.asked = []

    def search(self, queries, k, *, where=None):
        self.asked.append(len(queries))
        if (queries[:, 1] < -0.5).any():
            raise ValueError("down")
        return super().search(queries, k, where=where)


def embed(texts):
    return np.array([NODES[f"n{TEXTS[text]}"] for text in texts])


def test_files_are_read_once_for_many_queries():
    store = CountingStore()
    found = compare_stores({"untuned": store}, PAIRS, embed, ["MRR@10", "Recall@1"])
    assert store.asked == [QUERIES_AT_ONCE, 7]
    assert found.mean("untuned", "MRR@10") == found.mean("untuned", "Recall@1") == 1


def test_a_query_that_the_store_fails_on_fails_alone():
    store = CountingStore()

    def with_one_down(texts):
        return np.where([[text == "text 3"] for text in texts], [0.0, -1.0], embed(texts))

    with pytest.warns(UserWarning, match="1 of"):
        found = compare_stores({"untuned": store}, PAIRS, with_one_down, ["MRR@10"])
    assert list(found.failures["untuned"]) == [next(name for name, text in PAIRS.queries.items() if text == "text 3")]
    assert found.mean("untuned", "MRR@10") == 1
