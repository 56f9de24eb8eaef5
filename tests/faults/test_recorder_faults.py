"""A recorder on a full disk, in a folder that may not be written to, or with a clock that goes back."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from nudge_rag.feedback import event_rows
from nudge_rag.feedback.recorder import Recorder
from tests.support.troubled_recording import EVENTS

ROOT = Path(__file__).parents[2]
DAY = 86_400 * 1_000_000


def trouble(kind, path, *more):
    """What a process says that records while it has this trouble."""
    command = [sys.executable, "-m", "tests.support.troubled_recording", kind, str(path), *map(str, more)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def assert_only_lost_what_it_says(said, path):
    recorder = Recorder(path)
    there = {retrieval.query_id for retrieval in recorder.log().retrievals}
    clicks = len(recorder.log().feedback)
    check = recorder.check()
    recorder.close()
    assert there == set(said["acknowledged"])
    assert said["lost"] == (EVENTS - said["during"]) + (not said["fed"])
    assert clicks == said["fed"]
    assert check.integrity == "ok"
    assert len(said["warnings"]) == 1 and said["last_error"] in said["warnings"][0]


@pytest.fixture(params=["full", "limited"])
def disk(request, tmp_path):
    """Where space runs out: a small disk, or a limit on the size of files, which needs no rights."""
    if request.param == "full":
        return request.param, request.getfixturevalue("small_disk")
    (tmp_path / "disk").mkdir()
    return request.param, tmp_path / "disk"


def test_no_space(disk):
    kind, folder = disk
    said = trouble(kind, folder / "feedback.sqlite3", folder / "ballast")
    assert said["during"] < EVENTS
    assert said["after"] == EVENTS, "with space again it goes on"
    assert "full" in said["last_error"] or "disk I/O error" in said["last_error"]
    assert_only_lost_what_it_says(said, folder / "feedback.sqlite3")


@pytest.fixture
def open_folder():
    """A folder that every user may reach, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="nudge-rag-"))
    yield folder
    folder.chmod(0o700)
    shutil.rmtree(folder)


def test_a_folder_that_may_not_be_written_to(open_folder):
    path = open_folder / "feedback.sqlite3"
    recorder = Recorder(path)
    recorder.record("before", ["a"], query_id="before")
    recorder.close()
    for file in open_folder.iterdir():
        file.chmod(0o444)
    open_folder.chmod(0o555)
    command = [sys.executable, "-m", "tests.support.troubled_recording", "read-only", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    # It cannot be opened at all, which is said when the application starts, before any retrieval.
    assert done.returncode == 1
    error = done.stderr.strip().splitlines()[-1]
    assert error.startswith("PermissionError") and str(path) in error
    open_folder.chmod(0o700)
    for file in open_folder.iterdir():
        file.chmod(0o600)
    again = Recorder(path)
    assert [retrieval.query_id for retrieval in again.log().retrievals] == ["before"]
    again.close()


def test_a_clock_that_goes_back(tmp_path, monkeypatch):
    recorder = Recorder(tmp_path / "feedback.sqlite3", retention_days=30)
    clock = [event_rows.now()]
    monkeypatch.setattr("nudge_rag.feedback.recorder.now", lambda: clock[0])
    monkeypatch.setattr(event_rows, "now", lambda: clock[0])
    first = recorder.record("first", ["a", "b"])
    clock[0] -= 2 * DAY
    second = recorder.record("second", ["a", "b"])
    recorder.feedback(first, "b", "click")
    recorder.feedback(second, "a", "click")
    recorder.purge()
    log = recorder.log()
    assert {retrieval.query_id: retrieval.query for retrieval in log.retrievals} == {first: "first", second: "second"}
    assert {(event.query_id, event.node_id) for event in log.feedback} == {(first, "b"), (second, "a")}
    # A click that seems older than its retrieval counts all the same.
    pairs = log.to_pairs({"click": 1.0})
    assert sorted(pairs.queries.values()) == ["first", "second"]
    clock[0] += 40 * DAY
    assert recorder.purge() == 4
    recorder.close()
