"""Keep linear algebra on one thread while many small products are computed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["one_blas_thread"]

# Held by the one thread that has set the limit, and will lift it.
_LIMITED = threading.Lock()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let linear algebra of this process have one thread while the context lasts; of several, the first one's counts.

    Threads that share a small product wait for one another longer than they compute, all of them at full load; beside
    other work on the same processors that takes many times as long. Nothing happens if threadpoolctl, which comes with
    scikit-learn, is not installed.

    Example:
        >>> import numpy as np
        >>> with one_blas_thread():
        ...     (np.eye(2) @ np.ones(2)).tolist()
        [1.0, 1.0]
    """
    try:
        import threadpoolctl
    except ImportError:
        yield
        return
    if not _LIMITED.acquire(blocking=False):
        yield
        return
    try:
        with threadpoolctl.threadpool_limits(1, user_api="blas"):
            yield
    finally:
        _LIMITED.release()
