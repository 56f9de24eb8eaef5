"""Labels as people have them: several files, votes, byte order marks, bad rows, near-identical queries."""

from __future__ import annotations

import copy
import json
import pickle
import warnings

import numpy as np
import pytest

from nudge_rag import LabeledPairs
from nudge_rag.feedback.rows import normalise


def plain(pairs):
    return {pairs.queries[query]: dict(grades) for query, grades in pairs.qrels.items()}


def test_thumbs_are_counted_and_not_maximised():
    votes = [("cancel", "n", -1)] * 30 + [("cancel", "n", 1)]
    assert plain(LabeledPairs.from_pairs(votes)) == {"cancel": {"n": -29}}


def test_files_of_two_days_behind_each_other(tmp_path):
    monday = LabeledPairs.from_pairs([("cancel", "n1", -2), ("pay", "n2")])
    tuesday = LabeledPairs.from_pairs([("log in", "n3"), ("cancel", "n1")])
    for name, day in (("1", monday), ("2", tuesday)):
        day.to_jsonl(tmp_path / name)
    both = tmp_path / "both.jsonl"
    both.write_text((tmp_path / "1").read_text() + (tmp_path / "2").read_text())
    read = LabeledPairs.from_jsonl(both)
    assert plain(read) == {"cancel": {"n1": -1}, "pay": {"n2": 1}, "log in": {"n3": 1}}
    assert plain(read) == plain(monday + tuesday)
    assert len(read.queries) == 3


def test_ids_are_trusted_while_each_has_one_text(tmp_path):
    pairs = LabeledPairs({"a": "same", "b": "same"}, {"a": {"n": 1}, "b": {"m": 1}})
    pairs.to_jsonl(tmp_path / "a.jsonl")
    assert LabeledPairs.from_jsonl(tmp_path / "a.jsonl") == pairs


def test_merging_adds_or_replaces():
    first = LabeledPairs({"x": "cancel", "y": "pay"}, {"x": {"n1": -3, "n2": 1}, "y": {"n": 1}})
    second = LabeledPairs({"x": "log in", "z": "cancel"}, {"x": {"n": 2}, "z": {"n1": 1}})
    assert plain(first + second) == {"cancel": {"n1": -2, "n2": 1}, "pay": {"n": 1}, "log in": {"n": 2}}
    assert plain(first | second) == {"cancel": {"n1": 1, "n2": 1}, "pay": {"n": 1}, "log in": {"n": 2}}
    assert (first | first) == first
    assert set(first.queries) <= set((first + second).queries)
    with pytest.raises(TypeError):
        first + {"x": 1}


BAD_NIGHT = [
    '{"query": "cancel", "node_id": 17}',
    "",
    '{"query": "  ", "node_id": "n"}',
    '{"query": "pay", "node_id": "n", "grade": null}',
    '{"query": "pay", "node_id": ["n"]}',
    '{"query": "pay", "node_id": "n", "grade": 1e999}',
    '{"query": "pay", "node_id": "n", "grade": 2}',
    "{torn",
]


def test_bad_rows_are_skipped_and_listed_with_file_and_line(tmp_path):
    path = tmp_path / "night.jsonl"
    path.write_text("\n".join(BAD_NIGHT))
    with pytest.warns(UserWarning, match=r"5 of 7 rows were skipped: .*night.jsonl, line 3: query is empty"):
        pairs = LabeledPairs.from_jsonl(path, errors="skip")
    assert plain(pairs) == {"cancel": {"17": 1}, "pay": {"n": 2}}
    assert [row.line for row in pairs.report.skipped] == [3, 4, 5, 6, 8]
    assert {row.source for row in pairs.report.skipped} == {str(path)}
    assert pairs.report.n_rows == 7
    with pytest.raises(ValueError, match=r"night.jsonl, line 3: query is empty"):
        LabeledPairs.from_jsonl(path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"query": "pay", "node_id": "n", "grade": null}', "line 1: grade must be a number, got None"),
        ('{"query": "pay", "node_id": "n", "grade": true}', "line 1: grade must be a number, got True"),
        ('{"query": "pay", "node_id": "n", "grade": 1%s}' % ("0" * 400), "line 1: grade must be finite"),
        ('{"query": "pay", "node_id": true}', "line 1: node_id must be a string, got True"),
        ('{"query": "pay", "node_id": ""}', "line 1: node_id is empty"),
        ('{"query": "pay", "node_id": 1%s}' % ("0" * 5000), "line 1: not JSON"),
        ("[" * 100_000, "line 1: not JSON"),
    ],
)
def test_errors_name_file_and_line(tmp_path, row, message):
    path = tmp_path / "a.jsonl"
    path.write_text(row)
    with pytest.raises((ValueError, TypeError), match=f"a.jsonl, {message}"):
        LabeledPairs.from_jsonl(path)
    with pytest.raises(ValueError, match="no row could be read"), pytest.warns(UserWarning, match="skipped"):
        LabeledPairs.from_jsonl(path, errors="skip")


