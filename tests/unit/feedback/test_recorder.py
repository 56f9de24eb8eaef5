"""The recorder: what is acknowledged is there, whoever dies; texts and files stay private; failures never raise."""

from __future__ import annotations

import json
import multiprocessing
import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from nudge_rag.common.lock import try_lock
from nudge_rag.feedback import database
from nudge_rag.feedback.database import EventDatabase, has_wal_reset_fault
from nudge_rag.feedback.log import ShownNode
from nudge_rag.feedback.recorder import Recorder

WORKER = Path(__file__).parents[2] / "support" / "recording_worker.py"


@pytest.fixture
def recorder(tmp_path):
    recorder = Recorder(tmp_path / "feedback.sqlite3", version="7")
    yield recorder
    recorder.close()


def test_what_is_recorded_is_read(recorder):
    shown = [ShownNode("a", 0.9), ShownNode(None, 0.5, text="a text without an id"), ShownNode("b", team="new")]
    first = recorder.record("cancel", shown, user_id="ann", session_id="s")
    second = recorder.record("pay", ["a", ("c", 0.25)], query_id="mine", version="8")
    assert recorder.feedback(first, "b", "click", user_id="ann")
    assert recorder.feedback(second, 17, "thumbs_down", value=-2, message="wrong")
    assert recorder.feedback(second, None, "thumbs_up")
    log = recorder.log()
    assert [(r.query_id, r.query, r.shown, r.version, r.user, r.session) for r in log.retrievals] == [
        (first, "cancel", tuple(shown), "7", "ann", "s"),
        ("mine", "pay", (ShownNode("a"), ShownNode("c", 0.25)), "8", None, None),
    ]
    assert [(e.query_id, e.node_id, e.action, e.value, e.user) for e in log.feedback] == [
        (first, "b", "click", None, "ann"),
        ("mine", "17", "thumbs_down", -2, None),
        ("mine", None, "thumbs_up", None, None),
    ]
    assert abs(log.retrievals[0].time - time.time()) < 60
    assert recorder.log(since=time.time() + 1).retrievals == ()
    assert recorder.last_query_id == "mine"


def test_the_columns_are_those_of_ubi(recorder):
    recorder.record("cancel", ["a", "b"], query_id="q", user_id="ann")
    recorder.feedback("q", "b", "click")
    with sqlite3.connect(recorder.path) as connection:
        connection.row_factory = sqlite3.Row
        query = dict(connection.execute("SELECT * FROM ubi_queries").fetchone())
        event = dict(connection.execute("SELECT * FROM ubi_events").fetchone())
    connection.close()
    assert {"query_id", "query_response_id", "application", "client_id", "user_query", "timestamp"} <= query.keys()
    assert (query["user_query"], json.loads(query["query_response_hit_ids"])) == ("cancel", ["a", "b"])
    assert (event["action_name"], event["query_id"]) == ("click", "q")
    assert json.loads(event["event_attributes"]) == {"object": {"object_id": "b"}, "position": {"ordinal": 2}}


def test_what_a_reranker_kept_replaces_what_was_found(recorder):
    recorder.record("cancel", ["a", "b", "c"], query_id="q")
    assert recorder.revise("q", [("c", 0.9), ("a", 0.1)])
    assert recorder.log().retrievals[0].shown == (ShownNode("c", 0.9), ShownNode("a", 0.1))


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda r: r.record(" ", []), "query is empty"),
        (lambda r: r.record(3, []), "query must be a string, got 3"),
        (lambda r: r.record("a", [None]), "node_id must be a string, got None"),
        (lambda r: r.record("a", "n1"), "shown must list the nodes shown, got the text 'n1'"),
        (lambda r: r.revise("q", "n1"), "shown must list the nodes shown"),
        (lambda r: r.record("a", [("n1", "0.5")]), "a score must be a number, got '0.5'"),
        (lambda r: r.record("a", [("n1", 0.5, 1)]), r"an id or \(id, score\), got"),
        (lambda r: r.feedback("q", "", "click"), "node_id is empty"),
        (lambda r: r.feedback("q", "a", ""), "action is empty"),
        (lambda r: r.purge(), "pass older_than_days"),
        (lambda r: Recorder(r.path, redact="all"), 'redact must be None, "hash"'),
        (lambda r: Recorder(r.path, retention_days=0), "retention_days must be above 0"),
    ],
)
def test_arguments_are_checked(recorder, call, error):
    with pytest.raises((TypeError, ValueError), match=error):
        call(recorder)
    assert recorder.check().retrievals == 0


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX")
def test_only_the_owner_reads_the_files(tmp_path):
    old = os.umask(0)
    try:
        recorder = Recorder(tmp_path / "new" / "feedback.sqlite3")
        recorder.record("secret", ["a"])
    finally:
        os.umask(old)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new").iterdir()}
    assert modes == dict.fromkeys([f"feedback.sqlite3{end}" for end in ("", "-wal", "-shm", ".lock", ".queue")], 0o600)
    recorder.close()


