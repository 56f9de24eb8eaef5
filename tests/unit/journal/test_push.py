"""Pushes as transactions: unfinished ones, two at once, other models, single versions."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest

import nudge_rag.common.lock
from nudge_rag import LockedError, PushError, reapply, rollback, status, versions
from nudge_rag.common.lock import locked
from nudge_rag.journal.push import push_vectors
from nudge_rag.stores import MappingStore
from nudge_rag.stores.base import StoreError
from tests.support.full_disk import fills_up

IDS = [f"n{i}" for i in range(6)]
ORIGINALS = np.random.default_rng(0).normal(size=(6, 3))
FIRST, SECOND = ORIGINALS + 1, ORIGINALS + 2


@pytest.fixture
def table():
    return dict(zip(IDS, ORIGINALS.tolist(), strict=True))


def store_of(table):
    return MappingStore(table, key="test")


def push(table, root, vectors, rows=slice(None), **details):
    return push_vectors(store_of(table), IDS[rows], ORIGINALS[rows], vectors[rows], versions=root, details=details)


def states(table, root):
    return [version.state for version in versions(store_of(table), root)]


def test_versions_tell_what_they_were(table, tmp_path):
    push(table, tmp_path, FIRST, solver="nudge-n", gamma=0.25)
    push(table, tmp_path, SECOND, solver="nudge-m", gamma=1.5)
    first, second = versions(store_of(table), tmp_path)
    assert str(first).startswith("0001: superseded, 20")
    assert str(second).endswith("6 nodes, nudge-m, gamma 1.5")
    assert versions(MappingStore(table, key="other"), tmp_path) == []


def test_rolling_back_one_version_gives_the_state_before_it(table, tmp_path):
    store = store_of(table)
    push(table, tmp_path, FIRST, slice(0, 4))
    after_first = copy.deepcopy(table)
    push(table, tmp_path, SECOND, slice(2, 6))
    push(table, tmp_path, SECOND + 1, slice(0, 6))
    receipt = rollback(store, tmp_path, version="0002")
    assert (receipt.restored, receipt.version, receipt.exact) == (6, "0002", True)
    assert table == after_first
    assert states(table, tmp_path) == ["committed", "rolled back", "rolled back"]
    assert status(store, tmp_path).version == "0001"
    assert rollback(store, tmp_path).restored == 4
    assert table == dict(zip(IDS, ORIGINALS.tolist(), strict=True))
    with pytest.raises(ValueError, match="no version '0009'; there are 0001, 0002, 0003"):
        rollback(store, tmp_path, version="0009")


def test_a_node_embedded_again_between_two_pushes_goes_back_to_that(table, tmp_path):
    store = store_of(table)
    push(table, tmp_path, FIRST)
    again = [9.0, 9.0, 9.0]
    table["n2"] = again
    push_vectors(store, ["n2"], np.array([again]), np.array([[8.0, 8.0, 8.0]]), versions=tmp_path)
    assert table["n2"] == [8.0, 8.0, 8.0]
    for version in (None, "0001"):
        trial, journal = copy.deepcopy(table), tmp_path.with_name(f"copy-{version}")
        shutil.copytree(tmp_path, journal)
        rollback(store_of(trial), journal, version=version)
        assert trial["n2"] == again
        assert [trial[node] for node in IDS if node != "n2"] == np.delete(ORIGINALS, 2, axis=0).tolist()


def test_lost_nudges_are_found_and_put_back(table, tmp_path):
    store = store_of(table)
    assert str(status(store, tmp_path)) == "nothing is pushed"
    assert reapply(store, tmp_path) == ()
    push(table, tmp_path, FIRST)
    table["n1"] = ORIGINALS[1].tolist()  # an ingestion pipeline adds it again
    table["n2"] = [0.0, 0.0, 1.0]  # its text changed
    del table["n3"]
    found = status(store, tmp_path)
    assert (found.lost, found.changed, found.missing) == (("n1",), ("n2",), ("n3",))
    assert str(found) == "version 0001 (committed): 3 nudged, 1 lost, 1 changed, 1 missing"
    assert reapply(store, tmp_path) == ("n1",)
    assert table["n1"] == FIRST[1].tolist()
    assert table["n2"] == [0.0, 0.0, 1.0]
    assert status(store, tmp_path).lost == ()


def test_a_push_for_another_model_is_refused(table, tmp_path):
    push(table, tmp_path, FIRST, model="mini")
    before = copy.deepcopy(table)
    with pytest.raises(PushError, match="for the embedding model 'mini', this one is for 'large': roll back first"):
        push(table, tmp_path, SECOND, model="large")
    assert table == before
    assert push(table, tmp_path, SECOND).pushed  # a model that is not known is not compared
    rollback(store_of(table), tmp_path)
    assert push(table, tmp_path, FIRST, model="large").pushed


def unfinished(table, root, state, written):
    """A journal as a process leaves it that dies in ``state``, after ``written`` nodes of its second push."""
    push(table, root, FIRST)
    push(table, root, SECOND)
    first, second = versions(store_of(table), root)
    first.set_state("committed")
    second.set_state(state)
    for node, vector in list(zip(IDS, FIRST.tolist(), strict=True))[written:]:
        table[node] = vector


@pytest.mark.parametrize(
    ("state", "written", "message", "holds"),
    [
        ("prepared", 0, "had written nothing: it is dropped", FIRST),
        ("writing", 0, "have the vectors again that they had before", FIRST),
        ("writing", 3, r"6 node\(s\) have the vectors again", FIRST),
        ("writing", 6, "have the vectors again", FIRST),
        ("verified", 6, "had written everything: it is committed now", SECOND),
    ],
)
def test_the_next_call_finishes_or_undoes_a_push_that_died(table, tmp_path, state, written, message, holds):
    unfinished(table, tmp_path, state, written)
    with pytest.warns(UserWarning, match=f"push 0002 to test had not finished; .*{message}"):
        assert reapply(store_of(table), tmp_path) == ()
    assert table == dict(zip(IDS, holds.tolist(), strict=True))
    assert states(table, tmp_path) == (["committed", "rolled back"] if holds is FIRST else ["superseded", "committed"])
    assert rollback(store_of(table), tmp_path).exact
    assert table == dict(zip(IDS, ORIGINALS.tolist(), strict=True))


@pytest.mark.parametrize("state", ["prepared", "writing", "verified"])
@pytest.mark.parametrize("written", [0, 3, 6])
def test_rollback_of_a_push_that_died_gives_the_originals(table, tmp_path, state, written):
    unfinished(table, tmp_path, state, written)
    assert rollback(store_of(table), tmp_path).exact
    assert table == dict(zip(IDS, ORIGINALS.tolist(), strict=True))
    assert rollback(store_of(table), tmp_path).restored == 0


@pytest.mark.parametrize(
    ("left", "tidy"),
    [
        (["committed", "committed"], ["superseded", "committed"]),  # died while a push was committed
        (["superseded", "rolled back"], ["rolled back", "rolled back"]),  # died while a rollback was closed
        (["superseded", "superseded"], ["rolled back", "rolled back"]),
    ],
)
def test_states_left_by_a_process_that_died_between_two_of_them(table, tmp_path, left, tidy):
    push(table, tmp_path, FIRST)
    push(table, tmp_path, SECOND)
    for version, state in zip(versions(store_of(table), tmp_path), left, strict=True):
        version.set_state(state)
    if "committed" not in tidy:
        table.update(zip(IDS, ORIGINALS.tolist(), strict=True))
    before = copy.deepcopy(table)
    assert push(table, tmp_path, FIRST + 1).version == "0003"
    assert states(table, tmp_path) == [{"committed": "superseded"}.get(state, state) for state in tidy] + ["committed"]
    assert rollback(store_of(table), tmp_path, version="0003").exact
    assert table == before
    assert states(table, tmp_path) == [*tidy, "rolled back"]


HOLD = """
import sys, time
from pathlib import Path
from nudge_rag.common.lock import locked
with locked(Path(sys.argv[1]), "test"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_waits_or_is_refused(table, tmp_path, monkeypatch):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "test")], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    monkeypatch.setattr(nudge_rag.common.lock, "SECONDS_TO_WAIT", 0.3)
    before = copy.deepcopy(table)
    for action in (lambda: push(table, tmp_path, FIRST), lambda: rollback(store_of(table), tmp_path)):
        with pytest.raises(LockedError, match="a push or rollback on test is under way in another process"):
            action()
    assert table == before
    monkeypatch.setattr(nudge_rag.common.lock, "SECONDS_TO_WAIT", 30)
    threading.Timer(0.3, holder.kill).start()  # the system gives the lock of a killed process back
    assert push(table, tmp_path, FIRST).pushed
    holder.wait()
    holder.stdout.close()


