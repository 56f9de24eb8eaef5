"""Two processes push to one store, or roll back, at the same time: one waits or is refused, and nothing is mixed."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from nudge_rag import rollback, status, versions
from nudge_rag.journal.push import push_vectors
from tests.support.killed_worker import nudged, open_store
from tests.support.killing import KINDS, Killer, fill, is_whole, losses, quietly

IDS = [f"n{i}" for i in range(12)]
ORIGINALS = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
FIRST, SECOND, THIRD = (nudged(ORIGINALS, number) for number in (1, 2, 3))
FAULT = "two processes at once"
NEVER = 1_000_000
PAUSE = 0.02


@pytest.fixture
def two():
    """Two processes that fork one more for every job."""
    return Killer(), Killer()


@pytest.fixture(params=[*KINDS, "chroma-server"])
def kind(request):
    return request.param


def job_of(kind, folder, servers):
    """A store with a push, and what the others need to know of it."""
    address, root = fill(kind, folder, servers, IDS, ORIGINALS), folder / "v"
    push_vectors(open_store(kind, address), IDS, ORIGINALS, FIRST, versions=root)
    np.savez(folder / "vectors.npz", ids=np.array(IDS), originals=ORIGINALS)
    return {"address": address, "vectors": folder / "vectors.npz", "root": root}


def act(killer, kind, action, number, report, job):
    """What another process said: nothing, or the name of an error's class."""
    assert killer.run(kind, action=action, number=number, report=report, **job) == 0
    return json.loads(report.read_text())["kinds"][0] if report.stat().st_size else None


def at_once(two, kind, folder, job, actions):
    slowly = {"steps": NEVER, "pause": PAUSE, "patience": 60.0, **job}
    with ThreadPoolExecutor(2) as pool:
        doing = [
            pool.submit(act, killer, kind, action, number, folder / f"report-{number}", slowly)
            for killer, action, number in zip(two, actions, (2, 3), strict=True)
        ]
    assert [one.result() for one in doing] == [None, None]


def test_two_pushes(kind, two, tmp_path, servers, record_property):
    job = job_of(kind, tmp_path, servers)
    at_once(two, kind, tmp_path, job, ("push", "push"))
    store, root = open_store(kind, job["address"]), job["root"]
    every = versions(store, root)
    assert [version.state for version in every] == ["superseded", "superseded", "committed"]
    assert is_whole(store, IDS, {2: SECOND, 3: THIRD}[every[-1].manifest["details"]["number"]])
    assert status(store, root).nudged == tuple(IDS)
    assert rollback(store, root).exact
    record(record_property, kind, losses(store, IDS, ORIGINALS))


@pytest.mark.parametrize("action", ["push", "rollback", "recover"])
def test_one_in_the_middle_of_another(kind, two, action, tmp_path, servers, record_property):
    """Another process tries while this one has written half of its vectors."""
    job = job_of(kind, tmp_path, servers)
    store, root, said = open_store(kind, job["address"]), job["root"], []

    def in_halves(write):
        def write_in_halves(ids, *rows):
            left = write(ids[:6], *(each[:6] for each in rows)) or []
            said.append(act(two[0], kind, action, 3, tmp_path / "report", {**job, "patience": 0.1}))
            return left + (write(ids[6:], *(each[6:] for each in rows)) or [])

        return write_in_halves

    name = "replace_vectors_if" if hasattr(store, "replace_vectors_if") else "replace"
    setattr(store, name, in_halves(getattr(store, name)))
    assert push_vectors(store, IDS, ORIGINALS, SECOND, versions=root).pushed
    assert said == ["LockedError"]
    store = open_store(kind, job["address"])
    assert is_whole(store, IDS, SECOND)
    assert [version.state for version in versions(store, root)] == ["superseded", "committed"]
    assert rollback(store, root).exact
    record(record_property, kind, losses(store, IDS, ORIGINALS), refused=1)


def record(record_property, kind, lost, refused=0):
    for name, value in {"fault": FAULT, "store": kind, "times": 1, "lost": lost, "refused": refused}.items():
        record_property(name, value)
    assert lost == 0


def test_a_push_and_a_rollback(kind, two, tmp_path, servers, record_property):
    job = job_of(kind, tmp_path, servers)
    at_once(two, kind, tmp_path, job, ("push", "rollback"))
    store, root = open_store(kind, job["address"]), job["root"]
    assert is_whole(store, IDS, ORIGINALS, SECOND)
    live = status(store, root)
    if is_whole(store, IDS, SECOND):
        assert (live.state, live.nudged) == ("committed", tuple(IDS))
    else:
        assert live.state is None
    quietly(rollback, store, root)
    record(record_property, kind, losses(store, IDS, ORIGINALS))
