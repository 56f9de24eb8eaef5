"""UBI 1.3.0: there and back, valid by its schema, and what OpenSearch writes."""

from __future__ import annotations

import json
import re

import pytest

from nudge_rag.feedback.log import Feedback, FeedbackLog, Retrieval, ShownNode
from nudge_rag.feedback.ubi import from_ubi, parse_time, to_ubi

LOG = FeedbackLog(
    (
        Retrieval("r1", "cancel", (ShownNode("a", 0.9), ShownNode("b", 0.5)), 1_700_000_000.25, "3", "ann", "s1"),
        Retrieval(
            "r2", "künd", (ShownNode("b", team="new"), ShownNode("c", team="live")), 1_700_000_001.0, None, "ann"
        ),
        Retrieval("r3", "nothing found", (), 1_700_000_002.0),
    ),
    (
        Feedback("r1", "b", "click", None, 1_700_000_003.0, "ann"),
        Feedback("r1", "elsewhere", "cite", 0.5, 1_700_000_003.5),
        Feedback("r2", None, "thumbs_up", None, 1_700_000_004.0, "bob"),
    ),
)


def test_there_and_back(tmp_path):
    to_ubi(LOG, tmp_path / "ubi")
    assert from_ubi(tmp_path / "ubi") == LOG


def test_records_are_valid(tmp_path):
    """The rules of UBI's query.request and event schemas, version 1.3.0, written out by hand."""
    to_ubi(LOG, tmp_path)
    queries = [json.loads(line) for line in (tmp_path / "ubi_queries.jsonl").read_text().splitlines()]
    events = [json.loads(line) for line in (tmp_path / "ubi_events.jsonl").read_text().splitlines()]
    moment = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z")
    for query in queries:
        assert isinstance(query["user_query"], str) and isinstance(query["query_attributes"], dict)
        assert all(len(query.get(name, "")) <= 100 for name in ("application", "query_id", "client_id"))
        assert all(isinstance(hit, str) for hit in query["query_response_hit_ids"])
        assert moment.fullmatch(query["timestamp"])
    for event in events:
        assert event["action_name"] and moment.fullmatch(event["timestamp"])
        assert len(event.get("message", "")) <= 1024
        if "event_attributes" in event:
            assert set(event["event_attributes"]["position"]) == {"ordinal"}
            assert isinstance(event["event_attributes"]["object"]["object_id"], str)
    assert [event.get("event_attributes", {}).get("position") for event in events] == [{"ordinal": 2}, None, None]


def test_what_opensearch_writes():
    queries = [
        {"query_id": "q1", "user_query": "tv", "query_response_object_ids": [7, "b"], "timestamp": 1_700_000_000_000},
        {"query_id": "q2", "user_query": "radio", "timestamp": "2023-11-14T22:13:20.000Z", "client_id": "ann"},
    ]
    events = [
        {
            "query_id": "q2",
            "action_name": "impression",
            "event_attributes": {"position": {"ordinal": place}, "object": {"object_id": node}},
        }
        for place, node in ((1, "y"), (0, "x"), (1, "y"))
    ]
    events += [
        {"query_id": "q2", "action_name": "click", "event_attributes": {"position": {}, "object": {"object_id": "y"}}},
        {
            "query_id": "q3",
            "action_name": "click",
            "user_query": "lamp",
            "event_attributes": {"object": {"internal_id": 5}},
        },
    ]
    log = from_ubi(queries, events)
    assert [(r.query_id, r.query, [n.node_id for n in r.shown], r.time, r.user) for r in log.retrievals] == [
        ("q1", "tv", ["7", "b"], 1_700_000_000.0, None),
        ("q2", "radio", ["x", "y"], 1_700_000_000.0, "ann"),
        ("q3", "lamp", [], None, None),
    ]
    assert [(e.query_id, e.node_id, e.action) for e in log.feedback] == [("q2", "y", "click"), ("q3", "5", "click")]


def test_bad_rows(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"action_name": "click", "query_id": "q"}\n{"action_name": "click"}\n{"query_id": "q"}\n')
    with pytest.raises(TypeError, match=r"events.jsonl, line 2: query_id must be a string, got None"):
        from_ubi([], path)
    with pytest.warns(UserWarning, match="2 of 3 rows were skipped"):
        log = from_ubi([], path, errors="skip")
    assert [row.line for row in log.report.skipped] == [2, 3]
    assert len(log.feedback) == 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("2023-11-14T22:13:20Z", 1_700_000_000.0),
        ("2023-11-14 23:13:20+01:00", 1_700_000_000.0),
        ("2023-11-14T22:13:20", 1_700_000_000.0),
        ("1700000000", 1_700_000_000.0),
        (1_700_000_000, 1_700_000_000.0),
        (1_700_000_000_000, 1_700_000_000.0),
        (1_700_000_000_000_000, 1_700_000_000.0),
        (1_700_000_000_000_000_000, 1_700_000_000.0),
        ("", None),
        (None, None),
    ],
)
def test_times(value, seconds):
    assert parse_time(value) == seconds


def test_a_time_that_is_none():
    with pytest.raises(ValueError, match="time must be ISO 8601 or a number, got 'yesterday'"):
        parse_time("yesterday")
