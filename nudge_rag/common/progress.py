"""Progress bars if tqdm is installed; plain iteration if not."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["counting", "track"]

T = TypeVar("T")

logger = logging.getLogger(__name__)

# A step that is over sooner needs no bar.
SECONDS_BEFORE_BAR = 1.0


def track(items: Iterable[T], what: str = "embedding queries", *, total: int | None = None) -> Iterator[T]:
    """Iterate over ``items``, with a bar on standard error once it takes longer than a second.

    The bar needs tqdm (``pip install 'nudge-rag[progress]'``); without it, the time taken is logged
    if it was longer.

    Example:
        >>> list(track([1, 2, 3]))
        [1, 2, 3]
    """
    try:
        from tqdm.auto import tqdm
    except ImportError:
        with _timed(what):
            yield from items
        return
    yield from tqdm(items, desc=what, total=total, delay=SECONDS_BEFORE_BAR, leave=False)


@contextmanager
def counting(what: str, *, total: int | None = None) -> Iterator[Callable[[int], object]]:
    """Give a function that is told how many more are done, for work that is no loop of ours; with a bar as `track`.

    Example:
        >>> with counting("copying", total=5) as advance:
        ...     for done in (2, 3):
        ...         _ = advance(done)
    """
    try:
        from tqdm.auto import tqdm
    except ImportError:
        with _timed(what):
            yield lambda n_done: None
        return
    with tqdm(desc=what, total=total, delay=SECONDS_BEFORE_BAR, leave=False) as bar:
        yield bar.update


@contextmanager
def _timed(what: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds = time.monotonic() - started
    if seconds >= SECONDS_BEFORE_BAR:
        logger.info("%s took %.1f s", what, seconds)
