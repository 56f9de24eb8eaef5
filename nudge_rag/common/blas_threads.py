"""Keep linear algebra on one thread while many small products are computed, by one thread or by several."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from functools import lru_cache, partial
from typing import Any, Protocol, TypeVar

__all__ = ["Map", "count_threads", "map_in_threads", "one_blas_thread", "threads_to_map"]

T = TypeVar("T")
R = TypeVar("R")

# Of less work, threads are not worth their start: multiplications, some hundredths of a second.
WORTH_THREADS = 5e8

# Items that are begun before they are asked for, of each thread: it never waits for those who ask.
AHEAD = 2

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
    libraries = _libraries(len(sys.modules))
    if libraries is None or not _LIMITED.acquire(blocking=False):
        yield
        return
    try:
        with libraries.limit(limits=1, user_api="blas"):
            yield
    finally:
        _LIMITED.release()


def count_threads(multiplications: float) -> int:
    """Number of threads to share so many multiplications out to: as many as linear algebra has now, or 1 for few.

    It is 1 as well if threadpoolctl, which tells, is not installed.

    Example:
        >>> count_threads(1_000)
        1
    """
    if multiplications < WORTH_THREADS:
        return 1
    libraries = _libraries(len(sys.modules))
    info = () if libraries is None else libraries.info()
    return max((int(one["num_threads"]) for one in info if one["user_api"] == "blas"), default=1)


@lru_cache(maxsize=1)
def _libraries(n_modules: int) -> Any:
    """Look for the libraries of linear algebra that are loaded, anew once modules are; None without threadpoolctl."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController()


class Map(Protocol):
    """Applies a function to each item, and yields the results in the order of the items: ``map``, or threads do it."""

    def __call__(self, function: Callable[[T], R], items: Iterable[T], /) -> Iterator[R]:
        """Results of ``function``, as they are asked for."""
        ...


@contextmanager
def threads_to_map(n_threads: int) -> Iterator[Map]:
    """Threads that apply functions of small products to items, as often as one likes while the context lasts.

    Linear algebra of this process has one thread meanwhile. Results do not depend on the number of threads if what is
    done with them is done in their order. Only a few items are looked at ahead of the one that is asked for: results do
    not pile up. If no thread can be started, as when the interpreter ends, this one does the work.

    Args:
        n_threads: as `count_threads` says; 1 for none but this, which leaves linear algebra as it is.

    Example:
        >>> with threads_to_map(2) as share:
        ...     sum(share(lambda size: size**2, [1, 2, 3])), list(share(str, [1, 2]))
        (14, ['1', '2'])
    """
    pool = _start_pool(n_threads) if n_threads > 1 else None
    if pool is None:
        yield map
        return
    with one_blas_thread():

        def share(function: Callable[[T], R], items: Iterable[T], /) -> Iterator[R]:
            # What numpy does about overflows holds in threads as it does here.
            context = copy_context()
            return _in_order(pool, lambda item: context.copy().run(function, item), items, AHEAD * n_threads)

        try:
            yield share
        finally:
            # What nobody asks for any more, after an error or Ctrl-C, is not waited for.
            pool.shutdown(cancel_futures=True)


def _start_pool(n_threads: int) -> Any:
    try:
        from concurrent.futures import ThreadPoolExecutor
    except RuntimeError:  # it cannot be imported any more once the interpreter ends
        return None
    return ThreadPoolExecutor(n_threads)


def _in_order(pool: Any, function: Callable[[T], R], items: Iterable[T], ahead: int) -> Iterator[R]:
    waiting: deque[Callable[[], R]] = deque()
    for item in items:
        waiting.append(_submit(pool, function, item))
        if len(waiting) == ahead:
            yield waiting.popleft()()
    while waiting:
        yield waiting.popleft()()


def _submit(pool: Any, function: Callable[[T], R], item: T) -> Callable[[], R]:
    """What gives the function's result, or raises what it raised."""
    try:
        result: Callable[[], R] = pool.submit(function, item).result
    except RuntimeError:  # no thread starts: the interpreter ends, or there are as many as the system allows
        return partial(function, item)
    return result


def map_in_threads(function: Callable[[T], R], items: Sequence[T], n_threads: int) -> list[R]:
    """Apply a function of small products to each item, in threads that have linear algebra of one thread each.

    All other work on the scores is shared out so as well.

    Args:
        function: of one item; several run at once.
        items: what it is applied to.
        n_threads: as `count_threads` says; 1 for none but this.

    Returns:
        The results, in the order of the items. What the function raises for the first of them is raised.

    Example:
        >>> map_in_threads(lambda size: size**2, [1, 2, 3], 2)
        [1, 4, 9]
    """
    with threads_to_map(min(len(items), n_threads)) as share:
        return list(share(function, items))
