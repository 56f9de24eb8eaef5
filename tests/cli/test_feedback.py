"""``nudge-rag feedback``: a recorder's file to labels, to UBI and back, and clicks to grades."""

from __future__ import annotations

import json

import pytest

from nudge_rag import LabeledPairs
from nudge_rag.cli import main
from nudge_rag.feedback import Recorder


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """Twelve users ask the same; all see "top" before "right", five click the second one, three praise it."""
    monkeypatch.chdir(tmp_path)
    recorder = Recorder(tmp_path / "events.sqlite")
    for number in range(12):
        query_id = recorder.record("pay a bill", ["top", "right"], user_id=f"user {number}")
        recorder.feedback(query_id, "right" if number < 5 else "top", "click", user_id=f"user {number}")
        if number < 3:
            recorder.feedback(query_id, "right", "thumbs_up", user_id=f"user {number}")
    recorder.close()
    return tmp_path


def answer(capsys, *arguments, code=0):
    assert main(["feedback", *arguments, "--json"]) == code
    document = json.loads(capsys.readouterr().out)
    assert document["exit_code"] == code
    return document.get("result", document.get("error"))


def test_import_counts_what_users_said(recorded, capsys):
    found = answer(capsys, "import", "recorder", "events.sqlite", "-o", "said.jsonl")
    assert (found["retrievals"], found["feedback"], found["pairs"]) == (12, 15, 1)
    assert dict(LabeledPairs.from_jsonl("said.jsonl").qrels["q0"]) == {"right": 3.0}
    assert (
        "exists; pass --force"
        in answer(capsys, "import", "recorder", "events.sqlite", "-o", "said.jsonl", code=2)["message"]
    )


def test_export_and_import_again(recorded, capsys):
    assert answer(capsys, "export", "events.sqlite", "ubi", "--dry-run")["dry_run"] is True
    assert not (recorded / "ubi").exists()
    assert answer(capsys, "export", "events.sqlite", "ubi")["queries"] == 12
    found = answer(capsys, "import", "ubi", "ubi", "-o", "again.csv")
    assert found["pairs"] == 1
    assert dict(LabeledPairs.from_csv("again.csv").qrels["q0"]) == {"right": 3.0}
    assert "pass --force to replace it" in answer(capsys, "export", "events.sqlite", "ubi", code=2)["message"]


def test_names_of_what_users_give(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = {"id": "r", "run_type": "retriever", "inputs": {"query": "pay"}, "outputs": [{"id": "a"}]}
    given = {"run_id": "r", "key": "helped", "score": 1, "extra": {"node_id": "a"}}
    span = {"span_id": "s", "attributes": {"openinference.span.kind": "RETRIEVER", "input.value": "pay"}}
    span["attributes"]["retrieval.documents.0.document.id"] = "a"
    note = {"span_id": "s", "document_position": 0, "annotator_kind": "HUMAN", "name": "helped", "result": {"score": 1}}
    for name, row in {"runs": run, "given": given, "spans": span, "notes": note}.items():
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row))
    for tool, files in {"langsmith": ("runs.jsonl", "given.jsonl"), "spans": ("spans.jsonl", "notes.jsonl")}.items():
        target = ["-o", f"{tool}-pairs.jsonl", "--names"]
        assert answer(capsys, "import", tool, *files, *target, "other", code=1)["feedback"] == 0
        assert main(["feedback", "import", tool, *files, *target, "other"]) == 1
        assert "none of them labels a node. --names says which" in capsys.readouterr().out
        assert answer(capsys, "import", tool, *files, *target, "other, helped")["pairs"] == 1