def bytes_of(path):
    return b"".join(file.read_bytes() for file in path.parent.iterdir())


def test_texts_are_redacted_before_they_are_written(tmp_path):
    path = tmp_path / "feedback.sqlite3"
    recorder = Recorder(path, redact=lambda text: text.replace("4711", "#") if "drop" not in text else None)
    recorder.record("card 4711", [ShownNode(None, text="text 4711")], query_id="q")
    recorder.record("drop 4711", ["a"])
    recorder.feedback("q", "a", "thumbs_down", message="my card 4711")
    assert [retrieval.query for retrieval in recorder.log().retrievals] == ["card #", None]
    assert recorder.log().retrievals[0].shown[0].text == "text #"
    assert b"4711" not in bytes_of(path)
    recorder.close()


def test_a_redaction_that_fails_writes_nothing(tmp_path):
    def fail(text):
        raise RuntimeError("no model")

    recorder = Recorder(tmp_path / "feedback.sqlite3", redact=fail)
    with pytest.warns(UserWarning, match="could not record .RuntimeError: no model"):
        assert recorder.record("card 4711", ["a"]) is None
    assert (recorder.lost, recorder.check().retrievals) == (1, 0)
    assert b"4711" not in bytes_of(recorder.path)
    recorder.close()


def test_hashes_are_salted_and_tell_texts_apart(tmp_path):
    hashed = []
    for name in ("one", "two"):
        recorder = Recorder(tmp_path / name / "feedback.sqlite3", redact="hash")
        for query in ("card 4711", "card 4711", "other"):
            recorder.record(query, ["a"], user_id="ann")
        assert b"4711" not in bytes_of(recorder.path) and b"ann" not in bytes_of(recorder.path)
        hashed.append([retrieval.query for retrieval in recorder.log().retrievals])
        recorder.close()
    assert hashed[0][0] == hashed[0][1] != hashed[0][2]
    assert hashed[0][0] != hashed[1][0]


def test_old_rows_are_deleted_and_overwritten(tmp_path, monkeypatch):
    recorder = Recorder(tmp_path / "feedback.sqlite3", retention_days=30)
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() - 31 * 86_400 * 10**9)
    recorder.record("an old secret", ["a"], query_id="old")
    recorder.feedback("old", "a", "click")
    monkeypatch.undo()
    recorder.record("new", ["a"])
    assert recorder.purge() == 2
    assert [retrieval.query for retrieval in recorder.log().retrievals] == ["new"]
    assert recorder.log().feedback == ()
    assert b"old secret" not in bytes_of(recorder.path)
    recorder.close()


def test_old_rows_are_deleted_along_the_way(tmp_path, monkeypatch):
    recorder = Recorder(tmp_path / "feedback.sqlite3", retention_days=1)
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() - 2 * 86_400 * 10**9)
    recorder.record("old", ["a"])
    monkeypatch.undo()
    for _ in range(120):
        recorder.record("new", ["a"])
    assert {retrieval.query for retrieval in recorder.log().retrievals} == {"new"}
    recorder.close()


def test_failures_are_counted_and_shown_and_never_raise(recorder, monkeypatch):
    with sqlite3.connect(recorder.path) as connection:
        connection.execute("DROP TABLE ubi_events")
    connection.close()
    with pytest.warns(UserWarning, match=r"could not record \(OperationalError: no such table: ubi_events\)"):
        assert not recorder.feedback("q", "a", "click")
    assert not recorder.feedback("q", "a", "click")
    assert recorder.record("cancel", ["a"]) is not None
    assert (recorder.lost, recorder.last_error) == (2, "OperationalError: no such table: ubi_events")


