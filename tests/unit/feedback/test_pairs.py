"""Labelled pairs: construction, every file format there and back, splits, unknown nodes."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nudge_rag import LabeledPairs

AWKWARD = LabeledPairs(
    {"q1": 'a "quoted",\ntwo-line query', "q2": "ünï\u2028cödé 🙂", "q,3": "plain"},
    {"q1": {"n1": 1.0, "n 2": 2.0}, "q2": {"n1": 0.25}, "q,3": {"ñ": 0.0}},
)


def test_from_pairs_merges_texts_and_adds_grades_up():
    pairs = LabeledPairs.from_pairs([("a", "n1"), ("b", "n1", 2), ("a", "n2", 0.5), ("a", "n1", 3), ("a", "n1", 1)])
    assert dict(pairs.queries) == {"q0": "a", "q1": "b"}
    assert {query: dict(grades) for query, grades in pairs.qrels.items()} == {
        "q0": {"n1": 1 + 3 + 1, "n2": 0.5},
        "q1": {"n1": 2},
    }
    assert (len(pairs), pairs.n_queries, pairs.node_ids) == (3, 2, ("n1", "n2"))


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_files_there_and_back(tmp_path, form):
    path = tmp_path / f"pairs.{form}"
    getattr(AWKWARD, f"to_{form}")(path)
    assert getattr(LabeledPairs, f"from_{form}")(path) == AWKWARD


def test_beir_there_and_back_keeps_other_splits(tmp_path):
    other = LabeledPairs({"z": "other"}, {"z": {"n9": 1}})
    AWKWARD.to_beir(tmp_path, "train")
    other.to_beir(tmp_path, "test")
    assert LabeledPairs.from_beir(tmp_path, "train") == AWKWARD
    assert LabeledPairs.from_beir(tmp_path, "test") == other
    with pytest.raises(ValueError, match="another text"):
        LabeledPairs({"z": "changed"}, {"z": {"n9": 1}}).to_beir(tmp_path, "test")
    assert LabeledPairs.from_beir(tmp_path, "test") == other
    with pytest.raises(ValueError, match=r"no split 'dev'; it has \['test', 'train'\]"):
        LabeledPairs.from_beir(tmp_path, "dev")


def test_minimal_rows(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"query": "a", "node_id": "n1"}\n\n{"query": "a", "node_id": "n2", "grade": 2}\n'
    )
    (tmp_path / "a.csv").write_text("node_id,query\nn1,a\nn2,a\n")
    assert LabeledPairs.from_jsonl(tmp_path / "a.jsonl") == LabeledPairs.from_pairs([("a", "n1"), ("a", "n2", 2)])
    assert LabeledPairs.from_csv(tmp_path / "a.csv") == LabeledPairs.from_pairs([("a", "n1"), ("a", "n2")])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"query": "a", "node_id": "n"}\n{"query": "a"}\n', "line 2: node_id missing"),
        ("a.jsonl", "{nope\n", "line 1: not JSON"),
        ("a.jsonl", "[1]\n", "line 1: expected a JSON object, got list"),
        ("a.csv", "text,node\na,b\n", "must have the columns query and node_id"),
        ("a.csv", "query,node_id\na\n", "line 2: expected 2 columns"),
        ("a.csv", "query,node_id,grade\na,b,high\n", "line 2: grade must be a number, got 'high'"),
    ],
)
def test_broken_files_name_the_line(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        (LabeledPairs.from_jsonl if name.endswith("jsonl") else LabeledPairs.from_csv)(tmp_path / name)


def test_beir_qrels_without_a_query_text(tmp_path):
    AWKWARD.to_beir(tmp_path)
    with (tmp_path / "qrels" / "train.tsv").open("a") as file:
        file.write("lost\tn1\t1\n")
    with pytest.raises(ValueError, match=r"1 query id\(s\) that queries.jsonl lacks, such as 'lost'"):
        LabeledPairs.from_beir(tmp_path)


def test_llama_index_dataset_by_shape(tmp_path):
    content = {
        "queries": {"q": "text", "empty": "x"},
        "corpus": {"n": "node"},
        "relevant_docs": {"q": ["n", "m"], "empty": []},
    }
    expected = LabeledPairs({"q": "text"}, {"q": {"n": 1, "m": 1}})
    (tmp_path / "set.json").write_text(json.dumps({**content, "mode": "text"}))
    assert LabeledPairs.from_finetune_dataset(content) == expected
    assert LabeledPairs.from_finetune_dataset(SimpleNamespace(**content)) == expected
    assert LabeledPairs.from_finetune_dataset(tmp_path / "set.json") == expected
    with pytest.raises(TypeError, match="queries and relevant_docs"):
        LabeledPairs.from_finetune_dataset({"queries": {}})


@pytest.mark.parametrize(
    ("queries", "qrels", "error"),
    [
        ({"q": ""}, {"q": {"n": 1}}, ValueError),
        ({"q": 3}, {"q": {"n": 1}}, TypeError),
        ({"q": "a"}, {"q": {3: 1}}, TypeError),
        ({"q": "a"}, {"q": {"": 1}}, ValueError),
        ({"q": "a"}, {"q": {"n": float("nan")}}, ValueError),
        ({"q": "a"}, {"q": {"n": "high"}}, TypeError),
        ({"q": "a"}, {"q": {"n": True}}, TypeError),
        ({"q": "a"}, {"q": {}}, ValueError),
        ({"q": "a"}, {}, ValueError),
        ({"q": "a"}, {"q": {"n": 1}, "z": {"n": 1}}, ValueError),
    ],
)
def test_bad_content(queries, qrels, error):
    with pytest.raises(error, match=r"'q'|'z'|query id"):
        LabeledPairs(queries, qrels)


@given(st.lists(st.tuples(st.sampled_from("abcdefghij"), st.sampled_from("xyz")), min_size=1), st.integers(0, 5))
def test_split_loses_nothing_and_does_not_depend_on_order(rows, seed):
    pairs, backwards = LabeledPairs.from_pairs(rows), LabeledPairs.from_pairs(rows[::-1])
    parts, other = pairs.split(0.5, 0.25, 0.25, seed=seed), backwards.split(0.5, 0.25, 0.25, seed=seed)
    assert sorted(text for part in parts for text in part.queries.values()) == sorted(set(dict(rows)))
    assert [set(part.queries.values()) for part in parts] == [set(part.queries.values()) for part in other]
    assert sum(len(part) for part in parts) == len(set(rows))


def test_identical_texts_stay_together():
    pairs = LabeledPairs({f"q{i}": f"text {i % 20}" for i in range(100)}, {f"q{i}": {"n": 1} for i in range(100)})
    parts = pairs.split()
    texts = [set(part.queries.values()) for part in parts]
    assert [len(part) for part in texts] == [14, 2, 4]
    assert not (texts[0] & texts[1] or texts[0] & texts[2] or texts[1] & texts[2])
    assert sum(part.n_queries for part in parts) == 100


def test_split_fractions_are_checked():
    for fractions in ((0.5, 0.5, 0.5), (1.5, -0.5, 0), (float("nan"), 0.5, 0.5)):
        with pytest.raises(ValueError, match="sum to 1"):
            AWKWARD.split(*fractions)


def test_unknown_nodes_are_named_and_counted():
    pairs = LabeledPairs.from_pairs([("a", "n1"), ("a", "gone"), ("b", "gone"), ("c", "n2")])
    kept, unknown = pairs.restrict_to(["n1", "n2"])
    assert kept == LabeledPairs({"q0": "a", "q2": "c"}, {"q0": {"n1": 1}, "q2": {"n2": 1}})
    assert (dict(unknown.pairs), unknown.queries_left_empty) == ({"gone": 2}, ("q1",))
    assert "1 labelled node id(s) are not in the store, in 2 pair(s): 'gone' (2); 1 of the queries" in str(unknown)
    assert not pairs.restrict_to(["n1", "n2", "gone"])[1]


def test_content_cannot_be_changed():
    with pytest.raises(TypeError):
        AWKWARD.queries["q9"] = "x"
    with pytest.raises(ValueError, match="not among the pairs"):
        AWKWARD.subset(["nope"])


def test_learned_texts_are_never_tested_and_change_nothing_else():
    pairs = LabeledPairs.from_pairs((f"query {n}", "a") for n in range(100))
    plain = pairs.split(seed=3)
    assert [part.queries for part in pairs.split(seed=3, learned=["not among them"])] == [p.queries for p in plain]
    learned = [*plain.train.queries.values(), *plain.val.queries.values()]
    again = pairs.split(seed=3, learned=learned)
    assert [part.queries for part in again] == [part.queries for part in plain]
    swapped = pairs.split(seed=3, learned=[text.upper() + "?" for text in plain.test.queries.values()])
    assert not set(swapped.test.queries) & set(plain.test.queries)
    assert [part.n_queries for part in swapped] == [70, 10, 20]
    few = pairs.split(seed=3, learned=[f"query {n}" for n in range(95)])
    assert [part.n_queries for part in few] == [85, 10, 5]