CORPUS = {"a": "How to pay the monthly invoice", "b": "How to leave the contract early"}
SPAN = {
    "record_attributes": {"ai.observability.span_type": "retrieval", "ai.observability.record_id": "r"},
    "trace": {"span_id": "s"},
}
SPAN["record_attributes"] |= {
    "ai.observability.retrieval.query_text": "pay",
    "ai.observability.retrieval.retrieved_contexts": [CORPUS["a"].upper()],
}
# Tool to its files, what else the command needs, and the labels that are then written.
EXPORTS = {
    "ragas": ({"samples.jsonl": [{"user_input": "pay", "reference_context_ids": ["a"]}]}, [], {"pay": {"a": 1.0}}),
    "ragas by text": (
        {"samples.jsonl": [{"user_input": "pay", "reference_contexts": [CORPUS["a"]]}]},
        ["--texts", "corpus.jsonl"],
        {"pay": {"a": 1.0}},
    ),
    "trulens": (
        {"events.jsonl": [SPAN], "records.jsonl": [{"record_id": "r", "helped": 1.0}]},
        ["--names", "helped", "--texts", "corpus.jsonl", "--credit", "top1"],
        {"pay": {"a": 1.0}},
    ),
    "hugging-face": (
        {"triplets.jsonl": [{"anchor": "pay", "positive": CORPUS["a"], "negative": CORPUS["b"]}]},
        ["--texts", "corpus.jsonl"],
        {"pay": {"a": 1.0, "b": -1.0}},
    ),
    "hugging-face by columns": (
        {"scored.jsonl": [{"mark": 3, "asked": "pay", "found": CORPUS["a"]}]},
        ["--texts", "corpus.jsonl", "--columns", "query=asked, positive=found, grade=mark"],
        {"pay": {"a": 3.0}},
    ),
    "llama-index": (
        {"set.json": {"queries": {"q": "pay"}, "relevant_docs": {"q": ["a"]}, "corpus": {}, "mode": "text"}},
        [],
        {"pay": {"a": 1.0}},
    ),
    "mteb": (
        {"queries.jsonl": [{"_id": 1, "text": "pay"}], "qrels.jsonl": [{"query-id": 1, "corpus-id": "a", "score": 2}]},
        [],
        {"pay": {"a": 2.0}},
    ),
    "examples": (
        {"examples.jsonl": [{"inputs": {"q": "pay"}, "outputs": {"ids": ["a"]}}]},
        ["--columns", "query=inputs.q,nodes=outputs.ids"],
        {"pay": {"a": 1.0}},
    ),
    "trec": ({"qrels.txt": "7 0 a 2\n7 0 b -1\n", "topics.tsv": "7\tpay\n"}, [], {"pay": {"a": 2.0, "b": -1.0}}),
    "spans without ids": (
        {
            "spans.jsonl": [
                {
                    "span_id": "s",
                    "attributes": {
                        "openinference.span.kind": "RETRIEVER",
                        "input.value": "pay",
                        "retrieval.documents": [{"document.content": CORPUS["a"]}],
                    },
                }
            ],
            "notes.jsonl": [
                {"span_id": "s", "document_position": 0, "annotator_kind": "HUMAN", "result": {"label": "relevant"}}
            ],
        },
        ["--texts", "corpus.jsonl"],
        {"pay": {"a": 1.0}},
    ),
    "langsmith by key": (
        {
            "runs.jsonl": [
                {
                    "id": "r",
                    "run_type": "retriever",
                    "inputs": {"query": "pay"},
                    "outputs": [{"id": None, "metadata": {"doc": "a"}}],
                }
            ],
            "given.jsonl": [{"run_id": "r", "key": "user_score", "score": 1}],
        },
        ["--node-key", "doc", "--credit", "all"],
        {"pay": {"a": 1.0}},
    ),
}


def write_file(path, content):
    if isinstance(content, list):
        content = "".join(json.dumps(row) + "\n" for row in content)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.mark.parametrize("case", EXPORTS)
def test_every_reader_is_a_command(tmp_path, monkeypatch, capsys, case):
    monkeypatch.chdir(tmp_path)
    files, options, expected = EXPORTS[case]
    for name, content in files.items():
        write_file(tmp_path / name, content)
    write_file(tmp_path / "corpus.jsonl", [{"_id": node, "text": text} for node, text in CORPUS.items()])
    answer(capsys, "import", case.split()[0], *files, "-o", "pairs.jsonl", *options)
    pairs = LabeledPairs.from_jsonl("pairs.jsonl")
    assert {pairs.queries[query]: dict(grades) for query, grades in pairs.qrels.items()} == expected
    # A file of another kind in the place of the last one is named, and nothing is written.
    broken = list(files)[-1]
    (tmp_path / broken).write_bytes(b'{"half": ' if broken.endswith("json") else b"\xff\xfe\x00 no such row\n")
    message = answer(capsys, "import", case.split()[0], *files, "-o", "none.jsonl", *options, code=2)["message"]
    assert broken in message
    assert not (tmp_path / "none.jsonl").exists()


