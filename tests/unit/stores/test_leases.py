"""A holder of a lease reads its record before a write, unless it has just done so: nobody holds it that soon."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from nudge_rag.errors import LockedError
from nudge_rag.stores import leases
from nudge_rag.stores.leases import Lease

SETTLE = 0.5  # a power of two, so that times add up exactly


class Record:
    """A record in memory, which counts how often it is read."""

    def __init__(self, clock, seconds_to_read=0.0, seconds_to_write=0.0):
        self.text, self.reads = None, 0
        self.clock, self.seconds_to_read, self.seconds_to_write = clock, seconds_to_read, seconds_to_write

    def read(self):
        self.reads += 1
        found = self.text
        self.clock[0] += self.seconds_to_read
        return found

    def write(self, text):
        self.text = text
        self.clock[0] += self.seconds_to_write

    def remove(self):
        self.text = None


class OneBeat:
    """In place of the event that stops a thread: after one beat."""

    def __init__(self):
        self.answers = iter([False, True])

    def wait(self, seconds):
        return next(self.answers)


@pytest.fixture
def clock(monkeypatch):
    """The time that leases are told, in a list; to wait is to advance it."""
    told = [0.0]

    def sleep(seconds):
        told[0] += seconds

    monkeypatch.setattr(leases, "SECONDS_TO_SETTLE", SETTLE)
    monkeypatch.setattr(leases, "BETWEEN_BEATS", 1000.0)
    monkeypatch.setattr(leases, "now", lambda: told[0])
    monkeypatch.setattr(time, "sleep", sleep)
    return told


def reads_of_a_check(lease, record):
    before = record.reads
    lease.check()
    return record.reads - before


def test_what_was_just_read_is_not_read_again(clock):
    record = Record(clock)
    lease = Lease(record, "just read")
    with lease.hold():
        # Read at the end of the wait for others.
        assert clock == [SETTLE]
        assert reads_of_a_check(lease, record) == 0
        clock[0] = 1.5 * SETTLE - 0.125
        assert reads_of_a_check(lease, record) == 0
        clock[0] = 1.5 * SETTLE
        assert reads_of_a_check(lease, record) == 1
        assert reads_of_a_check(lease, record) == 0
    assert record.text is None


def test_the_time_counts_from_before_the_read(clock):
    """What is read may be as old as the question."""
    record = Record(clock, seconds_to_read=SETTLE / 2)
    lease = Lease(record, "slow")
    with lease.hold():
        assert [reads_of_a_check(lease, record) for _ in range(3)] == [1, 1, 1]


def test_a_write_to_the_record_proves_nothing(clock):
    """The holder may have replaced another's record by it: what counts is the reading before that."""
    record = Record(clock, seconds_to_read=SETTLE / 4, seconds_to_write=SETTLE / 4)
    lease = Lease(record, "written")
    with lease.hold():
        lease._renew(lease._holder, OneBeat())
        assert json.loads(record.text)["beat"] == 1
        assert reads_of_a_check(lease, record) == 1


@pytest.mark.parametrize("delay", [0.0, 0.125, 0.25, 1.0])
def test_who_takes_a_lease_over_holds_it_only_when_the_holder_reads_again(clock, monkeypatch, delay):
    """However soon after the holder's last reading: before the other has written anything, the holder is refused."""
    record = Record(clock)
    first, second = Lease(record, "the first"), Lease(record, "the second")
    with first.hold():
        clock[0] = 100.0
        assert reads_of_a_check(first, record) == 1
        clock[0] += delay
        # As after a stop of the first.
        monkeypatch.setattr(leases, "SECONDS_TO_EXPIRE", 0.0)
        with second.hold():
            with pytest.raises(LockedError, match="the lock was taken over"):
                first.check()
            second.check()


@pytest.mark.parametrize("is_beat_over", [False, True])
def test_a_beat_that_was_stopped_before_its_write_does_not_win_the_lease_back(clock, is_beat_over):
    """Its write replaces the record of who has taken over meanwhile, and may be in the middle of a push."""
    record = Record(clock)
    lease = Lease(record, "stopped in a beat")
    write, refused = record.write, []

    def stopped(text):
        clock[0] += leases.SECONDS_TO_EXPIRE
        record.text = '{"holder": "another"}'
        write(text)
        if not is_beat_over:
            check()

    def check():
        with pytest.raises(LockedError, match="the lock was taken over"):
            lease.check()
        refused.append(True)

    with lease.hold():
        record.write = stopped
        lease._renew(lease._holder, OneBeat())
        assert leases._holder_of(record.text) == lease._holder
        check()
    assert len(refused) == (1 if is_beat_over else 2)


def test_a_lease_that_is_lost_stays_lost(clock):
    record = Record(clock)
    lease = Lease(record, "lost")
    with lease.hold():
        clock[0] += SETTLE
        mine, record.text = record.text, '{"holder": "another"}'
        for _ in range(2):
            with pytest.raises(LockedError, match="nothing more is written"):
                lease.check()
        record.text = mine
    assert lease._holder is None
    with lease.hold():
        assert reads_of_a_check(lease, record) == 0


HOLDER = """
import os, signal, sys
from pathlib import Path
from nudge_rag.errors import LockedError
from nudge_rag.stores import leases

class Record:
    def read(self):
        return path.read_text() if path.exists() else None
    def write(self, text):
        path.write_text(text)
    def remove(self):
        path.unlink()

path = Path(sys.argv[1])
leases.BETWEEN_BEATS = 1000.0
lease = leases.Lease(Record(), "stopped")
with lease.hold():
    lease.check()
    os.kill(os.getpid(), signal.SIGSTOP)
    try:
        lease.check()
    except LockedError:
        print("refused")
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows stops no process")
def test_a_process_that_was_stopped_is_refused(tmp_path):
    """Time goes on meanwhile, if no longer than another takes to write the record and to wait."""
    path = tmp_path / "record"
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        os.waitpid(process.pid, os.WUNTRACED)
        path.write_text('{"holder": "another"}')
        time.sleep(leases.SECONDS_TO_SETTLE)
    finally:
        os.kill(process.pid, signal.SIGCONT)
    assert process.communicate(timeout=60)[0] == "refused\n"
    assert path.read_text() == '{"holder": "another"}'


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="no clock counts a suspended machine")
def test_the_clock_counts_a_suspended_machine():
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= leases.now() <= time.clock_gettime(time.CLOCK_BOOTTIME)