def test_a_lock_that_is_held_for_too_long_loses_the_event(tmp_path):
    first = Recorder(tmp_path / "feedback.sqlite3", timeout=0.05)
    second = Recorder(tmp_path / "feedback.sqlite3", timeout=0.05)
    with first._database._exclusive(), pytest.warns(UserWarning, match="other processes were writing"):
        assert second.record("cancel", ["a"]) is None  # it does not wait for the other, which goes on below
    assert second.record("cancel", ["a"]) is not None
    assert (second.lost, first.check().retrievals) == (1, 1)
    first.close()
    second.close()


def test_the_version_is_asked_for_and_may_fail(tmp_path, monkeypatch):
    answers = iter(["3", RuntimeError("gone")])

    def version():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    recorder = Recorder(tmp_path / "feedback.sqlite3", version=version)
    recorder.record("a", ["n"])
    recorder.record("b", ["n"])
    recorder._live_version._read_at = float("-inf")
    with pytest.warns(UserWarning, match="gone"):
        recorder.record("c", ["n"])
    assert [retrieval.version for retrieval in recorder.log().retrievals] == ["3", "3", "3"]
    assert recorder.lost == 1
    recorder.close()


def test_check_names_the_fault_of_this_sqlite(recorder, monkeypatch):
    recorder.record("a", ["n"])
    for version, faulty in (((3, 40, 1), True), ((3, 51, 3), False)):
        monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
        check = recorder.check()
        assert (check.wal_reset_fault, "walresetbug" in str(check)) == (faulty, faulty)
    assert (check.retrievals, check.feedback, check.lost, check.integrity) == (1, 0, 0, "ok")
    assert check.journal_mode == "wal"


def test_versions_with_the_fault():
    faulty = [(3, 7, 0), (3, 37, 2), (3, 40, 1), (3, 44, 5), (3, 45, 1), (3, 50, 4), (3, 50, 6), (3, 51, 1), (3, 51, 2)]
    sound = [(3, 6, 23), (3, 44, 6), (3, 44, 9), (3, 50, 7), (3, 51, 3), (3, 52, 0), (3, 53, 0), (3, 54, 1)]
    assert all(map(has_wal_reset_fault, faulty))
    assert not any(map(has_wal_reset_fault, sound))


def test_every_commit_and_checkpoint_holds_the_lock(tmp_path, monkeypatch):
    """The guard against the WAL-reset fault: no statement that writes or checkpoints runs without the lock."""
    monkeypatch.setattr(database, "PAGES_BEFORE_CHECKPOINT", 0)
    monkeypatch.setattr(database, "COMMITS_BETWEEN_LOOKS", 1)
    events = EventDatabase(tmp_path / "e.sqlite3", 1.0)
    seen = []

    def held(statement):
        try:
            other = EventDatabase.__new__(EventDatabase)
            other.path = events.path
            other._lock_files = None
            queue, lock = other._opened_lock_files()
            free = try_lock(lock)
            queue.close()
            lock.close()
            seen.append((statement.split("(")[0].strip(), not free))
        except Exception as error:
            seen.append((statement, error))

    events._connection.set_trace_callback(held)
    events.run(lambda connection: connection.execute("INSERT INTO nudge_meta VALUES ('a', 'b')"))
    events.checkpoint()
    assert {statement for statement, _ in seen} >= {
        "BEGIN IMMEDIATE",
        "INSERT INTO nudge_meta VALUES",
        "COMMIT",
        "PRAGMA wal_checkpoint",
    }
    assert all(locked is True for _, locked in seen)
    assert events._connection.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)
    events._connection.set_trace_callback(None)
    events.close()