def test_files_of_another_encoding(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    row = {"user_input": "Wo ist die Gebühr", "reference_context_ids": ["a"]}
    (tmp_path / "samples.jsonl").write_bytes(json.dumps(row, ensure_ascii=False).encode("cp1252"))
    arguments = ["import", "ragas", "samples.jsonl", "-o", "pairs.jsonl"]
    assert "(--encoding on the command line)" in answer(capsys, *arguments, code=2)["message"]
    answer(capsys, *arguments, "--encoding", "cp1252")
    assert list(LabeledPairs.from_jsonl("pairs.jsonl").queries.values()) == ["Wo ist die Gebühr"]


def test_traces_without_ids_say_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    files, _, _ = EXPORTS["spans without ids"]
    for name, content in files.items():
        write_file(tmp_path / name, content)
    assert main(["feedback", "import", "spans", *files, "-o", "pairs.jsonl"]) == 1
    assert "nodes have no ids: --texts gives them those of their texts" in capsys.readouterr().out


def test_grades_correct_for_the_rank(recorded, capsys):
    found = answer(capsys, "grades", "events.sqlite", "-o", "grades.jsonl")
    assert found["pairs"] >= 1
    # Fewer clicks in the second place are worth more than more of them in the first.
    assert max(LabeledPairs.from_jsonl("grades.jsonl").qrels["q0"].items(), key=lambda pair: pair[1])[0] == "right"
    none = answer(capsys, "grades", "events.sqlite", "-o", "none.jsonl", "--action", "copy", code=1)
    assert none["pairs"] == 0
    assert none["reason"] == "the log holds no feedback 'copy'; it holds 'click' (12), 'thumbs_up' (3)"
    few = answer(capsys, "grades", "events.sqlite", "-o", "few.jsonl", "--min-examinations", "99", code=1)
    assert "no pair with 'click' was looked at 99.0 times" in few["reason"]
    assert not (recorded / "none.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["import", "recorder", "none.sqlite", "-o", "x.jsonl"], "there is no file or folder none.sqlite"),
        (["import", "recorder", "text.jsonl", "-o", "x.jsonl"], "text.jsonl is no SQLite file of a recorder"),
        (["export", "none.sqlite", "ubi"], "there is no file or folder none.sqlite"),
        (["export", "text.jsonl", "ubi"], "text.jsonl is no SQLite file of a recorder"),
        (["import", "langfuse", "text.jsonl", "-o", "x.jsonl"], "langfuse needs --names"),
        (
            ["import", "ubi", "text.jsonl", "-o", "x.jsonl", "--names", "thumb"],
            "ubi has no --names; langsmith, langfuse, spans, trulens have",
        ),
        (["import", "recorder", "events.sqlite", "-o", "x.jsonl", "--names", "t"], "recorder has no --names"),
        (["import", "ubi", "text.jsonl", "text.jsonl", "text.jsonl", "-o", "x.jsonl"], "takes at most two files"),
        (["import", "trec", "text.jsonl", "-o", "x.jsonl"], "trec takes two files (qrels and topics), got 1"),
        (["import", "hugging-face", "text.jsonl", "-o", "x.jsonl"], "hugging-face needs --texts"),
        (["import", "trulens", "text.jsonl", "text.jsonl", "-o", "x.jsonl"], "trulens needs --names"),
        (["import", "trec", "text.jsonl", "text.jsonl", "-o", "x.jsonl", "--texts", "t"], "trec has no --texts"),
        (
            ["import", "examples", "text.jsonl", "-o", "x.jsonl", "--columns", "query"],
            "--columns must be such as query=NAME with query, nodes, got 'query'",
        ),
        (
            ["import", "ragas", "text.jsonl", "-o", "x.jsonl", "--texts", "none.csv"],
            "there is no file or folder none.csv",
        ),
        (["import", "ubi", "text.jsonl", "-o", "x.tsv"], "pairs are written as .jsonl"),
        (["import", "nothing", "text.jsonl", "-o", "x.jsonl"], "invalid choice: 'nothing'"),
    ],
)
def test_what_does_not_fit_is_named(recorded, capsys, arguments, message):
    (recorded / "text.jsonl").write_text("{}\n")
    before = sorted(path.name for path in recorded.iterdir())
    assert message in answer(capsys, *arguments, code=2)["message"]
    assert sorted(path.name for path in recorded.iterdir()) == before
