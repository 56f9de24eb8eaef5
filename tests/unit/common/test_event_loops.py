"""Coroutines of an asynchronous client run where its connections live, and hold up no event loop."""

from __future__ import annotations

import asyncio
import copy
import threading

import pytest

from nudge_rag.common.event_loops import BlockingClient, remember_loop, run_blocking


class Client:
    """Tells the thread that runs its coroutine."""

    size = 3

    async def thread(self):
        await asyncio.sleep(0)
        return threading.current_thread()


def test_without_an_application_the_loop_is_our_own():
    assert BlockingClient(Client()).thread().name == "nudge-rag-event-loop"


def test_a_thread_of_an_application_uses_its_loop():
    async def application():
        remember_loop()
        return await asyncio.to_thread(BlockingClient(Client()).thread)

    assert asyncio.run(application()) is threading.current_thread()


def test_the_loop_of_an_application_that_ended_is_not_waited_for():
    async def application():
        remember_loop()

    def run():
        loop = asyncio.new_event_loop()
        loop.run_until_complete(application())
        loop.close()
        return BlockingClient(Client()).thread().name

    assert run() == "nudge-rag-event-loop"


def test_a_loop_is_never_held_up():
    async def application():
        return run_blocking(Client().thread)

    with pytest.raises(RuntimeError, match="thread of an event loop"):
        asyncio.run(application())


def test_what_is_no_coroutine_is_passed_on():
    client = BlockingClient(Client())
    assert client.size == 3
    assert copy.copy(client).size == 3
    assert not hasattr(client, "gone")