def test_pushes_from_many_threads_are_never_mixed(table, tmp_path):
    class Slow(MappingStore):
        replace_vectors_if = None  # so that every write goes through replace

        def replace(self, ids, vectors):
            for node, vector in zip(ids, vectors, strict=True):
                super().replace([node], vector[None])
                time.sleep(0.002)

    def work(shift):
        push_vectors(Slow(table, key="test"), IDS, ORIGINALS, ORIGINALS + shift, versions=tmp_path)

    threads = [threading.Thread(target=work, args=(shift,)) for shift in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shifts = {round(float(np.mean(np.array(table[node]) - row)), 6) for node, row in zip(IDS, ORIGINALS, strict=True)}
    assert len(shifts) == 1
    assert sorted(states(table, tmp_path)) == ["committed"] + ["superseded"] * 7
    rollback(store_of(table), tmp_path)
    assert table == dict(zip(IDS, ORIGINALS.tolist(), strict=True))


def test_a_journal_that_cannot_be_written_stops_the_push_before_the_store_is_touched(table, tmp_path, monkeypatch):
    before = copy.deepcopy(table)
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(OSError, match=r"file|directory"):
        push(table, blocked, FIRST)
    assert table == before

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        push(table, tmp_path, FIRST)
    monkeypatch.undo()
    assert table == before
    assert rollback(store_of(table), tmp_path).restored == 0
    assert push(table, tmp_path, FIRST).pushed


@pytest.mark.parametrize("action", ["push", "rollback", "reapply"])
@pytest.mark.parametrize("failing", range(6))
def test_a_journal_that_fails_at_its_nth_write(table, tmp_path, monkeypatch, action, failing):
    """From the n-th write on nothing can be written, as on a disk that fills up; then there is space again."""
    if action == "reapply":
        unfinished(table, tmp_path, "writing", 3)
    else:
        push(table, tmp_path, FIRST)
    fills_up(monkeypatch, failing)
    actions = {
        "push": lambda: push(table, tmp_path, SECOND),
        "rollback": lambda: rollback(store_of(table), tmp_path),
        "reapply": lambda: reapply(store_of(table), tmp_path),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            actions[action]()
        except (OSError, PushError) as error:
            assert "No space left" in str(error)
        whole = [dict(zip(IDS, part.tolist(), strict=True)) for part in (FIRST, SECOND, ORIGINALS)]
        assert table in whole
        monkeypatch.undo()
        reapply(store_of(table), tmp_path)
        assert table in whole
        assert rollback(store_of(table), tmp_path).exact
    assert table == whole[2]
    assert set(states(table, tmp_path)) <= {"rolled back"}


class Breaks(MappingStore):
    """Loses its connection at one method."""

    broken = ""
    replace_vectors_if = None  # so that every write goes through replace

    def matching(self, ids, where):
        self.fail("matching")
        return super().matching(ids, where)

    def replace(self, ids, vectors):
        self.fail("replace")
        super().replace(ids, vectors)

    def fail(self, name):
        if self.broken == name:
            raise ConnectionError("connection lost")


def test_a_store_that_fails_while_its_status_is_asked_for_or_a_nudge_put_back(table, tmp_path):
    push(table, tmp_path, FIRST)
    table["n1"] = ORIGINALS[1].tolist()  # an ingestion pipeline
    store = Breaks(table, key="test")
    for store.broken, action, error, message in (
        ("matching", status, StoreError, "failed while its nodes were compared with what was pushed; nothing was"),
        ("matching", reapply, StoreError, "failed while its nodes were compared"),
        ("replace", reapply, PushError, r"failed while 1 node\(s\) got their nudge back.*later call starts again"),
    ):
        with pytest.raises(error, match=message) as raised:
            action(store, tmp_path)
        assert "ConnectionError: connection lost" in str(raised.value)
    store.broken = ""
    assert reapply(store, tmp_path) == ("n1",)
    assert table == dict(zip(IDS, FIRST.tolist(), strict=True))


def test_locks_are_given_back(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path, "x"):
        raise KeyError
    with locked(tmp_path, "x"):
        pass
