"""Locks for stores: of this process, of the operating system by a file, and leases in databases that have no lock.

A lease is a record that its holder renews every second. Who wants it waits until there is none, or until it was not
renewed for `SECONDS_TO_EXPIRE`, writes a record of his own, waits `SECONDS_TO_SETTLE`, and holds it if the record is
still his (Fischer's algorithm). Two holders exclude each other as long as a write is seen by others within
`SECONDS_TO_SETTLE`, and a holder is not stopped for longer than `SECONDS_TO_EXPIRE`; one that was finds its lease gone
before its next write, which is refused. A holder whose process has died on the same machine is known at once.

A holder that read its own record less than half of `SECONDS_TO_SETTLE` ago does not read it again before a write: who
has replaced the record since waits for all of that time before he holds the lease, so the write has the other half to
arrive in. The time is taken before the read is asked for, by a clock that goes on while the process or the machine is
stopped; a write to the record proves nothing, as it may have replaced another's.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from nudge_rag.common import lock
from nudge_rag.errors import LockedError

__all__ = ["Lease", "LeaseRecord", "process_lock"]

SECONDS_TO_EXPIRE = 6.0
SECONDS_TO_SETTLE = 0.3
BETWEEN_BEATS = 1.0
BETWEEN_LOOKS = 0.1
# Of what passed between two readings, whether the process and the machine were running or not.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", None)
_LOCKS: dict[str, threading.Lock] = {}
_HELD: set[str] = set()


class LeaseRecord(Protocol):
    """The one record in a database by which processes agree who holds a lease."""

    def read(self) -> str | None:
        """Read its text, or None if there is none."""
        ...

    def write(self, text: str) -> None:
        """Write or replace it."""
        ...

    def remove(self) -> None:
        """Delete it, if it is there."""
        ...


@contextmanager
def process_lock(key: str) -> Iterator[None]:
    """Exclude the other threads of this process that name the same ``key``, waiting for them at most ten seconds.

    Raises:
        LockedError: another thread still holds it.
    """
    held = _LOCKS.setdefault(key, threading.Lock())
    if not held.acquire(timeout=lock.SECONDS_TO_WAIT):
        raise LockedError("a push or rollback is under way in another thread: nothing was written; try again later")
    try:
        yield
    finally:
        held.release()


class Lease:
    """A lease on a store's history.

    Args:
        record: the record in the database.
        key: names it among all leases of this process.
    """

    def __init__(self, record: LeaseRecord, key: str) -> None:
        self._record, self._key = record, key
        self._holder: str | None = None
        self._lost = False
        self._read_at = -math.inf
        # When the record was read that a beat is about to replace; None if no beat is.
        self._replacing: float | None = None

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the lease, waiting for it at most ten seconds beyond the time that a dead holder's takes to expire.

        Raises:
            LockedError: another process still holds it.
        """
        with process_lock(self._key):
            holder = self._acquire()
            stop = threading.Event()
            beating = threading.Thread(target=self._renew, args=(holder, stop), daemon=True)
            self._holder, self._lost, self._replacing = holder, False, None
            beating.start()
            try:
                yield
            finally:
                stop.set()
                beating.join()
                self._holder, self._read_at = None, -math.inf
                _HELD.discard(holder)
                with contextlib.suppress(Exception):  # it expires by itself
                    if _holder_of(self._record.read()) == holder:
                        self._record.remove()

    def check(self) -> None:
        """Raise LockedError if this process held the lease and has lost it; nothing happens outside of `hold`."""
        if self._holder is None or (not self._lost and now() - self._read_at < SECONDS_TO_SETTLE / 2):
            return
        is_held = not self._lost and self._is_held_by(self._holder)
        # After the read, which may have found what such a beat has just written.
        replacing = self._replacing
        if replacing is not None and now() - replacing >= SECONDS_TO_EXPIRE:
            self._lost = True
        if self._lost or not is_held:
            raise LockedError(
                f"the lock was taken over: this process was stopped for more than {SECONDS_TO_EXPIRE:g} seconds;"
                " nothing more is written"
            )

    def _is_held_by(self, holder: str) -> bool:
        """Read the record, and note when it was asked for if it is this holder's."""
        asked = now()
        is_held = bool(_holder_of(self._record.read()) == holder)
        self._read_at = asked if is_held else -math.inf
        return is_held

    def _acquire(self) -> str:
        holder = secrets.token_hex(8)
        deadline = time.monotonic() + lock.SECONDS_TO_WAIT + SECONDS_TO_EXPIRE
        seen, since = self._record.read(), time.monotonic()
        while True:
            expired = time.monotonic() - since >= SECONDS_TO_EXPIRE
            if seen is None or expired or _is_dead(seen):
                _HELD.add(holder)
                self._record.write(_text(holder, 0))
                time.sleep(SECONDS_TO_SETTLE)
                if self._is_held_by(holder):
                    return holder
                _HELD.discard(holder)
            if time.monotonic() >= deadline:
                raise LockedError("a push or rollback is under way in another process: nothing was written; try later")
            time.sleep(BETWEEN_LOOKS)
            found = self._record.read()
            if found != seen:
                seen, since = found, time.monotonic()

    def _renew(self, holder: str, stop: threading.Event) -> None:
        beat = 0
        while not stop.wait(BETWEEN_BEATS):
            beat += 1
            # A database that fails now fails for the holder as well; the next beat tries again.
            with contextlib.suppress(Exception):
                self._beat(holder, beat)
            if self._lost:
                return

    def _beat(self, holder: str, beat: int) -> None:
        """Renew the record if it is this holder's; after so long that it may have replaced another's, it is lost."""
        asked = now()
        if not self._is_held_by(holder):
            self._lost = True
            return
        self._replacing = asked
        try:
            self._record.write(_text(holder, beat))
        finally:
            if now() - asked >= SECONDS_TO_EXPIRE:
                self._lost = True
            self._replacing = None


def now() -> float:
    """Seconds since some moment, those included in which the machine was suspended, where the system counts them."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


def _text(holder: str, beat: int) -> str:
    return json.dumps({"holder": holder, "machine": _machine(), "process": os.getpid(), "beat": beat})


def _parsed(text: str | None) -> dict[str, Any]:
    """What a record says; nothing if it is not one of ours."""
    try:
        found = json.loads(text or "")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _holder_of(text: str | None) -> Any:
    return _parsed(text).get("holder")


def _is_dead(text: str) -> bool:
    """Whether the holder was a process of this machine that is no more."""
    found = _parsed(text)
    process = found.get("process")
    if found.get("machine") != _machine() or not isinstance(process, int) or process < 1:
        return False
    if process == os.getpid():
        return found.get("holder") not in _HELD
    if os.name == "nt":  # there, signal 0 would end the process
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


def _machine() -> str:
    """Names this machine since it was started, and on Linux the space of its process numbers, which containers have."""
    parts = [socket.gethostname()]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        with contextlib.suppress(OSError):
            parts.append(str(Path(path).readlink()) if path.endswith("pid") else Path(path).read_text().strip())
    return " ".join(parts)
