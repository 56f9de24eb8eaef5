"""How often this process has written to a history: what is kept of one is read anew after that."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["CHANGES_HERE", "ChangeCounter"]


class ChangeCounter:
    """Counts changes when they are over, and those that are under way.

    Attributes:
        number: of changes that are over.
        n_under_way: of changes that are not.

    Example:
        >>> counter = ChangeCounter()
        >>> with counter.change():
        ...     counter.number, counter.n_under_way
        (0, 1)
        >>> counter.number, counter.n_under_way
        (1, 0)
    """

    def __init__(self) -> None:
        self.number = self.n_under_way = 0
        self._lock = threading.Lock()

    @contextmanager
    def change(self) -> Iterator[None]:
        """Count what is done inside, whether it succeeds or not."""
        with self._lock:
            self.n_under_way += 1
        try:
            yield
        finally:
            with self._lock:
                self.n_under_way -= 1
                self.number += 1


# Of all stores: to look once too often costs little.
CHANGES_HERE = ChangeCounter()
