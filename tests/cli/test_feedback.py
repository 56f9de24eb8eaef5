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


def test_grades_correct_for_the_rank(recorded, capsys):
    found = answer(capsys, "grades", "events.sqlite", "-o", "grades.jsonl")
    assert found["pairs"] >= 1
    # Fewer clicks in the second place are worth more than more of them in the first.
    assert max(LabeledPairs.from_jsonl("grades.jsonl").qrels["q0"].items(), key=lambda pair: pair[1])[0] == "right"
    none = answer(capsys, "grades", "events.sqlite", "-o", "none.jsonl", "--action", "copy", code=1)
    assert none["pairs"] == 0
    assert not (recorded / "none.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["import", "recorder", "none.sqlite", "-o", "x.jsonl"], "there is no file or folder none.sqlite"),
        (["import", "recorder", "text.jsonl", "-o", "x.jsonl"], "text.jsonl is no SQLite file of a recorder"),
        (["export", "none.sqlite", "ubi"], "none.sqlite is no SQLite file of a recorder"),
        (["import", "langfuse", "text.jsonl", "-o", "x.jsonl"], "langfuse needs --names"),
        (
            ["import", "ubi", "text.jsonl", "-o", "x.jsonl", "--names", "thumb"],
            "ubi has no --names; langfuse, langsmith",
        ),
        (["import", "recorder", "events.sqlite", "-o", "x.jsonl", "--names", "t"], "recorder has no --names"),
        (["import", "ubi", "text.jsonl", "text.jsonl", "text.jsonl", "-o", "x.jsonl"], "takes at most two files"),
        (["import", "ubi", "text.jsonl", "-o", "x.tsv"], "pairs are written as .jsonl"),
        (["import", "nothing", "text.jsonl", "-o", "x.jsonl"], "invalid choice: 'nothing'"),
    ],
)
def test_what_does_not_fit_is_named(recorded, capsys, arguments, message):
    (recorded / "text.jsonl").write_text("{}\n")
    before = sorted(path.name for path in recorded.iterdir())
    assert message in answer(capsys, *arguments, code=2)["message"]
    assert sorted(path.name for path in recorded.iterdir()) == before
