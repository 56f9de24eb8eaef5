"""SIGKILL during a push and a rollback: afterwards no vector is anything but one of a named version.

At every fourth step, so that the tests stay quick; at every single one with NUDGE_RAG_KILL_EVERY=1.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import lancedb
import numpy as np
import psycopg
import pytest
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import SimpleVectorStore

from nudge_rag import reapply, rollback, versions
from nudge_rag.pushing import push_vectors
from tests.stores.killed_worker import open_store

IDS = [f"n{i}" for i in range(12)]
ORIGINALS, FIRST, SECOND = (np.random.default_rng(seed).normal(size=(12, 4)).astype(np.float32) for seed in range(3))
STEPS_AT_MOST = 60
EVERY = int(os.environ.get("NUDGE_RAG_KILL_EVERY", "4"))


def fill(kind, folder, servers):
    """A store with the originals; its address."""
    if kind == "simple":
        vector_store = SimpleVectorStore()
        vector_store.add([TextNode(id_=n, embedding=v) for n, v in zip(IDS, ORIGINALS.tolist(), strict=True)])
        vector_store.persist(str(folder / "vectors.json"))
        return str(folder / "vectors.json")
    if kind == "lancedb":
        rows = [{"id": n, "vector": v} for n, v in zip(IDS, ORIGINALS.tolist(), strict=True)]
        lancedb.connect(str(folder / "lance")).create_table("nodes", rows)
        return str(folder / "lance")
    uri = servers.address("postgres")
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS killed")
        connection.execute("CREATE TABLE killed (id text, embedding vector(4))")
        for node, vector in zip(IDS, ORIGINALS.tolist(), strict=True):
            connection.execute("INSERT INTO killed VALUES (%s, %s)", [node, str(vector)])
    return uri


def is_one_of(vector, known):
    return any(vector.tobytes() == row.astype(vector.dtype).tobytes() for row in known)


@pytest.mark.parametrize("action", ["push", "rollback"])
@pytest.mark.parametrize("kind", ["simple", "lancedb", "postgres"])
def test_no_vector_is_lost_wherever_the_process_is_killed(kind, action, tmp_path, servers, record_property):
    worker = Path(__file__).with_name("killed_worker.py")
    kills = 0
    for steps in range(0, STEPS_AT_MOST, EVERY):
        folder = tmp_path / str(steps)
        folder.mkdir()
        address = fill(kind, folder, servers)
        store, root = open_store(kind, address), folder / "v"
        push_vectors(store, IDS, ORIGINALS, FIRST, root=root)
        np.savez(folder / "vectors.npz", ids=np.array(IDS), originals=ORIGINALS, nudged=SECOND)
        command = [sys.executable, str(worker), kind, address, str(folder), action, str(steps)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode in (0, -signal.SIGKILL), ended.stderr
        kills += ended.returncode != 0
        store = open_store(kind, address)
        for at, vector in enumerate(store.read(IDS)):
            assert is_one_of(vector, (ORIGINALS[at], FIRST[at], SECOND[at])), (steps, IDS[at])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reapply(store, root)  # finishes or undoes what was left
        if action == "push":
            whole = store.read(IDS)
            assert any(is_one_of(whole, [known]) for known in (FIRST, SECOND)), f"a mixture after {steps} steps"
        assert rollback(store, root).exact
        assert is_one_of(store.read(IDS), [ORIGINALS]), steps
        assert {version.state for version in versions(store, root)} <= {"rolled back", "superseded"}
        if ended.returncode == 0:
            break
    record_property("kills", kills)
    assert kills == steps // EVERY
    assert steps >= 6
