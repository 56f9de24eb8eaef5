"""Qdrant's aliases: readers on the same client during switches, calls that fail, and SIGKILL in local mode's folder."""

from __future__ import annotations

import os
import signal
import sys
import threading
import uuid
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import qdrant_client.local.qdrant_local
from qdrant_client import QdrantClient

import nudge_rag.stores.qdrant.copies
from nudge_rag import PushError, drop_copies, rollback, switch, versions
from nudge_rag.journal.manifest import SIDE_BY_SIDE
from nudge_rag.journal.push import push_vectors
from nudge_rag.stores import QdrantStore, StoreError
from tests.support import qdrant_killed_worker
from tests.support.killed_worker import nudged
from tests.support.killing import Killer, is_whole, quietly
from tests.support.qdrant_killed_worker import ALIAS, CALLS, fill, open_store
from tests.support.reading_worker import seen

IDS = [str(uuid.uuid5(uuid.NAMESPACE_URL, f"n{i}")) for i in range(12)]
ORIGINALS = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
MOVED = nudged(ORIGINALS, 2)
LOOKS = np.array([[1.0, 0.5, -0.5, 0.25]])
ROUNDS, SWITCHES = 6, 30
# Odd, so that it stops before some calls and after others.
EVERY = int(os.environ.get("NUDGE_RAG_KILL_EVERY", "5"))
ACTIONS = ["push-beside", "switch", "rollback", "drop"]


def push(store, root):
    return push_vectors(store, IDS, ORIGINALS, MOVED, versions=root, mode=SIDE_BY_SIDE)


def act(action, store, root):
    return {"push-beside": push, "switch": switch, "rollback": rollback, "drop": drop_copies}[action](store, root)


def prepare(action, store, root):
    """What has been done before the action."""
    if action != "push-beside":
        push(store, root)
    if action in ("rollback", "drop"):
        switch(store, root)


def assert_one_or_the_other(action, store, *, done):
    """Whole, and the one that the action may leave: after a failure the one before or the one after."""
    before = MOVED if action in ("rollback", "drop") else ORIGINALS
    after = MOVED if action in ("switch", "drop") else ORIGINALS
    assert is_whole(store, IDS, after, *([] if done else [before]))


def assert_put_right(store, root):
    """By the next calls: the originals are back, a push goes through as ever, and nothing is left over."""
    assert quietly(rollback, store, root).exact
    assert is_whole(store, IDS, ORIGINALS)
    quietly(push, store, root)
    assert is_whole(store, IDS, ORIGINALS)
    switch(store, root)
    assert is_whole(store, IDS, MOVED)
    assert rollback(store, root).exact
    drop_copies(store, root)
    assert is_whole(store, IDS, ORIGINALS)
    assert {version.state for version in versions(store, root)} == {"rolled back"}
    (alias,) = store.client.get_aliases().aliases
    names = [collection.name for collection in store.client.get_collections().collections]
    names.remove(f"{ALIAS}__nudge_rag_history")
    assert [alias.collection_name] == names
    assert alias.alias_name == ALIAS
    points, _ = store.client.scroll(ALIAS, limit=100)
    assert {point.id: point.payload for point in points} == {node: {"number": at} for at, node in enumerate(IDS)}


