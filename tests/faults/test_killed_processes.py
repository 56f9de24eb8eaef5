"""SIGKILL during pushes, rollbacks and recoveries: afterwards no vector is anything but one of a named version.

At every fourth step, so that the tests stay quick; at every single one with NUDGE_RAG_KILL_EVERY=1. At random moments
NUDGE_RAG_KILL_ROUNDS times.
"""

from __future__ import annotations

import os
import shutil
import signal

import numpy as np
import pytest

from nudge_rag import reapply, rollback, versions
from nudge_rag.journal.coding import Vectors
from nudge_rag.journal.journal import Journal
from nudge_rag.journal.push import push_vectors
from tests.support.killed_worker import nudged, open_store
from tests.support.killing import KINDS, Killer, at_all, fill, is_whole, losses, quietly

pytestmark = pytest.mark.slow

IDS = [f"n{i}" for i in range(12)]
ORIGINALS = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
FIRST, SECOND = nudged(ORIGINALS, 1), nudged(ORIGINALS, 2)
STEPS_AT_MOST = 120  # a push to files has 73 to 76, of which the mark that it leaves in the store is a part
EVERY = int(os.environ.get("NUDGE_RAG_KILL_EVERY", "4"))
ROUNDS = int(os.environ.get("NUDGE_RAG_KILL_ROUNDS", "4"))
MOST_VERSIONS = 40


@pytest.fixture
def killer():
    return Killer()


def prepare(action, store, root):
    """What the process to be killed finds: a push; for a recovery, also one that died half-way."""
    push_vectors(store, IDS, ORIGINALS, FIRST, versions=root)
    if action == "recover":
        parts = (part.astype(store.capabilities.dtype) for part in (ORIGINALS, FIRST, SECOND))
        died = Journal.open(store, root).record(IDS, Vectors(*parts), {})
        died.set_state("writing")
        store.replace(IDS[:7], SECOND[:7])


@pytest.mark.parametrize("action", ["push", "rollback", "recover"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_vector_is_lost_wherever_the_process_is_killed(kind, action, tmp_path, servers, killer, record_property):
    kills = lost = 0
    for steps in range(0, STEPS_AT_MOST, EVERY):
        folder = tmp_path / str(steps)
        folder.mkdir()
        address = fill(kind, folder, servers, IDS, ORIGINALS)
        store, root = open_store(kind, address), folder / "v"
        prepare(action, store, root)
        np.savez(folder / "vectors.npz", ids=np.array(IDS), originals=ORIGINALS)
        ended = killer.run(
            kind, address=address, vectors=folder / "vectors.npz", root=root, action=action, number=2, steps=steps
        )
        assert ended in (0, signal.SIGKILL)
        kills += ended != 0
        store = open_store(kind, address)
        lost += losses(store, IDS, ORIGINALS, FIRST, SECOND)
        quietly(reapply, store, root)  # finishes or undoes what was left
        assert is_whole(store, IDS, *{"push": (FIRST, SECOND), "rollback": (ORIGINALS, FIRST)}.get(action, [FIRST]))
        assert rollback(store, root).exact
        lost += losses(store, IDS, ORIGINALS)
        assert {version.state for version in versions(store, root)} <= {"rolled back", "superseded"}
        if ended == 0:
            break
    record_property("fault", "process killed at a step of a push, rollback or recovery")
    record_property("store", kind)
    record_property("times", kills)
    record_property("lost", lost)
    assert lost == 0
    assert ended == 0, "the last process ran to its end: none of its steps was left out"
    assert kills == steps // EVERY, "all before it were killed"
    assert steps >= 6


@pytest.mark.parametrize("kind", KINDS)
def test_no_vector_is_lost_whenever_the_process_is_killed(kind, tmp_path, servers, killer, record_property):
    rng, lost = np.random.default_rng(0), 0
    ids = [f"n{i}" for i in range(200)]
    originals = rng.normal(size=(200, 8)).astype(np.float32)
    address, root = fill(kind, tmp_path, servers, ids, originals), tmp_path / "v"
    np.savez(tmp_path / "vectors.npz", ids=np.array(ids), originals=originals)
    pushes = 0
    # On a machine so busy that all of them were killed before they pushed anything, the next ones get more time.
    for number, seconds in enumerate([*rng.uniform(0, 0.5, size=ROUNDS), 2, 2, 8, 8, 32, 32]):
        if number >= ROUNDS and pushes:
            break
        job = {"address": address, "vectors": tmp_path / "vectors.npz", "root": root, "action": "loop"}
        assert killer.run(kind, **job, seed=number, seconds=seconds) == signal.SIGKILL
        store = open_store(kind, address)
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
    record_property("fault", "process killed at random moments")
    record_property("store", kind)
    record_property("times", ROUNDS)
    record_property("lost", lost)
    assert lost == 0
    assert pushes > 0