def test_threads_share_a_recorder(recorder):
    def write(name):
        for number in range(100):
            query_id = recorder.record(f"{name} {number}", ["a"])
            recorder.feedback(query_id, "a", "click")

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log = recorder.log()
    assert len({retrieval.query for retrieval in log.retrievals}) == len(log.feedback) == 400
    assert recorder.lost == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_forks_write_on_while_threads_of_the_parent_do(recorder):
    stop = threading.Event()
    acknowledged = []

    def write():
        while not stop.is_set():
            acknowledged.append(recorder.record("parent", ["a"]))

    thread = threading.Thread(target=write)
    thread.start()
    context = multiprocessing.get_context("fork")

    def child(number):
        for _ in range(20):
            assert recorder.record(f"child {number}", ["a"]) is not None, recorder.last_error
        assert recorder.check().integrity == "ok"
        os._exit(0)

    children = [context.Process(target=child, args=(number,)) for number in range(5)]
    for process in children:
        process.start()
    for process in children:
        process.join(60)
    stop.set()
    thread.join()
    assert [process.exitcode for process in children] == [0] * 5
    queries = [retrieval.query for retrieval in recorder.log().retrievals]
    assert queries.count("parent") == len(acknowledged) and None not in acknowledged
    assert [queries.count(f"child {number}") for number in range(5)] == [20] * 5
    assert recorder.check().integrity == "ok"


@pytest.mark.slow
def test_processes_that_are_killed_lose_nothing_that_was_acknowledged(tmp_path):
    path = tmp_path / "feedback.sqlite3"
    acknowledged = []
    for round_number in range(3):
        workers = [
            subprocess.Popen([sys.executable, str(WORKER), str(path), f"{round_number}-{n}"], stdout=subprocess.PIPE)
            for n in range(3)
        ]
        first = [worker.stdout.readline().decode() for worker in workers]
        time.sleep(0.25)
        for worker, line in zip(workers, first, strict=True):
            worker.kill()
            output = line + worker.communicate()[0].decode()
            # A line that the kill cut off was not acknowledged.
            acknowledged += output[: output.rfind("\n") + 1].split()
    recorder = Recorder(path)
    there = {retrieval.query_id for retrieval in recorder.log().retrievals}
    assert len(acknowledged) > 100
    assert not set(acknowledged) - there
    assert recorder.check().integrity == "ok"
    recorder.close()


def test_a_file_of_a_later_version_is_refused(tmp_path):
    path = tmp_path / "later.sqlite3"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(sqlite3.DatabaseError, match="later nudge-rag: schema 99"):
        Recorder(path)


def test_a_query_id_that_is_taken_loses_nothing(recorder):
    assert recorder.record("pay", ["a", "b"], query_id="q") == "q"
    assert recorder.record("how to pay", ["c", "b"], query_id="q") == "q#2"
    assert recorder.record("leave", ["d"], query_id="q") == "q#3"
    assert recorder.record("other", ["c"], query_id="q$") == "q$"
    assert recorder.last_query_id == "q$"
    for node in ("b", "c", "d", "unknown"):
        assert recorder.feedback("q", node, "click")
    assert recorder.lost == 0
    assert [(event.node_id, event.query_id) for event in recorder.log().feedback] == [
        ("b", "q"),  # the first one that showed it
        ("c", "q#2"),
        ("d", "q#3"),
        ("unknown", "q"),
    ]


def test_scores_that_json_cannot_hold_are_none(recorder):
    scores = [float("nan"), float("inf"), 10**400, None, np.float32(0.5), 1]
    recorder.record("pay", [(f"n{at}", score) for at, score in enumerate(scores)])
    assert [node.score for node in recorder.log().retrievals[0].shown] == [None, None, None, None, 0.5, 1.0]


def test_one_id_for_every_retrieval_costs_each_the_same(recorder):
    statements = []
    recorder.record("pay", ["a"], query_id="q")
    recorder._database._connection.set_trace_callback(statements.append)
    ids = {recorder.record("pay", ["a"], query_id="q") for _ in range(40)}
    recorder._database._connection.set_trace_callback(None)
    assert len(ids) == len(recorder.log().retrievals) - 1 == 40
    assert {f"q#{number}" for number in range(2, 10)} <= ids
    looked_up = sum(statement.startswith("SELECT 1") for statement in statements)
    assert looked_up <= 40 * 9
    assert recorder.feedback("q", "a", "click")


@pytest.mark.parametrize(
    ("value", "error"), [("high", TypeError), (float("nan"), ValueError), (10**400, ValueError), ([1], TypeError)]
)
def test_a_value_is_a_finite_number(recorder, value, error):
    with pytest.raises(error, match="value must be"):
        recorder.feedback("q", "a", "copy", value=value)
    assert recorder.feedback("q", "a", "copy", value=True)
    assert [event.value for event in recorder.log().feedback] == [1.0]