@pytest.mark.slow
@pytest.mark.parametrize("on_disk", [False, True])
def test_readers_on_the_same_client_see_one_version_or_the_other(on_disk, tmp_path, record_property):
    """One thread searches by a store that it keeps, another opens the alias anew for every search."""
    client = QdrantClient(path=str(tmp_path / "qdrant")) if on_disk else QdrantClient(":memory:")
    store, root = fill(client, IDS, ORIGINALS), tmp_path / "v"
    push(store, root)
    (label,) = store.copy_labels()
    known = [seen(one, LOOKS, 12) for one in (store, store.open_copy(label))]
    assert known[0] != known[1]
    drop_copies(store, root)
    answers, errors, done = (Counter(), Counter()), [], threading.Event()

    def read(number, opened):
        while not done.is_set():
            try:
                answers[number][seen(opened(), LOOKS, 12)] += 1
            except Exception as error:
                errors.append(error)

    kept = QdrantStore(client, ALIAS)
    readers = [lambda: kept, lambda: QdrantStore(client, ALIAS)]
    threads = [threading.Thread(target=read, args=one) for one in enumerate(readers)]
    for thread in threads:
        thread.start()
    try:
        for round_ in range(ROUNDS):
            push(store, root)
            (label,) = store.copy_labels()
            for _ in range(SWITCHES):
                store.switch(label)
            switch(store, root)
            done.wait(0.02 * (round_ % 3))
            assert rollback(store, root).exact
            done.wait(0.02 * (round_ % 2))
            if round_ % 2:
                drop_copies(store, root)
            if round_ >= ROUNDS // 2 and all(len(found) == 2 for found in answers):
                break
    finally:
        done.set()
        for thread in threads:
            thread.join()
    record_property("answers", [list(one.values()) for one in answers])
    assert not errors, errors[:3]
    for found in answers:
        assert set(found) == set(known)


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_reader_between_any_two_lines_of_a_switch_sees_one_version_or_the_other(on_disk, tmp_path):
    """Threads seldom meet the moment: here every line of the switch, and of the client, is followed by a search."""
    client = QdrantClient(path=str(tmp_path / "qdrant")) if on_disk else QdrantClient(":memory:")
    store = fill(client, IDS, ORIGINALS)
    store.create_copy("a").replace(IDS, MOVED)
    known, answers = [seen(one, LOOKS, 12) for one in (store, store.open_copy("a"))], []
    lines_of = (nudge_rag.stores.qdrant.copies.__file__, qdrant_client.local.qdrant_local.__file__)

    def look(frame, event, argument):
        if frame.f_code.co_filename not in lines_of:
            return None
        if event == "line":
            try:
                answers.append(seen(store, LOOKS, 12))
            except Exception as error:
                answers.append(repr(error))
        return look

    before = sys.gettrace()
    sys.settrace(look)
    try:
        store.switch("a")
    finally:
        sys.settrace(before)
    assert answers == sorted(answers, key=known.index)
    assert set(answers) == set(known)


class Lost(Exception):
    """The connection is."""


class CutOff:
    """A client whose call raises when none is left, before its work or after it; with ``down`` all later ones too."""

    def __init__(self, client, *, after, down):
        self.inner, self.after, self.down, self.left = client, after, down, None

    def __getattr__(self, name):
        method = getattr(self.inner, name)
        return (lambda *arguments, **options: self.call(method, arguments, options)) if name in CALLS else method

    def call(self, method, arguments, options):
        if self.left is not None:
            self.left -= 1
            if self.left == -1 or (self.left < 0 and self.down):
                if self.after and self.left == -1:
                    method(*arguments, **options)
                raise Lost
        return method(*arguments, **options)


@pytest.mark.slow
@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("action", ACTIONS)
def test_whichever_call_fails_one_version_or_the_other_is_live(action, after, down, tmp_path, record_property):
    failures = 0
    for calls in range(400):
        root = tmp_path / str(calls)
        cut = CutOff(QdrantClient(":memory:"), after=after, down=down)
        store = fill(cut, IDS, ORIGINALS)
        prepare(action, store, root)
        cut.left = calls
        try:
            quietly(act, action, store, root)
        except (PushError, StoreError):
            failed = True
        else:
            failed = False
        ended, cut.left = cut.left >= 0, None
        failures += failed
        assert_one_or_the_other(action, store, done=not failed)
        # A rollback that failed did not fall back to writing node by node, which readers would have seen.
        assert all(version.is_beside or action == "drop" for version in versions(store, root))
        assert_put_right(store, root)
        if ended:
            break
    record_property("failures", failures)
    assert ended
    assert not failed
    assert failures > 4


@pytest.fixture
def killer():
    return Killer(Path(qdrant_killed_worker.__file__))


@pytest.mark.slow
@pytest.mark.parametrize("action", ACTIONS)
def test_wherever_the_process_is_killed_one_version_or_the_other_is_live(action, tmp_path, killer, record_property):
    kills = 0
    for steps in range(0, 1000, EVERY):
        folder = tmp_path / str(steps)
        address, root = folder / "qdrant", folder / "v"
        store = fill(QdrantClient(path=str(address)), IDS, ORIGINALS)
        prepare(action, store, root)
        store.client.close()
        np.savez(folder / "vectors.npz", ids=np.array(IDS), originals=ORIGINALS)
        job = {"address": address, "vectors": folder / "vectors.npz", "root": root, "action": action}
        ended = killer.run("qdrant", **job, number=2, steps=steps)
        assert ended in (0, signal.SIGKILL)
        kills += ended != 0
        store = open_store("qdrant", str(address))
        assert_one_or_the_other(action, store, done=ended == 0)
        assert_put_right(store, root)
        store.client.close()
        if ended == 0:
            break
    record_property("kills", kills)
    assert kills == steps // EVERY > 0
