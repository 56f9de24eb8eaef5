"""How often this process has written to a history: what is kept of one is read anew after that."""

from __future__ import annotations

__all__ = ["CHANGES_HERE", "ChangeCounter"]


class ChangeCounter:
    """Counts; two threads that count at once may count as one, which is a change all the same.

    Example:
        >>> counter = ChangeCounter()
        >>> counter.add()
        >>> counter.number
        1
    """

    def __init__(self) -> None:
        self.number = 0

    def add(self) -> None:
        """Count one more."""
        self.number += 1


# Of all stores: to look once too often costs little.
CHANGES_HERE = ChangeCounter()
