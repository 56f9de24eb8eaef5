"""Memory that native libraries have freed, given back to the system while a long job runs."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, TypeVar

__all__ = ["give_back_memory", "giving_back"]

T = TypeVar("T")


@cache
def _trim() -> Any:
    """``malloc_trim`` of glibc; None elsewhere."""
    if sys.platform != "linux":
        return None
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None


def give_back_memory() -> None:
    """Let glibc return what is free to the system.

    Threads of a database's client allocate from arenas of their own, each of which keeps what it once needed: blocks
    that are read and written one after the other would otherwise add up.

    Example:
        >>> give_back_memory()
    """
    trim = _trim()
    if trim is not None:
        trim(0)


def giving_back(items: Iterable[T], every: int = 10) -> Iterator[T]:
    """Give ``items``, and memory back after each so many of them.

    Example:
        >>> list(giving_back("abc", every=2))
        ['a', 'b', 'c']
    """
    for number, item in enumerate(items, start=1):
        yield item
        if number % every == 0:
            give_back_memory()
