"""Pushes, rollbacks, ingestion and deaths in any order, against a small model of what must be in the store.

The model knows, for each node, the vector that the application wrote last: its truth. Whatever happens, a node holds
its truth or a nudge of it, its original is its truth, and nobody's vector is lost. More steps with
NUDGE_RAG_MODEL_EXAMPLES.
"""

from __future__ import annotations

import os
import warnings

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import SimpleVectorStore

from nudge_rag import prune, reapply, repair, rollback, status, versions
from nudge_rag.journal.journal import original_vectors
from nudge_rag.journal.push import push_vectors
from nudge_rag.stores import MappingStore, SimpleStore
from nudge_rag.stores.history import ProcessStorage

EXAMPLES = int(os.environ.get("NUDGE_RAG_MODEL_EXAMPLES", "15"))
STEPS = 20
IDS = [f"n{i}" for i in range(5)]
NODES = st.sampled_from(IDS)
SEEDS = st.integers(0, 2**32)


class Killed(BaseException):
    """What a process feels that is killed: nothing after it is done."""


class Mortal:
    """Counts down to the death of a process, in whose writes it stands."""

    def __init__(self):
        self.left = None

    def step(self):
        if self.left is not None:
            if self.left <= 0:
                raise Killed
            self.left -= 1


class MortalStorage:
    """A storage whose writer may die before, or after, any write."""

    location = "a table in the store"

    def __init__(self, storage, mortal):
        self.storage, self.mortal = storage, mortal
        self.read, self.names, self.lock = storage.read, storage.names, storage.lock

    def write(self, name, content):
        self.mortal.step()
        self.storage.write(name, content)
        self.mortal.step()

    def delete(self, name):
        self.mortal.step()
        self.storage.delete(name)


def in_parts(store, mortal, between):
    """Let vectors be written one node at a time, with a possible death and somebody else's write before each."""
    for name in ("replace", "replace_vectors_if"):
        if not callable(getattr(store, name, None)):
            continue
        setattr(store, name, one_by_one(getattr(store, name), mortal, between))
    return store


def one_by_one(write, mortal, between):
    def write_in_parts(ids, *rows):
        left = []
        for row, node_id in enumerate(ids):
            mortal.step()
            between()
            left += write([node_id], *(np.asarray(each)[row : row + 1] for each in rows)) or []
        mortal.step()
        return left

    return write_in_parts