def test_errors_takes_two_words(tmp_path):
    with pytest.raises(ValueError, match='errors must be "raise" or "skip", got \'ignore\''):
        LabeledPairs.from_pairs([("a", "b")], errors="ignore")


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("thumb", ("up", "down")),
        ("Feedback", ("\N{THUMBS UP SIGN}", "\N{THUMBS DOWN SIGN}\U0001f3fd")),
        ("helpful?", (" Yes", "NO")),
        ("opinion", ("like", "dislike")),
        ("x", ("thumbs_up", "n/a")),
        ("y", ("+1", "-1")),
        ("z", ("+1", "")),
        ("solved", ("true", "False")),
        ("userRating", ("3.5", "4")),
        ("n_clicks", ("17", "0")),
        ("GRADE", ("1", "2")),
    ],
)
def test_votes_under_a_name_that_is_not_read_are_refused(tmp_path, column, cells):
    (tmp_path / "night.csv").write_text(f"query,node_id,{column}\na,n,{cells[0]}\nb,n,{cells[1]}\n")
    (tmp_path / "night.jsonl").write_text(
        "".join(json.dumps({"query": "a", "node_id": "n", column: cell}) + "\n" for cell in cells)
    )
    for form in ("csv", "jsonl"):
        for errors in ("raise", "skip"):
            with pytest.raises(ValueError, match=rf"night.{form}: column .* looks like votes") as raised:
                getattr(LabeledPairs, f"from_{form}")(tmp_path / f"night.{form}", errors=errors)
            assert repr(column) in str(raised.value)
            assert "that are read: query, node_id, grade, query_id, synthetic." in str(raised.value)
    columns = {"query": ["a", "b"], "node_id": ["n", "n"], column: list(cells)}
    with pytest.raises(ValueError, match="looks like votes"):
        LabeledPairs.from_dataframe(columns)
    # Who names the columns has left the others out.
    named = {"query": "query", "node_id": "node_id"}
    assert plain(LabeledPairs.from_dataframe(columns, named)) == {"a": {"n": 1}, "b": {"n": 1}}


@pytest.mark.parametrize("row", [{"vote": True}, {"vote": 1}, {"vote": -1, "grade": -1}, {"grade": -1}])
def test_one_vote_without_a_grade_is_enough(tmp_path, row):
    path = tmp_path / "night.jsonl"
    rows = [{"query": "a", "node_id": "n", "grade": 2}, {"query": "b", "node_id": "n", **row}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if "grade" not in row:
        with pytest.raises(ValueError, match="column 'vote' looks like votes"):
            LabeledPairs.from_jsonl(path)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error" if len(row) == 1 else "ignore")
        assert plain(LabeledPairs.from_jsonl(path)) == {"a": {"n": 2}, "b": {"n": -1}}


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("shelf", ("up", "left")),
        ("rank", ("1", "2")),
        ("is_new", ("0", "1")),
        ("clicked_at", ("1700000000", "1700000001")),
        ("release", ("3", "4")),
        ("comment", ("", " ")),
        ("label", ("billing", "login")),
    ],
)
def test_other_unknown_columns_are_warned_of(tmp_path, column, cells):
    path = tmp_path / "night.csv"
    path.write_text(f"query,node_id,{column}\na,n,{cells[0]}\nb,n,{cells[1]}\n")
    with pytest.warns(UserWarning, match=rf"night.csv: ignored unknown column\(s\) '{column}' \(2 rows\)") as caught:
        pairs = LabeledPairs.from_csv(path)
    assert caught[0].filename == __file__
    assert pairs.report.ignored == {column: 2}
    assert plain(pairs) == {"a": {"n": 1}, "b": {"n": 1}}


