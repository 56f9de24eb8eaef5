"""SIGKILL of processes that share nothing but the store, which holds its history: no vector is lost, nowhere.

At a few steps of each, so that the tests stay quick; at up to NUDGE_RAG_KILL_STEPS, evenly spread over all of them,
and at random moments NUDGE_RAG_KILL_ROUNDS times.
"""

from __future__ import annotations

import itertools
import os
import signal

import numpy as np
import pytest

from nudge_rag import drop_copies, prune, reapply, rollback, status, versions
from nudge_rag.journal.coding import Vectors
from nudge_rag.journal.journal import Journal
from nudge_rag.journal.manifest import SIDE_BY_SIDE
from nudge_rag.journal.push import push_vectors
from nudge_rag.stores import leases
from nudge_rag.stores.lance import large_blobs
from tests.support.databases import close_store
from tests.support.killed_worker import nudged, open_store
from tests.support.killing import at_all, fill, is_whole, losses, quietly
from tests.support.kinds import COPIES, KINDS

pytestmark = pytest.mark.slow

# Numbers, which Qdrant and sqlite-vec take as well.
IDS = [str(number) for number in range(1, 13)]
ORIGINALS = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
FIRST, SECOND = nudged(ORIGINALS, 1), nudged(ORIGINALS, 2)
TRIED = int(os.environ.get("NUDGE_RAG_KILL_STEPS", "2"))
ROUNDS = int(os.environ.get("NUDGE_RAG_KILL_ROUNDS", "2"))
# Of those whose every call takes long, fewer steps.
SLOW = ("chroma", "chroma-server", "milvus", "milvus-server")
CASES = [(kind, action) for kind in KINDS for action in ("push", "rollback", "recover", "switch")]
CASES = [(kind, action) for kind, action in CASES if action != "switch" or kind in COPIES]
# What all nodes hold afterwards: one of these, and no mixture.
AFTER = {
    "push": (FIRST, SECOND),
    "rollback": (ORIGINALS, FIRST),
    "recover": (FIRST,),
    "switch": (FIRST, SECOND),
}
# Only one process is alive at a time: nobody's write has to be waited for.
SETTLE = 0.01


@pytest.fixture(autouse=True)
def settled(monkeypatch):
    monkeypatch.setattr(leases, "SECONDS_TO_SETTLE", SETTLE)


def prepare(action, store):
    """What the process to be killed finds: a push; also one that died half-way, or one that waits beside it."""
    push_vectors(store, IDS, ORIGINALS, FIRST)
    if action == "switch":
        push_vectors(store, IDS, ORIGINALS, SECOND, mode=SIDE_BY_SIDE)
    if action == "recover":
        journal = Journal.open(store)
        parts = (part.astype(store.capabilities.dtype) for part in (ORIGINALS, FIRST, SECOND))
        died = journal.record(IDS, Vectors(*parts), {})
        died.set_state("writing")
        store.replace(IDS[:7], SECOND[:7])


class Trial:
    """One process that is killed at one of its steps, on a store of its own."""

    def __init__(self, kind, action, folder, servers, killer, **options):
        folder.mkdir()
        self.kind, self.action, self.folder, self.killer, self.options = kind, action, folder, killer, options
        self.address = fill(kind, folder, servers, IDS, ORIGINALS)
        np.savez(folder / "vectors.npz", ids=np.array(IDS), originals=ORIGINALS)
        store = open_store(kind, self.address)
        prepare(action, store)
        close_store(kind, store)

    def run(self, steps):
        """Let it die at that step; the signal by which it did, 0 if it came to its end."""
        job = {"address": self.address, "vectors": self.folder / "vectors.npz", "root": None, "action": self.action}
        job |= {"counted": self.folder / "counted", "settle": SETTLE, **self.options}
        return self.killer.run(self.kind, **job, number=2, steps=steps)

    def losses(self):
        """Assert that all is right again; how many vectors were lost on the way there."""
        store = open_store(self.kind, self.address)
        lost = losses(store, IDS, ORIGINALS, FIRST, SECOND)
        quietly(reapply, store)  # finishes or undoes what was left
        assert is_whole(store, IDS, *AFTER[self.action])
        assert quietly(rollback, store).exact
        if self.kind in COPIES:
            quietly(drop_copies, store)
        lost += losses(store, IDS, ORIGINALS)
        assert status(store).version is None
        assert {version.state for version in versions(store)} <= {"rolled back", "superseded"}
        close_store(self.kind, store)
        return lost


