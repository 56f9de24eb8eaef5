"""Asynchronous clients for code that does not await: their coroutines run on the application's own event loop."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from functools import cache
from typing import Any, TypeVar

__all__ = ["BlockingClient", "remember_loop", "run_blocking"]

T = TypeVar("T")

_application: ContextVar[asyncio.AbstractEventLoop | None] = ContextVar("nudge_rag_event_loop", default=None)


def remember_loop() -> None:
    """Let threads that this task starts run coroutines on the loop that is running now."""
    _application.set(asyncio.get_running_loop())


def run_blocking(start: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Wait for a coroutine, in a thread other than that of the loop that runs it.

    The loop is the application's, if it was remembered and runs: connections of an asynchronous client belong to one
    loop. Otherwise it is one of our own.

    Args:
        start: makes the coroutine.

    Raises:
        RuntimeError: a loop runs in this thread, which would be held up.

    Example:
        >>> run_blocking(lambda: asyncio.sleep(0, "done"))
        'done'
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise RuntimeError("an asynchronous client cannot be waited for in the thread of an event loop")
    loop = _application.get()
    if loop is None or not loop.is_running():
        loop = _own_loop()
    return asyncio.run_coroutine_threadsafe(start(), loop).result()


class BlockingClient:
    """A database's asynchronous client with methods that wait.

    Args:
        client: the asynchronous client.

    Example:
        >>> class Client:
        ...     async def count(self): return 3
        >>> BlockingClient(Client()).count()
        3
    """

    def __init__(self, client: Any) -> None:
        self._asynchronous = client

    def __getattr__(self, name: str) -> Any:
        if name == "_asynchronous":  # of a copy that is being made
            raise AttributeError(name)
        found = getattr(self._asynchronous, name)
        if not inspect.iscoroutinefunction(found):
            return found

        def call(*arguments: Any, **options: Any) -> Any:
            return run_blocking(lambda: found(*arguments, **options))

        return call


@cache
def _own_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True, name="nudge-rag-event-loop").start()
    return loop
