"""Progress bars if tqdm is installed; plain iteration if not."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

__all__ = ["track"]

T = TypeVar("T")

logger = logging.getLogger(__name__)

# A step that is over sooner needs no bar.
SECONDS_BEFORE_BAR = 1.0


def track(items: Iterable[T], what: str = "embedding queries", *, total: int | None = None) -> Iterator[T]:
    """Iterate over ``items``, with a bar on standard error once it takes longer than a second.

    The bar needs tqdm (``pip install 'nudge-rag[progress]'``); without it, the time taken is logged.

    Example:
        >>> list(track([1, 2, 3]))
        [1, 2, 3]
    """
    try:
        from tqdm.auto import tqdm
    except ImportError:
        started = time.monotonic()
        yield from items
        logger.info("%s took %.1f s", what, time.monotonic() - started)
        return
    yield from tqdm(items, desc=what, total=total, delay=SECONDS_BEFORE_BAR, leave=False)