def test_an_empty_grade_is_not_an_answer(tmp_path):
    path = tmp_path / "rated.csv"
    path.write_text("query,node_id,grade\na,n,1\nb,n,\n")
    with pytest.raises(ValueError, match="line 3: grade is empty: leave the column out if every row is an answer"):
        LabeledPairs.from_csv(path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-8"])
def test_encodings_that_say_so(tmp_path, encoding):
    expected = {"künd\u2028igen": {"ñ": 2}}
    (tmp_path / "a.jsonl").write_bytes('{"query": "künd\u2028igen", "node_id": "ñ", "grade": 2}\r\n'.encode(encoding))
    (tmp_path / "a.csv").write_bytes("query,node_id,grade\r\nkünd\u2028igen,ñ,2\r\n".encode(encoding))
    (tmp_path / "set.json").write_bytes(
        json.dumps({"queries": {"q": "künd\u2028igen"}, "relevant_docs": {"q": {"ñ": 2}}}).encode(encoding)
    )
    (tmp_path / "qrels").mkdir()
    (tmp_path / "queries.jsonl").write_bytes('{"_id": 1, "text": "künd\u2028igen"}\n\n'.encode(encoding))
    (tmp_path / "qrels" / "train.tsv").write_bytes("query-id\tcorpus-id\tscore\n1\tñ\t2\n\n".encode(encoding))
    assert plain(LabeledPairs.from_jsonl(tmp_path / "a.jsonl")) == expected
    assert plain(LabeledPairs.from_csv(tmp_path / "a.csv")) == expected
    assert plain(LabeledPairs.from_finetune_dataset(tmp_path / "set.json")) == expected
    assert plain(LabeledPairs.from_beir(tmp_path)) == expected


def test_other_encodings_name_the_file_and_line(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("query;node_id\ncancel;n1\nkündigen;n2\n".encode("cp1252"))
    with pytest.raises(ValueError, match=r"a.csv, line 3: query holds bytes .* encoding=, such as 'cp1252'"):
        LabeledPairs.from_csv(path, delimiter=";")
    with pytest.warns(UserWarning, match="line 3"):
        assert plain(LabeledPairs.from_csv(path, delimiter=";", errors="skip")) == {"cancel": {"n1": 1}}
    read = LabeledPairs.from_csv(path, delimiter=";", encoding="cp1252")
    assert plain(read) == {"cancel": {"n1": 1}, "kündigen": {"n2": 1}}
    with pytest.raises(ValueError, match=r"a.csv: cannot be read as ascii"):
        LabeledPairs.from_csv(path, encoding="ascii")


def test_huge_cells(tmp_path):
    text = "why " * 100_000
    (tmp_path / "a.csv").write_text(f"query,node_id\n{text},n\n")
    assert plain(LabeledPairs.from_csv(tmp_path / "a.csv")) == {text: {"n": 1}}


def test_a_quotation_mark_that_is_never_closed_costs_one_row(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('query,node_id\na,n\n"b,n\nc,n\n"two\nlines",n\n')
    with pytest.warns(UserWarning, match="line 3: not CSV"):
        pairs = LabeledPairs.from_csv(path, errors="skip")
    assert list(plain(pairs)) == ["a", "c", "two\nlines"]
    with pytest.raises(ValueError, match=r"a.csv, line 3: not CSV"):
        LabeledPairs.from_csv(path)


def test_beir_rows_that_contradict_each_other(tmp_path):
    (tmp_path / "qrels").mkdir()
    queries, qrels = tmp_path / "queries.jsonl", tmp_path / "qrels" / "train.tsv"
    queries.write_text('{"_id": "1", "text": "a"}\n{"_id": "1", "text": "b"}\n{"text": "c"}\n')
    qrels.write_text("query-id\tcorpus-id\tscore\n1\tn\t2\n1\tn\t2\n1\tm\t1\n1\tm\t0\n2\tn\t1\n1\tk\thigh\n")
    with pytest.raises(ValueError, match=r"queries.jsonl, line 2: query '1' has two texts"):
        LabeledPairs.from_beir(tmp_path)
    with pytest.warns(UserWarning, match="skipped"):
        pairs = LabeledPairs.from_beir(tmp_path, errors="skip")
    assert plain(pairs) == {"a": {"n": 2, "m": 1}}
    skipped = [(row.source, row.line) for row in pairs.report.skipped]
    assert sorted(skipped) == sorted([*((str(queries), n) for n in (2, 3)), *((str(qrels), n) for n in (5, 6, 7))])


@pytest.mark.parametrize(
    ("relevant", "negative", "expected"),
    [
        ({"d1": 2, "d2": -1}, None, {"d1": 2, "d2": -1}),
        ("d1", None, {"d1": 1}),
        (["d1", 7], ["d3"], {"d1": 1, "7": 1, "d3": -1}),
        ("d1", {"d3": 0.5, "d4": -2}, {"d1": 1, "d3": -1, "d4": -2}),
        (["d1"], "d3", {"d1": 1, "d3": -1}),
    ],
)
def test_shapes_of_finetune_datasets(relevant, negative, expected):
    content = {"queries": {"q": "text"}, "relevant_docs": {"q": relevant}}
    if negative is not None:
        content["negative_docs"] = {"q": negative}
    assert plain(LabeledPairs.from_finetune_dataset(content)) == {"text": expected}


def test_bad_finetune_queries_are_named():
    content = {
        "queries": {"q": "text", "r": "other", "s": " "},
        "relevant_docs": {"q": ["d"], "r": ["d"], "s": ["d"], "t": ["d"]},
        "negative_docs": {"r": ["d"]},
    }
    with pytest.raises(ValueError, match="query 'r': node 'd' is both in relevant_docs and in negative_docs"):
        LabeledPairs.from_finetune_dataset(content)
    with pytest.warns(UserWarning, match="3 of 4 rows were skipped"):
        assert plain(LabeledPairs.from_finetune_dataset(content, errors="skip")) == {"text": {"d": 1}}


def test_near_identical_queries_are_never_apart():
    texts = [variant for n in range(40) for variant in (f"cancel plan {n}", f"Cancel  plan {n} ", f"CANCEL PLAN {n}?")]
    pairs = LabeledPairs.from_pairs([(text, "n") for text in texts])
    assert pairs.n_queries == 120
    parts = pairs.split(0.5, 0.25, 0.25)
    groups = [{normalise(text) for text in part.queries.values()} for part in parts]
    assert [part.n_queries for part in parts] == [60, 30, 30]
    assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])


def test_distinct_queries_fall_as_they_always_did():
    texts = [f"{letter}{n}" for n in range(30) for letter in "bA_z"]
    shuffled = np.random.default_rng(7).permutation(sorted(texts))
    parts = LabeledPairs.from_pairs([(text, "n") for text in texts]).split(0.7, 0.1, 0.2, seed=7)
    found = [set(part.queries.values()) for part in parts]
    assert found == [set(shuffled[:84]), set(shuffled[84:96]), set(shuffled[96:])]


def test_a_few_near_identical_queries_leave_the_others_where_they_were():
    texts = [f"question {number}" for number in range(1000)]
    plain_split = LabeledPairs.from_pairs([(text, "n") for text in texts]).split(seed=3)
    near = ["Question  7", "question 7?"]
    # By hand: the permutation of all 1,002 texts, without those that are not the first of their group.
    order = [sorted([*texts, *near])[row] for row in np.random.default_rng(3).permutation(1002)]
    kept = [text for text in order if normalise(text) != "question 7" or text == min("question 7", *near)]
    parts = LabeledPairs.from_pairs([(text, "n") for text in (*texts, *near)]).split(seed=3)
    found = [set(part.queries.values()) for part in parts]
    expected = [set(kept[:700]), set(kept[700:800]), set(kept[800:])]
    group = {"question 7", *near}
    assert [part - group for part in found] == [part - group for part in expected]
    assert sum(bool(part & group) for part in found) == 1
    assert [part.n_queries for part in plain_split] == [700, 100, 200]


def test_synthetic_queries_only_train(tmp_path):
    asked = LabeledPairs.from_pairs([(f"asked {n}", "n") for n in range(20)])
    made = LabeledPairs(
        {**{f"g{n}": f"made {n}" for n in range(50)}, "twin": "Asked 3 "},
        {**{f"g{n}": {"n": 1} for n in range(50)}, "twin": {"n": 1}},
        synthetic=frozenset([*(f"g{n}" for n in range(50)), "twin"]),
    )
    both = asked + made
    parts = both.split(0.5, 0.25, 0.25)
    assert [part.n_queries - len(part.synthetic) for part in parts] == [10, 5, 5]
    assert not parts.val.synthetic and not parts.test.synthetic
    train = {normalise(text) for text in parts.train.queries.values()}
    assert not train & {normalise(text) for part in parts[1:] for text in part.queries.values()}
    for form in ("jsonl", "csv", "beir"):
        path = tmp_path / form
        getattr(both, f"to_{form}")(path)
        assert getattr(LabeledPairs, f"from_{form}")(path) == both


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda pairs: pickle.loads(pickle.dumps(pairs))])
def test_pairs_and_splits_are_copied_and_pickled(copied):
    pairs = LabeledPairs({"a": "x", "b": "y"}, {"a": {"n": 1}, "b": {"m": -1}}, frozenset("b"))
    assert copied(pairs) == pairs
    assert copied(pairs.split(1, 0, 0)) == pairs.split(1, 0, 0)
    with pytest.raises(TypeError):
        copied(pairs).queries["c"] = "z"


