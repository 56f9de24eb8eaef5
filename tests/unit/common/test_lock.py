"""The lock of a folder, as this system has it and as Windows has it: there, msvcrt locks a range of bytes."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from nudge_rag import LockedError
from nudge_rag.common import lock
from nudge_rag.feedback.file_lock import wait_for_lock


class Msvcrt:
    """Locks ranges of bytes as Microsoft documents ``_locking``.

    A range that any other handle has locked is refused with EACCES, also within one process. A range is unlocked
    only by the handle and with the bounds that locked it. ``calls`` counts both, so that no test can pass without them.
    """

    LK_NBLCK, LK_UNLCK = 2, 0

    def __init__(self):
        self.held: dict[tuple[int, int, int], int] = {}
        self.calls = {self.LK_NBLCK: 0, self.LK_UNLCK: 0}
        self.guard = threading.Lock()

    def locking(self, handle: int, mode: int, length: int) -> None:
        region = (os.fstat(handle).st_ino, os.lseek(handle, 0, os.SEEK_CUR), length)
        with self.guard:
            self.calls[mode] += 1
            if mode == self.LK_NBLCK and any(file == region[0] for file, _, _ in self.held):
                raise OSError(errno.EACCES, "Permission denied")
            if mode == self.LK_UNLCK and self.held.get(region) != handle:
                raise OSError(errno.EACCES, "Permission denied")
            if mode == self.LK_NBLCK:
                self.held[region] = handle
            else:
                del self.held[region]


@pytest.fixture(params=["this system", "Windows"])
def msvcrt(request, monkeypatch):
    """The double, or None for this system's own locks."""
    if request.param == "this system":
        yield None
        return
    double = Msvcrt()
    monkeypatch.setitem(sys.modules, "msvcrt", double)
    monkeypatch.setattr(lock, "os", SimpleNamespace(name="nt"))
    yield double
    assert all(double.calls.values()), "the lock was not taken and given back through msvcrt"
    assert not double.held, "a lock was not given back"


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(lock, "SECONDS_TO_WAIT", 0.15)


def test_a_second_holder_is_refused_and_may_come_back(tmp_path, msvcrt, impatient):
    with (
        lock.locked(tmp_path / "store", "a push"),
        pytest.raises(LockedError, match="a push is under way in another process: nothing was written"),
        lock.locked(tmp_path / "store", "a push"),
    ):
        raise AssertionError("both hold the lock")
    with lock.locked(tmp_path / "store", "a push"):
        pass


def test_other_folders_are_free(tmp_path, msvcrt, impatient):
    with lock.locked(tmp_path / "one", "a push"), lock.locked(tmp_path / "two", "a push"):
        pass


def test_whoever_waits_gets_it_when_it_is_given_back(tmp_path, msvcrt):
    order = []

    def wait():
        with lock.locked(tmp_path, "a rollback"):
            order.append("second")

    with lock.locked(tmp_path, "a push"):
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(3 * lock.BETWEEN_TRIES)
        order.append("first")
    thread.join(timeout=10)
    assert order == ["first", "second"]


def test_an_error_gives_it_back(tmp_path, msvcrt, impatient):
    with pytest.raises(KeyError), lock.locked(tmp_path, "a push"):
        raise KeyError("a failure between")
    with lock.locked(tmp_path, "a push"):
        pass


def test_where_nothing_can_be_locked_that_is_an_error_and_no_wait(tmp_path, monkeypatch):
    def broken(handle: int, mode: int, length: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(LK_NBLCK=2, LK_UNLCK=0, locking=broken))
    monkeypatch.setattr(lock, "os", SimpleNamespace(name="nt"))
    with pytest.raises(OSError, match="Invalid argument"), lock.locked(tmp_path, "a push"):
        pass


def test_the_lock_of_a_recorder_is_waited_for(tmp_path, msvcrt):
    """Two handles of one file, as two processes have them: the second gets it as soon as the first gives it back."""
    path = tmp_path / "feedback.sqlite-lock"
    with path.open("a+b") as first, path.open("a+b") as second:
        wait_for_lock(first, path, time.monotonic())
        with pytest.raises(TimeoutError, match=r"other processes were writing to .*feedback\.sqlite-lock all the time"):
            wait_for_lock(second, path, time.monotonic() + 0.01)
        lock.unlock(first)
        wait_for_lock(second, path, time.monotonic())
        lock.unlock(second)
