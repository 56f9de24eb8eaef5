"""Three processes push, switch and roll back at once, and share nothing but the store: no vector is beyond rollback.

Each has a working directory of its own. A few calls of each, so that the tests stay quick; NUDGE_RAG_RACE_ROUNDS calls
with that set.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from nudge_rag import drop_copies, repair, rollback, status
from nudge_rag.journal.journal import original_vectors
from tests.support.databases import EXCLUSIVE
from tests.support.killed_worker import open_store
from tests.support.killing import Killer, fill, losses, quietly
from tests.support.kinds import COPIES, KINDS

pytestmark = pytest.mark.slow

RACERS = 3
ROUNDS = int(os.environ.get("NUDGE_RAG_RACE_ROUNDS", "4"))
# They wait for each other at most this long for each call.
SECONDS_PER_CALL = 300.0
IDS = [str(number) for number in range(1, 41)]
ORIGINALS = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)


@pytest.fixture
def racers():
    return [Killer() for _ in range(RACERS)]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in EXCLUSIVE])
def test_no_vector_is_beyond_rollback(kind, racers, tmp_path, servers, record_property):
    address = fill(kind, tmp_path, servers, IDS, ORIGINALS)
    np.savez(tmp_path / "vectors.npz", ids=np.array(IDS), originals=ORIGINALS)

    def run(number):
        place = tmp_path / f"racer-{number}"
        place.mkdir()
        job = {"address": address, "vectors": tmp_path / "vectors.npz", "root": None, "cwd": place, "action": "race"}
        more = {"seed": number, "rounds": ROUNDS, "patience": SECONDS_PER_CALL, "counted": place / "counted"}
        assert racers[number].run(kind, **job, **more) == 0
        return json.loads((place / "counted").read_text())

    with ThreadPoolExecutor(RACERS) as pool:
        counts = list(pool.map(run, range(RACERS)))
    n_calls = sum(sum(counted.values()) for counted in counts)
    refused = sum(n for counted in counts for action, n in counted.items() if action.startswith("refused"))
    pushes = [sum(n for action, n in counted.items() if action.startswith("push")) for counted in counts]
    store = open_store(kind, address)
    assert quietly(repair, store).set_aside == ()
    # Whoever looks at a nudged vector finds its original, and undoes it.
    found = original_vectors(store, IDS, store.read(IDS))
    lost = sum(row.tobytes() != want.tobytes() for row, want in zip(found, ORIGINALS.astype(found.dtype), strict=True))
    assert quietly(rollback, store).exact
    lost = max(lost, losses(store, IDS, ORIGINALS))
    assert status(store).version is None
    if kind in COPIES:
        quietly(drop_copies, store)
        assert losses(store, IDS, ORIGINALS) == 0
    told = {"fault": "three processes that race", "store": kind, "times": n_calls, "refused": refused, "lost": lost}
    for name, value in told.items():
        record_property(name, value)
    assert n_calls == RACERS * ROUNDS
    assert sum(pushes) > 0
    assert lost == 0