def test_tables():
    columns = {"question": ["a", "b"], "doc": [7, 9], "rating": [1.5, -1.0]}
    names = {"query": "question", "node_id": "doc", "grade": "rating"}
    assert plain(LabeledPairs.from_dataframe(columns, names)) == {"a": {"7": 1.5}, "b": {"9": -1}}
    with pytest.raises(ValueError, match="the table has no column 'answer'; it has"):
        LabeledPairs.from_dataframe(columns, {"query": "question", "node_id": "answer"})
    with pytest.raises(ValueError, match="columns must map query, node_id"):
        LabeledPairs.from_dataframe(columns, {"text": "question"})
    with pytest.raises(TypeError, match="expected a pandas, Polars, Arrow or Hugging Face table"):
        LabeledPairs.from_dataframe([("a", "b")])


def test_nothing_is_said_of_a_clean_file(tmp_path):
    pairs = LabeledPairs.from_pairs([("a", 1), ("b", np.int64(2))])
    pairs.to_csv(tmp_path / "a.csv")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = LabeledPairs.from_csv(tmp_path / "a.csv")
    assert read == pairs
    assert (read.report.n_rows, read.report.skipped, bool(read.report)) == (2, (), False)
    assert str(read.report) == "all 2 rows were read"


@pytest.mark.parametrize(
    "spelling",
    ["can\u200bcel it", "cancel it\u200b", "\ufeffcancel it", "can\u00adcel it", "\u2060cancel it", "CANCEL \u0130T"],
)
def test_queries_that_differ_by_invisible_characters_stay_in_one_part(spelling):
    pairs = LabeledPairs.from_pairs([("cancel it", "a"), (spelling, "a"), *[(f"other {i}", "b") for i in range(10)]])
    for seed in range(20):
        split = pairs.split(seed=seed)
        parts = [set(part.queries.values()) for part in (split.train, split.val, split.test)]
        assert sorted(len(part & {"cancel it", spelling}) for part in parts) == [0, 0, 2]


