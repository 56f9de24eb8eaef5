"""Labels from pandas and Arrow tables."""

from __future__ import annotations

import pandas
import pyarrow
import pytest

from nudge_rag import LabeledPairs

COLUMNS = {"question": ["a", "b"], "doc": [7, 9], "rating": [1.5, -1.0], "query_id": ["z", "z"]}
NAMES = {"query": "question", "node_id": "doc", "grade": "rating"}


@pytest.mark.parametrize("table", [pandas.DataFrame(COLUMNS), pyarrow.table(COLUMNS)], ids=["pandas", "arrow"])
def test_columns_are_mapped(table):
    pairs = LabeledPairs.from_dataframe(table, NAMES)
    assert {pairs.queries[query]: dict(grades) for query, grades in pairs.qrels.items()} == {
        "a": {"7": 1.5},
        "b": {"9": -1},
    }


@pytest.mark.parametrize("node_type", ["float64", "Int64", "object"])
def test_gaps_are_bad_rows_and_integer_ids_stay_integers(node_type):
    nodes = pandas.Series([7, 8, None], dtype=node_type)
    gaps = pandas.DataFrame({"query": ["a", None, "b"], "node_id": nodes, "query_id": [1, None, 2]})
    expected = "table, row 1: query must be a string, got None; table, row 2: node_id must be a string, got None"
    with pytest.warns(UserWarning, match=expected):
        pairs = LabeledPairs.from_dataframe(gaps, errors="skip")
    assert (dict(pairs.queries), dict(pairs.qrels["1"])) == ({"1": "a"}, {"7": 1.0})
