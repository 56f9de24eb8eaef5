"""What tests let the workers of an executor do; in a module of its own, so that it can be pickled."""

from __future__ import annotations

import os
import signal
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl


class Counted:
    """A question that says, where it arrives, which time that was."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.arrival = "at home"

    def __getstate__(self) -> bytes:
        return self.content

    def __setstate__(self, content: bytes) -> None:
        self.content, self.arrival = content, uuid.uuid4().hex


def arrival(fragment: int, question: Counted) -> tuple[int, str]:
    return os.getpid(), question.arrival


def blas_threads(fragment: int, question: Any) -> list[int]:
    np.ones((2, 2)) @ np.ones((2, 2))
    return [library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"]


def doubled(fragment: int, question: int) -> int:
    return 2 * fragment + question


def die_once(fragment: int, place: str) -> int:
    """Kill the worker at fragment 3, the first time."""
    if fragment == 3 and not Path(place).exists():
        Path(place).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return fragment * fragment


def die_always(fragment: int, question: Any) -> int:
    if fragment == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return fragment


def fail_twice(fragment: int, folder: str) -> int:
    """Fail as a network does, two times for each fragment."""
    for number in range(2):
        place = Path(folder) / f"{fragment}-{number}"
        if not place.exists():
            place.touch()
            raise OSError("connection reset")
    return fragment


def fail(fragment: int, error: Exception) -> int:
    raise error


class MortalFragment:
    """A fragment whose first reader is killed in the middle of it."""

    def __init__(self, fragment: Any, place: str) -> None:
        self.fragment, self.place = fragment, place

    @property
    def rows(self) -> int:
        return int(self.fragment.rows)

    def batches(self, batch_size: int) -> Any:
        for number, batch in enumerate(self.fragment.batches(64)):
            if number == 1 and not Path(self.place).exists():
                Path(self.place).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch


def turned(vectors: np.ndarray) -> np.ndarray:
    return vectors[:, ::-1]
