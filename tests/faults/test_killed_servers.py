"""The database server is killed (SIGKILL) while vectors are pushed and rolled back, and started again.

At every sixth step, so that the tests stay quick; at every single one with NUDGE_RAG_KILL_EVERY=1. At random moments
NUDGE_RAG_KILL_ROUNDS times.
"""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from nudge_rag import PushError, reapply, rollback, status, versions
from nudge_rag.journal.push import push_vectors
from nudge_rag.stores import StoreError
from tests.support.killed_worker import loop, nudged, open_store
from tests.support.killing import at_all, fill, is_whole, losses, quietly
from tests.support.mortal_servers import SERVERS, ServerSteps

pytestmark = pytest.mark.slow

IDS = [f"n{i}" for i in range(12)]
ORIGINALS = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
FIRST, SECOND = nudged(ORIGINALS, 1), nudged(ORIGINALS, 2)
STEPS_AT_MOST = 60
EVERY = int(os.environ.get("NUDGE_RAG_KILL_EVERY", "6"))
ROUNDS = int(os.environ.get("NUDGE_RAG_KILL_ROUNDS", "4"))

# What a push says of a server that is down: the key of a table is asked for first, that of a collection is known.
WHILE_DOWN = {
    "postgres": "^postgres failed while its journal was looked for; nothing was written",
    "chroma-server": "^the journal cannot be read",
}


@pytest.fixture(scope="module", params=list(SERVERS))
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def server(kind, tmp_path_factory):
    server = SERVERS[kind](tmp_path_factory.mktemp(kind))
    yield server
    server.stop()


class Addresses:
    """What `fill` asks for the address of a server."""

    def __init__(self, server):
        self.server = server

    def address(self, name):
        return self.server.address


@pytest.mark.parametrize("back", [False, True], ids=["down", "back at once"])
@pytest.mark.parametrize("action", ["push", "rollback"])
def test_no_vector_is_lost_wherever_the_server_is_killed(
    kind, server, action, back, tmp_path, monkeypatch, record_property
):
    kills = lost = errors = 0
    for number in range(STEPS_AT_MOST):
        fill(kind, tmp_path, Addresses(server), IDS, ORIGINALS)
        store, root = open_store(kind, str(server.address)), tmp_path / str(number)
        push_vectors(store, IDS, ORIGINALS, FIRST, versions=root)
        with monkeypatch.context() as patched:
            steps = ServerSteps(EVERY // 2 + number * EVERY, server, back)
            try:
                act(action, steps.instrument(store, patched.setattr), root)
            except (PushError, StoreError):
                errors += 1
        assert steps.counted > 0
        if not steps.killed:
            break
        kills += 1
        if not back:
            with pytest.raises((PushError, StoreError), match=WHILE_DOWN[kind]):
                push_vectors(store, IDS, ORIGINALS, SECOND, versions=root)
            server.start()
        lost += assert_recovers(kind, server, root, ORIGINALS if action == "rollback" else SECOND)
    record_property("fault", "server killed at a step of a push or rollback")
    record_property("store", kind)
    record_property("times", kills)
    record_property("lost", lost)
    assert lost == 0
    assert kills >= 1
    assert errors > 0 or back


def act(action, store, root):
    if action == "push":
        push_vectors(store, IDS, ORIGINALS, SECOND, versions=root)
    else:
        rollback(store, root)


def assert_recovers(kind, server, root, after):
    """The vectors lost, which are to be none; all nodes are where they were before, or where they are after."""
    store = open_store(kind, str(server.address))
    lost = losses(store, IDS, FIRST, after)
    quietly(reapply, store, root)
    assert is_whole(store, IDS, FIRST, after)
    found = status(store, root)
    assert (found.state, found.lost, found.changed, found.missing) in [
        ("committed", (), (), ()),
        (None, (), (), ()),
    ]
    assert is_whole(store, IDS, ORIGINALS) == (found.state is None)
    assert rollback(store, root).exact
    return lost + losses(store, IDS, ORIGINALS)


def test_no_vector_is_lost_whenever_the_server_is_killed(kind, server, tmp_path, record_property):
    rng, lost, pushes = np.random.default_rng(0), 0, 0
    ids = [f"n{i}" for i in range(500)]
    originals = rng.normal(size=(500, 16)).astype(np.float32)
    fill(kind, tmp_path, Addresses(server), ids, originals)
    root = tmp_path / "v"
    # On a machine so busy that it was always killed before anything was pushed, the next rounds get more time.
    for number, seconds in enumerate([*rng.uniform(0, 1, size=ROUNDS), 4, 4, 16, 16]):
        if number >= ROUNDS and pushes:
            break
        store = open_store(kind, str(server.address))
        killing = threading.Timer(seconds, server.kill)
        killing.start()
        with Path(os.devnull).open("wb") as ready, pytest.raises((PushError, StoreError)):
            quietly(loop, store, root, ids, originals, number, ready.fileno())
        killing.join()
        server.start()
        store = open_store(kind, str(server.address))
        recorded = versions(store, root)
        written = [at_all(ids, originals, version) for version in recorded]
        lost += losses(store, ids, originals, *written)
        quietly(reapply, store, root)
        assert is_whole(store, ids, originals, *written)
        if number % 2:
            assert rollback(store, root).exact
            lost += losses(store, ids, originals)
            pushes += len(recorded)
            shutil.rmtree(root)
    record_property("fault", "server killed at random moments")
    record_property("store", kind)
    record_property("times", ROUNDS)
    record_property("lost", lost)
    assert lost == 0
    assert pushes > 0
