"""A lock on a file that the operating system gives back when its process ends."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import IO

__all__ = ["try_lock", "unlock", "wait_for_lock"]

FIRST_PAUSE, LONGEST_PAUSE = 0.00005, 0.001


def try_lock(file: IO[bytes]) -> bool:
    """Take the lock if it is free.

    Raises:
        OSError: the file system knows no locks.
    """
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def unlock(file: IO[bytes]) -> None:
    """Give the lock back."""
    if os.name == "nt":
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined, unused-ignore]
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_UN)


def wait_for_lock(file: IO[bytes], path: Path, deadline: float) -> None:
    """Take the lock; its holders need some 0.1 ms, so the pauses between tries are short.

    Args:
        file: the file to lock.
        path: what it protects, for the message.
        deadline: of `time.monotonic`.

    Raises:
        TimeoutError: other processes hold it until then.
    """
    pause = FIRST_PAUSE
    while not try_lock(file):
        if time.monotonic() >= deadline:
            raise TimeoutError(f"other processes were writing to {path} all the time")
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
