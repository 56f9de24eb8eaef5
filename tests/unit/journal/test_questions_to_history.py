"""How often a history is asked for its names: each question to a database takes milliseconds."""

from __future__ import annotations

import numpy as np
import pytest

from nudge_rag.errors import JournalError
from nudge_rag.journal.ownership import find_home
from nudge_rag.journal.push import push_vectors
from nudge_rag.journal.store_record import ELSEWHERE, write_json
from nudge_rag.stores import MappingStore
from nudge_rag.stores.storages import ProcessStorage

IDS = [f"n{i}" for i in range(6)]
ORIGINALS = np.random.default_rng(0).normal(size=(6, 3))


class Counting(ProcessStorage):
    """Notes what it is asked, and lets somebody else act before it reads the mark of a folder."""

    def __init__(self):
        super().__init__()
        self.asked = []
        self.before_mark = lambda: None

    def names(self, prefix=""):
        self.asked.append(f"names {prefix}".strip())
        return super().names(prefix)

    def read(self, name):
        self.asked.append(f"read {name}")
        if name == ELSEWHERE:
            self.before_mark()
        return super().read(name)


class Owning(MappingStore):
    """Holds its own history, as if in a database."""

    def __init__(self, storage):
        super().__init__(dict(zip(IDS, ORIGINALS.tolist(), strict=True)), key="test")
        self.storage = storage

    def history(self):
        return self.storage


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Owning(Counting())


def push(store):
    push_vectors(store, IDS, ORIGINALS, ORIGINALS + 1)


def test_one_question_finds_a_history(store):
    push(store)
    store.storage.asked.clear()
    assert find_home(store, None).storage is store.storage
    assert store.storage.asked == ["names"]


def test_a_store_without_a_history_is_asked_again(store):
    assert find_home(store, None).storage is store.storage
    # In between, another process may have made the first push.
    assert store.storage.asked == ["names", "names"]


def test_steps_of_a_push_ask_no_more_than_the_record_did(store):
    push(store)
    of_version = [question for question in store.storage.asked if question == "names 0001/"]
    assert len(of_version) == 1  # whether its name is taken


def test_a_mark_that_is_taken_away_meanwhile_has_left_a_history(store):
    push(store)
    kept = {name: store.storage.read(name) for name in store.storage.names()}
    for name in kept:
        store.storage.delete(name)
    write_json(store.storage, ELSEWHERE, {"folder": "/elsewhere/test"})

    def take_over():
        for name, content in kept.items():
            store.storage.write(name, content)
        store.storage.delete(ELSEWHERE)

    store.storage.before_mark = take_over
    with pytest.raises(JournalError, match="holds its history itself"):
        find_home(store, "versions")