MARK = b"\xef\xbb\xbf"


def test_csv_files_behind_each_other_have_a_header_each(tmp_path):
    path = tmp_path / "both.csv"
    path.write_bytes(MARK + b"query,node_id\ncancel,n1\n" + MARK + b"query,node_id\r\npay,n2\r\ncancel,n1\r\n")
    assert plain(LabeledPairs.from_csv(path)) == {"cancel": {"n1": 2}, "pay": {"n2": 1}}
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    (folder / "queries.jsonl").write_bytes(MARK + b'{"_id": "1", "text": "a"}\n' + MARK + b'{"_id": "2", "text": "b"}')
    header = b"query-id\tcorpus-id\tscore\n"
    (folder / "qrels" / "train.tsv").write_bytes(header + b"1\tn\t1\n" + MARK + header + b"2\tn\t-1\n")
    assert plain(LabeledPairs.from_beir(folder)) == {"a": {"n": 1}, "b": {"n": -1}}


def test_jsonl_files_behind_each_other_need_no_line_break_and_may_have_marks(tmp_path):
    path = tmp_path / "both.jsonl"
    rows = [json.dumps({"query": query, "node_id": "n"}).encode() for query in "abc"]
    path.write_bytes(MARK + rows[0] + MARK + rows[1] + b"\n" + MARK + b"\n" + MARK + rows[2])
    assert plain(LabeledPairs.from_jsonl(path)) == {query: {"n": 1} for query in "abc"}
    for torn in (b'{"query": "a", ' + rows[1], rows[0] + b",", rows[0] + b" 17"):
        path.write_bytes(b"\n" + torn)
        with pytest.raises(ValueError, match=r"both\.jsonl, line 2: not JSON"):
            LabeledPairs.from_jsonl(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"query,node_id,grade,grade\na,n,1,-1\n", "a.csv: the column 'grade' stands twice in the header"),
        (b"query;node_id\na;n\n", "it has .'query;node_id'.: pass delimiter=';'"),
        ("query,node_id\na,n\n".encode("utf-16-le"), "a.csv: every other byte is zero.*pass encoding='utf-16-le'"),
        ("query,node_id\n\u200b\ufeff ,n\n".encode(), "a.csv, line 2: query is empty"),
    ],
)
def test_files_that_would_be_misread_say_what_to_do(tmp_path, content, message):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        LabeledPairs.from_csv(tmp_path / "a.csv")


