"""One writer at a time: a lock that the operating system gives back when its process ends, however it ends."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from nudge_rag.errors import LockedError

__all__ = ["LockedError", "locked", "locked_file", "try_lock", "unlock"]

SECONDS_TO_WAIT = 10.0
BETWEEN_TRIES = 0.05


@contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Hold the lock of ``folder`` (made if it is not there), waiting for it at most ten seconds.

    Raises:
        LockedError: another process, or another thread of this one, still holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked_file(folder / "lock", what):
        yield


@contextmanager
def locked_file(path: Path, what: str) -> Iterator[None]:
    """Hold the lock of a file (made if it is not there), waiting for it at most ten seconds.

    Raises:
        LockedError: another process, or another thread of this one, still holds it.
        OSError: there is something else than a regular file, such as a link that somebody has planted.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise OSError(errno.EINVAL, "it is no regular file: remove it", str(path))
    with path.open("a+b") as file:
        _wait_for(file, what, time.monotonic() + SECONDS_TO_WAIT)
        try:
            yield
        finally:
            unlock(file)


def _wait_for(file: IO[bytes], what: str, deadline: float) -> None:
    while not try_lock(file):
        if time.monotonic() >= deadline:
            raise LockedError(f"{what} is under way in another process: nothing was written; try again when it is done")
        time.sleep(BETWEEN_TRIES)


def try_lock(file: IO[bytes]) -> bool:
    """Take the lock of an open file if it is free, and return whether it was.

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
    except (BlockingIOError, PermissionError):  # held by another; where locks do not work at all, that is an error
        return False
    return True


def unlock(file: IO[bytes]) -> None:
    """Give the lock of an open file back."""
    if os.name == "nt":
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined, unused-ignore]
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_UN)
