"""Readers of Parquet files: LangSmith's bulk exports and the data sets of NUDGE's authors."""

from __future__ import annotations

import json

import pyarrow
import pyarrow.parquet

from nudge_rag.feedback import from_langsmith, from_nudge_dataset


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def test_a_bulk_export_of_langsmith(tmp_path):
    documents = [{"id": "a", "page_content": "text", "metadata": {}, "type": "Document"}]
    row = {
        "id": "r1",
        "trace_id": "t1",
        "parent_run_id": None,
        "run_type": "retriever",
        "inputs": json.dumps({"query": "cancel"}),
        "outputs": json.dumps({"documents": documents}),
        "feedback_stats": json.dumps({"user_score": {"n": 2, "avg": 0.5}}),
        "error": None,
    }
    write(tmp_path / "runs.parquet", [row])
    log = from_langsmith(tmp_path / "runs.parquet")
    assert [(found.query, found.shown[0].node_id) for found in log.retrievals] == [("cancel", "a")]
    assert [event.action for event in log.feedback] == ["thumbs_up", "thumbs_down"]


def test_a_data_set_of_nudges_authors(tmp_path):
    for part in ("train", "dev", "test"):
        write(tmp_path / "qs" / f"{part}.parquet", [{"q_id": 0, "input": part}, {"q_id": 1, "input": f"{part} 1"}])
        write(tmp_path / "qs_rel" / f"{part}.parquet", [{"q_id": 1, "record_id": 5, "rel": 2}])
    write(tmp_path / "data_records" / "train.parquet", [{"record_id": 5, "doc_id": "d5", "text": "text"}])
    split = from_nudge_dataset(tmp_path, node_id="doc_id")
    assert [dict(part.queries) for part in split] == [{f"{p}-1": f"{p} 1"} for p in ("train", "dev", "test")]
    assert dict(split.test.qrels["test-1"]) == {"d5": 2.0}