def test_node_ids_of_finetune_datasets_are_no_bytes():
    content = {"queries": {"q": "text"}, "relevant_docs": {"q": b"d1"}}
    with pytest.raises(TypeError, match="query 'q': relevant_docs must be node ids or a mapping"):
        LabeledPairs.from_finetune_dataset(content)


@pytest.mark.parametrize(
    ("text", "variant"),
    [
        ("what's new", "What\u2019s new?"),
        ('the "all" plan', "The \u201call\u201d plan"),
        ("a - b", "a \u2013 b"),
        *[("cancel", variant) for variant in ("\u00bfCancel?", "cancel\u3002", "CANCEL\uff01", "cancel\u061f")],
    ],
)
def test_queries_as_word_processors_and_telephones_write_them_stay_in_one_part(text, variant):
    pairs = LabeledPairs.from_pairs([(text, "a"), (variant, "a"), *[(f"other {i}", "b") for i in range(10)]])
    for seed in range(10):
        parts = [set(part.queries.values()) for part in pairs.split(seed=seed)]
        assert sorted(len(part & {text, variant}) for part in parts) == [0, 0, 2]


@pytest.mark.parametrize(("one", "other"), [("c#", "c"), (".net", "net"), ("c++", "c"), ("-5", "5"), ("it's", "its")])
def test_signs_that_tell_queries_apart_are_kept(one, other):
    assert normalise(one) != normalise(other)
