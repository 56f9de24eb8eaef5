"""SIGKILL while all nodes are mapped in blocks: what was going on is finished or undone, and the originals come back.

At every seventh step, so that the tests stay quick; at every single one with NUDGE_RAG_KILL_EVERY=1.
"""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

import nudge_rag.journal.blocks
from nudge_rag import drop_copies, reapply, rollback, status, versions
from nudge_rag.journal.manifest import SIDE_BY_SIDE
from nudge_rag.journal.push import push_vectors
from tests.support.killed_worker import map_of_nodes, nudged, open_store, push_map
from tests.support.killing import KINDS, Killer, fill, quietly, switch

pytestmark = pytest.mark.slow

IDS = [f"n{i}" for i in range(12)]
ORIGINALS = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
NUDGED = nudged(ORIGINALS, 1)
# Five nodes a block.
NUMBERS = 20
STEPS_AT_MOST = 400
EVERY = int(os.environ.get("NUDGE_RAG_KILL_EVERY", "7"))
BESIDE_KINDS = [kind for kind in KINDS if kind != "faiss"]


def mapped():
    """(I + B^T) v at the length of v, by the equation; the first node has a vector of its own."""
    wide = ORIGINALS.astype(np.float64)
    turned = wide + wide @ map_of_nodes(4).change.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True) / np.linalg.norm(turned, axis=1, keepdims=True)
    wanted = turned * lengths
    wanted[0] = nudged(ORIGINALS, 3)[0]
    return wanted


MAPPED = mapped()


def is_whole(store, *known):
    found = store.read(IDS)
    return any(np.allclose(found, one, atol=1e-6) for one in known)


def holds_only(store, *known):
    found = store.read(IDS)
    return all(any(np.allclose(row, one[at], atol=1e-6) for one in known) for at, row in enumerate(found))


@pytest.fixture
def killer():
    return Killer()


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(nudge_rag.journal.blocks, "NUMBERS_PER_BLOCK", NUMBERS)


def kill_at_every_step(kind, action, tmp_path, servers, killer, prepare):
    """Give, for each step at which a process was killed, the store and its history; the last one ran to its end."""
    for steps in range(0, STEPS_AT_MOST, EVERY):
        folder = tmp_path / str(steps)
        folder.mkdir()
        address = fill(kind, folder, servers, IDS, ORIGINALS)
        root = folder / "v"
        prepare(open_store(kind, address), root)
        np.savez(folder / "vectors.npz", ids=np.array(IDS), originals=ORIGINALS)
        job = {"address": address, "vectors": folder / "vectors.npz", "root": root, "action": action}
        ended = killer.run(kind, **job, numbers=NUMBERS, steps=steps)
        assert ended in (0, signal.SIGKILL)
        yield open_store(kind, address), root
        if ended == 0:
            assert steps > 0
            return
    raise AssertionError("no process ran to its end")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("over", ["originals", "nudged"])
def test_a_map_in_place(kind, over, tmp_path, servers, killer):
    def prepare(store, root):
        if over == "nudged":
            push_vectors(store, IDS, ORIGINALS, NUDGED, versions=root)

    before = NUDGED if over == "nudged" else ORIGINALS
    for store, root in kill_at_every_step(kind, "map", tmp_path, servers, killer, prepare):
        assert holds_only(store, before, MAPPED)
        quietly(reapply, store, root)
        assert is_whole(store, before, MAPPED)
        assert rollback(store, root).exact
        assert store.read(IDS).tobytes() == ORIGINALS.astype(store.capabilities.dtype).tobytes()
        assert {version.state for version in versions(store, root)} <= {"rolled back", "superseded"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_rollback_of_a_map_in_place(kind, tmp_path, servers, killer):
    def prepare(store, root):
        push_map(store, root, IDS, ORIGINALS, "in-place")
        assert is_whole(store, MAPPED)

    for store, root in kill_at_every_step(kind, "rollback", tmp_path, servers, killer, prepare):
        assert holds_only(store, ORIGINALS, MAPPED)
        rollback(store, root)
        assert store.read(IDS).tobytes() == ORIGINALS.astype(store.capabilities.dtype).tobytes()
        assert status(store, root).version is None


@pytest.mark.parametrize("kind", BESIDE_KINDS)
@pytest.mark.parametrize("action", ["map-beside", "switch", "rollback", "drop"])
def test_a_map_beside(kind, action, tmp_path, servers, killer):
    def prepare(store, root):
        if action != "map-beside":
            push_map(store, root, IDS, ORIGINALS, SIDE_BY_SIDE)
        if action in ("rollback", "drop"):
            switch(store, root)
            assert is_whole(store, MAPPED)

    live = {"map-beside": [ORIGINALS], "drop": [MAPPED]}.get(action, [ORIGINALS, MAPPED])
    for store, root in kill_at_every_step(kind, action, tmp_path, servers, killer, prepare):
        assert is_whole(store, *live)
        quietly(reapply, store, root)  # finishes or undoes what was left
        assert is_whole(store, *live)
        if action == "drop":
            quietly(drop_copies, store, root)
        assert rollback(store, root).exact
        assert store.read(IDS).tobytes() == ORIGINALS.astype(store.capabilities.dtype).tobytes()
        quietly(drop_copies, store, root)
        assert store.read(IDS).tobytes() == ORIGINALS.astype(store.capabilities.dtype).tobytes()
