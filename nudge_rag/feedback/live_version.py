"""Which nudge is live, asked for now and then."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["LiveVersion"]

SECONDS_A_READ = 10.0


class LiveVersion:
    """A name, or a function that returns it and is called every ten seconds at most.

    Args:
        version: the name or the function; None if there is none.
    """

    def __init__(self, version: str | Callable[[], object] | None) -> None:
        self._version = version
        self._known: str | None = None
        self._read_at = float("-inf")

    def read(self, count_failure: Callable[[Exception], None]) -> str | None:
        """Return the name; the last one known if the function fails, whose error ``count_failure`` then takes."""
        if not callable(self._version):
            return self._version
        if time.monotonic() - self._read_at >= SECONDS_A_READ:
            self._read_at = time.monotonic()
            try:
                live = self._version()
                self._known = None if live is None else str(live)
            except Exception as error:  # the query is recorded all the same
                count_failure(error)
        return self._known
