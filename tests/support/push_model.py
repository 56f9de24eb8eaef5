"""A small model of what must be in a store, whatever pushes, rollbacks, ingestion and deaths come in any order.

It knows, for each node, the vector that the application wrote last: its truth. Whatever happens, a node holds its truth
or a nudge of it, its original is its truth, and nobody's vector is lost.
"""

from __future__ import annotations

import shutil
import tempfile
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nudge_rag import (
    LabeledPairs,
    PushError,
    Split,
    drop_copies,
    prune,
    reapply,
    repair,
    rollback,
    status,
    switch,
    tune,
    versions,
)
from nudge_rag.journal.journal import original_vectors
from nudge_rag.journal.push import push_vectors

# Numbers, which Qdrant and sqlite-vec take as well.
IDS = [str(number) for number in range(1, 6)]
DIMENSION = 4
NODES = st.sampled_from(IDS)
SEEDS = st.integers(0, 2**32)


# Whose object opens the store: the adapter itself, or what a framework has for it.
WAYS = ("connect", "connect_by_langchain", "connect_by_llama_index")


def embed(texts):
    """Queries of a node ask for the same in all parts of a split, whatever else they say."""
    asked = [text.partition(":")[0] for text in texts]
    return np.stack([np.random.default_rng(zlib.crc32(text.encode())).normal(size=DIMENSION) for text in asked])


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

    def around(self, call):
        def in_steps(*given):
            self.step()
            found = call(*given)
            self.step()
            return found

        return in_steps


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
    """A store that holds its own history, whoever opens it.

    Attributes:
        beside: whether it holds copies.
        waits: whether others wait for a push to end, which is one transaction.
        dtype: of its vectors.
        server: kind of server that it needs, None for one in the process.
        address: of that server.
        steps: how many were taken, in all runs.
    """

    beside, waits, dtype, server, address = False, False, np.float32, None, None
    steps = 0

    def __init__(self):
        super().__init__()
        self.mortal, self.folder = Mortal(), Path(tempfile.mkdtemp(prefix="nudge-rag-model-"))
        rows = np.random.default_rng(0).normal(size=(len(IDS), DIMENSION)).astype(self.dtype)
        self.truth = dict(zip(IDS, rows, strict=True))
        self.taken = {}  # rows that somebody took away, with what they held
        self.nudges = {node_id: set() for node_id in IDS}
        self.soon = []  # writes of somebody else, in the middle of ours
        self.pruned = False  # some records may be gone
        self.way = WAYS[0]
        self.snapshots = {}  # by version: what the store held before it
        self.make()

    def teardown(self):
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # What a database's module in push_model_stores gives.

    def make(self):
        """Make the database, with the nodes."""
        raise NotImplementedError

    def connect(self):
        """An adapter, as somebody makes one who opens the store."""
        raise NotImplementedError

    def put(self, node_id, vector):
        """What ingestion does: a node is added or replaced."""
        raise NotImplementedError

    def take(self, node_id):
        """What ingestion does: a node is deleted."""
        raise NotImplementedError

    def held(self):
        """The vector of every node, read without the adapter."""
        raise NotImplementedError

    def close(self):
        """Let go of the database."""

    def open(self):
        store = getattr(self, self.way)()
        own = store.history()
        store.history = lambda: MortalStorage(own, self.mortal)
        if self.beside:
            for name in ("catch_up_and_switch", "drop_copy"):
                setattr(store, name, self.mortal.around(getattr(store, name)))
            create = self.mortal.around(store.create_copy)
            store.create_copy = lambda label: in_parts(create(label), self.mortal, lambda: None)
        return in_parts(store, self.mortal, self.interfere)

    def interfere(self):
        if self.soon:
            node_id, seed = self.soon.pop()
            if node_id in self.held():
                self.embed_again(node_id, seed)

    def embed_again(self, node_id, seed):
        self.truth[node_id] = np.random.default_rng([1, seed]).normal(size=DIMENSION).astype(self.dtype)
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
        held = self.held()
        if node_id in held and len(held) > 1:
            self.taken[node_id] = np.array(held[node_id])
            self.take(node_id)
            self.snapshots.clear()

    @rule(node_id=NODES, as_it_was=st.booleans())
    def somebody_brings_it_back(self, node_id, as_it_was):
        if node_id in self.taken:
            vector = self.taken.pop(node_id)
            self.put(node_id, vector if as_it_was else self.truth[node_id])
            self.snapshots.clear()

    @rule(chosen=st.lists(NODES, min_size=1, unique=True), seed=SEEDS)
    def somebody_restores_what_a_rollback_undid(self, chosen, seed):
        """A backup, or a file that was read before and is saved after it: it is told, and undone as before."""
        self.then(lambda: self.push_some(chosen, seed), self.reapply_it)
        before = {node_id: np.array(vector) for node_id, vector in self.held().items()}
        truth = dict(self.truth)
        self.roll_back()
        nudged = {n for n, vector in before.items() if vector.tobytes() != truth[n].tobytes()}
        back = {n for n in nudged if self.truth[n].tobytes() == truth[n].tobytes() and n in self.held()}
        for node_id in back:
            self.put(node_id, before[node_id])
        self.snapshots.clear()
        found = status(self.open())
        assert found.version is None
        assert {*found.returned, *found.mapped} == back
        self.then(self.every_original_is_the_truth, lambda: self.push_some(chosen[:1], seed + 1) if seed % 2 else None)
        self.roll_back()
        assert status(self.open()).returned == ()

    @precondition(lambda self: any(hasattr(self, way) for way in WAYS[1:]))
    @rule(way=st.sampled_from(WAYS))
    def it_is_opened_by_another(self, way):
        """Whoever opens the store from now on does it by this object."""
        self.way = way if hasattr(self, way) else WAYS[0]

    @rule(node_id=NODES, seed=SEEDS)
    def somebody_will_write_in_the_middle(self, node_id, seed):
        self.soon = [] if self.waits else [(node_id, seed)]

    # What the library does.

    def push(self, chosen, seed, mode="in-place"):
        ids = [node_id for node_id in chosen if node_id in self.held()]
        if not ids:
            return
        if mode != "in-place":
            repair(self.open())
            ids = [node_id for node_id in ids if node_id in self.held()]
        store = self.open()
        originals = original_vectors(store, ids, store.read(ids))
        moved = store.as_stored(originals + np.random.default_rng([2, seed]).normal(size=originals.shape))
        for node_id, vector in zip(ids, moved, strict=True):
            self.nudges[node_id].add((self.truth[node_id].tobytes(), vector.tobytes()))
        self.carry_out(lambda: push_vectors(store, ids, originals, moved, mode=mode), ids, moved, mode)

    def carry_out(self, call, ids, moved, mode):
        """Push, and look at what the store holds then."""
        before, soon = self.held(), list(self.soon)
        states = {one.state for one in versions(self.open())}
        try:
            receipt = call()
        except PushError as error:
            # Not over a version that was switched to; of one that died in a switch only the recovery knows.
            assert states & {"switched", "switching"} and "made live by switch" in str(error)
            return
        # A nudge by which no validation query gains has nothing to push, and nothing of it is refused.
        assert "switched" not in states or not receipt.pushed
        self.nothing_is_on_its_way()
        held = self.held()
        if mode != "in-place":
            self.snapshots.clear()
            if soon == self.soon:
                assert {n: v.tobytes() for n, v in held.items()} == {n: v.tobytes() for n, v in before.items()}
            return
        # With nobody else about, and no dead push that this one finished or undid first.
        if receipt.pushed and soon == self.soon and states <= {"committed", "superseded", "rolled back"}:
            self.snapshots[receipt.version] = before
        if receipt.pushed and not (receipt.changed_since or receipt.missing):
            for node_id, vector in zip(ids, moved, strict=True):
                assert held[node_id].tobytes() == vector.tobytes()
            for node_id in held.keys() - set(ids):
                assert held[node_id].tobytes() == self.truth[node_id].tobytes(), (
                    "nudged no longer: its original is back"
                )

    @rule(chosen=st.lists(NODES, min_size=1, unique=True), seed=SEEDS)
    def push_some(self, chosen, seed):
        self.push(chosen, seed)

    @rule(
        chosen=st.lists(NODES, min_size=1, unique=True), seed=SEEDS, mode=st.sampled_from(["in-place", "side-by-side"])
    )
    def tune_and_push(self, chosen, seed, mode):
        """The nudge starts from the truth, whatever the store holds."""
        ids = [node_id for node_id in chosen if node_id in self.held()]
        if not ids:
            return
        mode = mode if self.beside else "in-place"
        store = self.open()
        parts = [[(f"{node_id} {seed}: {part}", node_id) for node_id in ids] for part in ("train", "val", "test")]
        split = Split(*(LabeledPairs.from_pairs(part) for part in parts))
        nudge = tune(store, split, embed, solver="nudge-n", metrics=["Recall@1"])
        for node_id, original in zip(nudge.ids, nudge.originals, strict=True):
            assert original.tobytes() == self.truth[node_id].tobytes()
        moved = store.as_stored(nudge.vectors)
        for node_id, vector in zip(nudge.ids, moved, strict=True):
            self.nudges[node_id].add((self.truth[node_id].tobytes(), vector.tobytes()))
        self.carry_out(lambda: nudge.push(mode=mode, force=True), nudge.ids, moved, mode)

    @precondition(lambda self: self.beside)
    @rule(chosen=st.lists(NODES, min_size=1, unique=True), seed=SEEDS)
    def push_beside(self, chosen, seed):
        self.push(chosen, seed, "side-by-side")

    @precondition(lambda self: self.beside)
    @rule()
    def switch_to_it(self):
        """A node that has the vector that it was tuned from gets its nudge, all others stay as they are."""
        repair(self.open())
        staged = [one for one in versions(self.open()) if one.is_beside and one.state == "committed"]
        if not staged or any(one.state == "switched" for one in versions(self.open())):
            return
        expected = {node_id: vector.tobytes() for node_id, vector in self.held().items()}
        before = dict(expected)
        for node_id, found, nudged in zip(staged[-1].ids, staged[-1].before, staged[-1].after, strict=True):
            if before.get(node_id) == found.tobytes():
                expected[node_id] = nudged.tobytes()
        try:
            switch(self.open(), accept_gap=True)
        except PushError as error:  # of which nothing is left
            assert "nothing was switched: push again" in str(error)
            expected = before
        assert {n: v.tobytes() for n, v in self.held().items()} == expected
        self.snapshots.clear()

    @precondition(lambda self: self.beside)
    @rule()
    def drop_them(self):
        repair(self.open())
        before = {n: v.tobytes() for n, v in self.held().items()}
        drop_copies(self.open())
        assert {n: v.tobytes() for n, v in self.held().items()} == before
        self.snapshots.clear()

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
        if self.is_refused(name):
            return
        expected = self.snapshots[name]
        assert {n: v.tobytes() for n, v in self.held().items()} == {n: v.tobytes() for n, v in expected.items()}
        self.snapshots = {number: held for number, held in self.snapshots.items() if number < name}

    def is_refused(self, name):
        """Undo a version and all later ones; refused, without any write, if what was live before is not recorded."""
        held, live = self.held(), [one for one in versions(self.open()) if one.state in ("committed", "superseded")]
        try:
            assert rollback(self.open(), version=name).exact
        except ValueError as error:
            assert "would be live again, is not kept" in str(error)
            assert self.pruned or self.beside
            # A copy that is kept after a switch may stand between the two.
            assert self.beside or all(int(one.name) >= int(name) for one in live), "there is one to go back to"
            assert {n: v.tobytes() for n, v in self.held().items()} == {n: v.tobytes() for n, v in held.items()}
            return True
        return False

    @rule()
    def reapply_it(self):
        reapply(self.open())
        self.nothing_is_on_its_way()
        self.snapshots.clear()

    def nothing_is_on_its_way(self):
        """A call that took the lock has finished or undone what had died."""
        assert {one.state for one in versions(self.open())} <= {"committed", "superseded", "rolled back", "switched"}

    @rule(keep=st.integers(0, 2))
    def prune_it(self, keep):
        self.pruned = True
        prune(self.open(), keep=keep)

    @rule()
    def repair_it(self):
        """Nothing that died is left afterwards: neither a state on the way, nor a copy that no version names."""
        assert repair(self.open()).set_aside == ()
        self.nothing_is_on_its_way()
        recorded = versions(self.open())
        if self.beside:
            named = {one.label for one in recorded if one.label and one.state != "rolled back"}
            assert set(self.open().copy_labels()) <= named

    # What seldom comes by chance: several steps in a row, each of which counts.

    def then(self, *steps):
        """Take steps, and look at the store after each."""
        for number, step in enumerate(steps):
            step()
            if number < len(steps) - 1:  # the last one is looked at as every rule is
                self.every_vector_is_the_truth_or_a_nudge_of_it()
                self.every_original_is_the_truth()

    @rule(node_id=NODES, seed=SEEDS, chosen=st.lists(NODES, min_size=1, unique=True))
    def a_nudged_node_is_away_during_a_rollback(self, node_id, seed, chosen):
        self.then(
            lambda: self.push_some(sorted({*chosen, node_id}), seed),
            lambda: self.somebody_takes_a_node_away(node_id),
            self.roll_back,
            # Without the records of versions nothing else tells of a node that is away.
            lambda: self.prune_it(0) if seed % 2 else None,
            lambda: self.somebody_brings_it_back(node_id, True),
            self.roll_back,
        )

    @rule(left=st.integers(0, 12), chosen=st.lists(NODES, min_size=2, unique=True), seed=SEEDS)
    def a_push_dies_and_is_repaired(self, left, chosen, seed):
        self.then(
            lambda: self.die_in_the_middle(left, "push", chosen, seed),
            self.repair_it if seed % 2 else self.reapply_it,
            self.roll_back,
        )

    @precondition(lambda self: self.beside)
    @rule(
        chosen=st.lists(NODES, min_size=2, unique=True),
        seed=SEEDS,
        order=st.permutations(["embed again", "take away", "bring back", "push", "nothing"]),
    )
    def something_happens_while_a_copy_waits(self, chosen, seed, order):
        between = {
            "embed again": lambda: self.somebody_embeds_a_node_again(chosen[0], seed + 1),
            "take away": lambda: self.somebody_takes_a_node_away(chosen[0]),
            "bring back": lambda: self.somebody_brings_it_back(chosen[0], False),
            "push": lambda: self.push_some(chosen[:1], seed + 1),
            "nothing": lambda: None,
        }
        for what in order:
            self.then(self.roll_back, lambda: self.push_beside(chosen, seed), between[what], self.switch_to_it)
            self.every_original_is_the_truth()
        self.roll_back()

    @precondition(lambda self: self.beside)
    @rule(chosen=st.lists(NODES, min_size=2, unique=True), seed=SEEDS, first=st.integers(0, 3))
    def switches_die_and_are_repaired(self, chosen, seed, first):
        for left in range(first, first + 4):
            self.then(
                self.roll_back,
                lambda: self.push_beside(chosen, seed),
                lambda left=left: self.die_in_the_middle(left, "switch", chosen, seed),
                self.repair_it,
            )
            self.every_original_is_the_truth()
            assert status(self.open()).returned == (), "which version is live is known, and nothing came back"
        self.roll_back()

    @precondition(lambda self: self.beside)
    @rule(
        left=st.integers(0, 20),
        action=st.sampled_from(["beside", "drop"]),
        chosen=st.lists(NODES, min_size=2, unique=True),
        seed=SEEDS,
    )
    def a_copy_dies_and_is_repaired(self, left, action, chosen, seed):
        self.then(
            self.roll_back,
            lambda: None if action == "beside" else self.push_beside(chosen, seed),
            lambda: self.die_in_the_middle(left, action, chosen, seed),
            self.repair_it,
            lambda: self.push_some(chosen, seed),
            self.roll_back,
        )

    @precondition(lambda self: self.beside)
    @rule(chosen=st.lists(NODES, min_size=2, unique=True), seed=SEEDS)
    def a_push_follows_a_switch(self, chosen, seed):
        self.then(
            self.roll_back,
            lambda: self.push_beside(chosen, seed),
            self.switch_to_it,
            lambda: self.push_some(chosen[1:], seed + 1),
            self.roll_back,
        )

    @rule(
        left=st.integers(0, 40),
        action=st.sampled_from(["push", "rollback", "rollback one", "reapply", "prune", "beside", "switch", "drop"]),
        chosen=st.lists(NODES, min_size=1, unique=True),
        seed=SEEDS,
    )
    def die_in_the_middle(self, left, action, chosen, seed):
        self.mortal.left = left
        try:
            if action == "push":
                self.push(chosen, seed)
            elif action in ("beside", "switch", "drop"):
                self.act_beside(action, chosen, seed)
            elif action == "rollback one":
                live = [one.name for one in versions(self.open()) if one.is_live and not one.is_thinned]
                if live:
                    self.is_refused(live[-1])
            else:
                self.pruned |= action == "prune"
                {"rollback": rollback, "reapply": reapply, "prune": prune}[action](self.open())
        except Killed:
            pass
        finally:
            self.mortal.left = None
        self.soon = []
        self.snapshots.clear()

    def act_beside(self, action, chosen, seed):
        if not self.beside:
            return
        if action == "beside":
            self.push(chosen, seed, "side-by-side")
        elif action == "drop":
            drop_copies(self.open())
        elif any(one.is_beside and one.state == "committed" for one in versions(self.open())):
            with suppress(PushError):
                switch(self.open(), accept_gap=True)

    @invariant()
    def every_vector_is_the_truth_or_a_nudge_of_it(self):
        type(self).steps += 1
        for node_id, vector in self.held().items():
            truth = self.truth[node_id].tobytes()
            assert vector.tobytes() == truth or (truth, vector.tobytes()) in self.nudges[node_id]

    @invariant()
    def every_original_is_the_truth(self):
        store, held = self.open(), self.held()
        found = original_vectors(store, list(held), store.read(list(held)))
        for node_id, vector in zip(held, found, strict=True):
            assert vector.tobytes() == self.truth[node_id].tobytes()