@pytest.mark.parametrize(("kind", "action"), CASES)
def test_no_vector_is_lost_wherever_the_process_is_killed(kind, action, tmp_path, servers, killer, record_property):
    whole = Trial(kind, action, tmp_path / "whole", servers, killer)
    assert whole.run(1_000_000) == 0
    n_steps = int((whole.folder / "counted").read_text())
    assert n_steps >= 4
    lost = whole.losses()
    n_tried = min(TRIED // 4 or 1 if kind in SLOW else TRIED, n_steps)
    tried = np.unique(np.linspace(0, n_steps - 1, n_tried).round().astype(int)).tolist()
    for steps in tried:
        trial = Trial(kind, action, tmp_path / str(steps), servers, killer)
        assert trial.run(steps) == signal.SIGKILL
        lost += trial.losses()
    told = {"fault": f"{FAULT} at a step", "store": kind, "times": len(tried), "steps": n_steps, "lost": lost}
    for name, value in told.items():
        record_property(name, value)
    assert lost == 0


@pytest.mark.parametrize("action", ["push", "rollback", "recover", "switch"])
def test_no_vector_is_lost_whose_record_has_a_table_of_its_own(action, tmp_path, servers, killer, monkeypatch):
    monkeypatch.setattr(large_blobs, "BYTES_OF_A_ROW", 0)
    whole = Trial("lancedb", action, tmp_path / "whole", servers, killer, bytes_of_a_row=0)
    assert whole.run(1_000_000) == 0
    assert list((tmp_path / "whole").rglob("blob-*.lance"))
    n_steps = int((whole.folder / "counted").read_text())
    assert n_steps >= 4
    lost = whole.losses()
    for steps in np.unique(np.linspace(0, n_steps - 1, min(TRIED, n_steps)).round().astype(int)).tolist():
        trial = Trial("lancedb", action, tmp_path / str(steps), servers, killer, bytes_of_a_row=0)
        assert trial.run(steps) == signal.SIGKILL
        lost += trial.losses()
    assert lost == 0


FAULT = "process killed that shares nothing but the store,"


@pytest.mark.parametrize("kind", KINDS)
def test_no_vector_is_lost_whenever_the_process_is_killed(kind, tmp_path, servers, killer, record_property):
    rng, lost, n_recorded = np.random.default_rng(0), 0, 0
    ids = [str(number) for number in range(1, 201)]
    originals = rng.normal(size=(200, 8)).astype(np.float32)
    address = fill(kind, tmp_path, servers, ids, originals)
    np.savez(tmp_path / "vectors.npz", ids=np.array(ids), originals=originals)
    job = {"address": address, "vectors": tmp_path / "vectors.npz", "root": None, "action": "loop"}
    # The first has time to push something, however busy the machine is; the others are killed whenever it happens.
    moments = itertools.chain([0.25, 2.0, 16.0], rng.uniform(0, 1, size=ROUNDS - 1))
    for number, seconds in enumerate(moments):
        if 0 < number < 3 and n_recorded:
            continue
        assert killer.run(kind, **job, seed=number, seconds=seconds, settle=SETTLE) == signal.SIGKILL
        store = open_store(kind, address)
        recorded = versions(store)
        n_recorded += len(recorded)
        written = [at_all(ids, originals, version) for version in recorded]
        lost += losses(store, ids, originals, *written)
        quietly(reapply, store)
        assert is_whole(store, ids, originals, *written)
        if number % 2:
            assert quietly(rollback, store).exact
            lost += losses(store, ids, originals)
            quietly(prune, store)
        close_store(kind, store)
    for name, value in {"fault": f"{FAULT} at random", "store": kind, "times": ROUNDS, "lost": lost}.items():
        record_property(name, value)
    assert lost == 0
    assert n_recorded > 0