class Pushes(RuleBasedStateMachine):
    """A store in memory that holds its own history, whoever opens it."""

    def __init__(self):
        super().__init__()
        self.storage, self.mortal = ProcessStorage(), Mortal()
        self.truth = dict(zip(IDS, np.random.default_rng(0).normal(size=(len(IDS), 3)), strict=True))
        self.taken = {}  # rows that somebody took away, with what they held
        self.nudges = {node_id: set() for node_id in IDS}
        self.soon = []  # writes of somebody else, in the middle of ours
        self.snapshots = {}  # by version: what the store held before it
        self.make()

    def make(self):
        self.table = {node_id: vector.tolist() for node_id, vector in self.truth.items()}

    def open(self):
        store = MappingStore(self.table, key="test")
        store.history = lambda: MortalStorage(self.storage, self.mortal)
        return in_parts(store, self.mortal, self.interfere)

    # What ingestion does, by the framework's own means.

    def put(self, node_id, vector):
        self.table[node_id] = vector.tolist()

    def take(self, node_id):
        return self.table.pop(node_id)

    def held(self):
        return {node_id: np.array(vector) for node_id, vector in self.table.items()}

    def interfere(self):
        if self.soon:
            node_id, seed = self.soon.pop()
            if node_id in self.held():
                self.embed_again(node_id, seed)

    def embed_again(self, node_id, seed):
        self.truth[node_id] = np.random.default_rng([1, seed]).normal(size=3)
        self.put(node_id, self.truth[node_id])
        self.snapshots.clear()

    @rule(node_id=NODES, seed=SEEDS)
    def somebody_embeds_a_node_again(self, node_id, seed):
        if node_id in self.held():
            self.embed_again(node_id, seed)

    @rule(node_id=NODES)
    def somebody_writes_the_truth_again(self, node_id):
        if node_id in self.held():
            self.put(node_id, self.truth[node_id])
            self.snapshots.clear()

    @rule(node_id=NODES)
    def somebody_takes_a_node_away(self, node_id):
        if node_id in self.held() and len(self.held()) > 1:
            self.taken[node_id] = np.array(self.held()[node_id])
            self.take(node_id)
            self.snapshots.clear()

    @rule(node_id=NODES, as_it_was=st.booleans())
    def somebody_brings_it_back(self, node_id, as_it_was):
        if node_id in self.taken:
            vector = self.taken.pop(node_id)
            self.put(node_id, vector if as_it_was else self.truth[node_id])
            self.snapshots.clear()

    @rule(node_id=NODES, seed=SEEDS)
    def somebody_will_write_in_the_middle(self, node_id, seed):
        self.soon = [(node_id, seed)]

    # What the library does.

    def push(self, chosen, seed):
        ids = [node_id for node_id in chosen if node_id in self.held()]
        if not ids:
            return None
        store = self.open()
        originals = original_vectors(store, ids, store.read(ids))
        moved = store.as_stored(originals + np.random.default_rng([2, seed]).normal(size=originals.shape))
        for node_id, vector in zip(ids, moved, strict=True):
            self.nudges[node_id].add((self.truth[node_id].tobytes(), vector.tobytes()))
        before = self.held()
        receipt = push_vectors(store, ids, originals, moved)
        if receipt.pushed:
            self.snapshots[receipt.version] = before
        if not (receipt.changed_since or receipt.missing):
            held = self.held()
            for node_id, vector in zip(ids, moved, strict=True):
                assert held[node_id].tobytes() == vector.tobytes()
            for node_id in held.keys() - set(ids):
                assert held[node_id].tobytes() == self.truth[node_id].tobytes(), (
                    "nudged no longer: its original is back"
                )
        return receipt

    @rule(chosen=st.lists(NODES, min_size=1, unique=True), seed=SEEDS)
    def push_some(self, chosen, seed):
        self.push(chosen, seed)

    @rule()
    def roll_back(self):
        assert rollback(self.open()).exact
        held = self.held()
        assert {n: v.tobytes() for n, v in held.items()} == {n: self.truth[n].tobytes() for n in held}
        assert status(self.open()).version is None
        self.snapshots.clear()

    @precondition(lambda self: self.snapshots and not self.soon)
    @rule(data=st.data())
    def roll_back_to(self, data):
        """With nobody else about since, what was there before that push is there again, node by node."""
        live = [one.name for one in versions(self.open()) if one.state in ("committed", "superseded")]
        names = [name for name in self.snapshots if name in live]
        if not names:
            return
        name = data.draw(st.sampled_from(names))
        if next(one for one in versions(self.open()) if one.name == name).is_thinned:
            return
        expected = self.snapshots[name]
        assert rollback(self.open(), version=name).exact
        assert {n: v.tobytes() for n, v in self.held().items()} == {n: v.tobytes() for n, v in expected.items()}
        self.snapshots = {number: held for number, held in self.snapshots.items() if number < name}

    @rule()
    def reapply_it(self):
        reapply(self.open())
        self.snapshots.clear()

    @rule(keep=st.integers(0, 2))
    def prune_it(self, keep):
        prune(self.open(), keep=keep)

    @rule()
    def repair_it(self):
        assert repair(self.open()).set_aside == ()

    @rule(
        left=st.integers(0, 40),
        action=st.sampled_from(["push", "rollback", "rollback one", "reapply", "prune"]),
        chosen=st.lists(NODES, min_size=1, unique=True),
        seed=SEEDS,
    )
    def die_in_the_middle(self, left, action, chosen, seed):
        self.mortal.left = left
        try:
            if action == "push":
                self.push(chosen, seed)
            elif action == "rollback one":
                live = [one.name for one in versions(self.open()) if one.is_live and not one.is_thinned]
                if live:
                    rollback(self.open(), version=live[-1])
            else:
                {"rollback": rollback, "reapply": reapply, "prune": prune}[action](self.open())
        except Killed:
            pass
        finally:
            self.mortal.left = None
        self.soon = []
        self.snapshots.clear()

    @invariant()
    def every_vector_is_the_truth_or_a_nudge_of_it(self):
        for node_id, vector in self.held().items():
            truth = self.truth[node_id].tobytes()
            assert vector.tobytes() == truth or (truth, vector.tobytes()) in self.nudges[node_id]

    @invariant()
    def every_original_is_the_truth(self):
        store, held = self.open(), self.held()
        found = original_vectors(store, list(held), store.read(list(held)))
        for node_id, vector in zip(held, found, strict=True):
            assert vector.tobytes() == self.truth[node_id].tobytes()


class PushesToSimple(Pushes):
    """LlamaIndex's SimpleVectorStore in memory."""

    def make(self):
        self.vector_store = SimpleVectorStore()
        for node_id, vector in self.truth.items():
            self.put(node_id, vector)

    def open(self):
        store = SimpleStore(self.vector_store)
        store.history = lambda: MortalStorage(self.storage, self.mortal)
        return in_parts(store, self.mortal, self.interfere)

    def put(self, node_id, vector):
        self.vector_store.add([TextNode(id_=node_id, embedding=vector.tolist())])

    def take(self, node_id):
        self.vector_store.data.embedding_dict.pop(node_id)

    def held(self):
        return {node_id: np.array(vector) for node_id, vector in self.vector_store.data.embedding_dict.items()}


def quiet(machine):
    """The test of a machine, without the warnings that tell of what had died or was left alone."""
    case = machine.TestCase
    case.settings = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize="NUDGE_RAG_MODEL_EXAMPLES" not in os.environ,
    )
    run = case.runTest

    def run_quietly(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run(self)

    case.runTest = run_quietly
    return case


TestPushes = quiet(Pushes)
TestPushesToSimple = quiet(PushesToSimple)
