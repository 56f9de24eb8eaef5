"""Waiting for the lock of a file that is held for moments only."""

from __future__ import annotations

import time
from pathlib import Path
from typing import IO

from nudge_rag.common.lock import try_lock

__all__ = ["wait_for_lock"]

FIRST_PAUSE, LONGEST_PAUSE = 0.00005, 0.001


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
