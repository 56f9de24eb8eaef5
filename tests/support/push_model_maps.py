"""The model of `push_model` with maps of all nodes, and documents that are mapped before they are added."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from nudge_rag import PushError, repair, rollback, status, switch, versions
from nudge_rag.journal.goal import MapVectors
from nudge_rag.journal.journal import original_vectors
from nudge_rag.journal.packed_map import NODE_MAP, node_map_of, pack_adapter
from nudge_rag.journal.push import push_vectors
from nudge_rag.solvers import QueryAdapter
from nudge_rag.tuning.ingestion import DocumentMap
from tests.support.push_model import DIMENSION, NODES, SEEDS, Pushes

__all__ = ["with_maps"]

MODES = st.sampled_from(["in-place", "side-by-side"])


def map_of(seed):
    """A map whose nodes are told from those of any other."""
    return QueryAdapter((np.random.default_rng([3, seed]).normal(size=(DIMENSION, DIMENSION)) * 0.3).astype(np.float32))


def is_same(found, made):
    """The same but for the last bits: a product of float64 rounds otherwise for another number of rows."""
    return np.allclose(found, made, rtol=1e-5, atol=1e-6)


class Maps(Pushes):
    """To be mixed into the model of a store.

    Attributes:
        maps: every map that a push had.
        embedded: documents that were mapped and not yet added: id, its own vector, the mapped one.
    """

    def __init__(self):
        self.maps, self.embedded = {}, []
        super().__init__()

    def live(self):
        alive = [one for one in versions(self.open()) if one.is_live]
        return next((one for one in reversed(alive) if one.is_beside), alive[-1] if alive else None)

    def made_of(self, truth):
        """What each map makes of a vector, as the store keeps it."""
        store = self.open()
        vectors = truth[None].astype(store.capabilities.dtype)
        return [store.as_stored(MapVectors(one)(vectors))[0] for one in self.maps.values()]

    @rule(chosen=st.lists(NODES, unique=True), seed=SEEDS, mode=MODES)
    def push_a_map(self, chosen, seed, mode):
        mode = mode if self.beside else "in-place"
        repair(self.open())
        store, ids = self.open(), [node_id for node_id in chosen if node_id in self.held()]
        originals = np.zeros((0, DIMENSION), store.capabilities.dtype)
        if ids:
            originals = original_vectors(store, ids, store.read(ids))
        moved = store.as_stored(originals + np.random.default_rng([2, seed]).normal(size=originals.shape))
        for node_id, vector in zip(ids, moved, strict=True):
            self.nudges[node_id].add((self.truth[node_id].tobytes(), vector.tobytes()))
        self.maps[seed] = map_of(seed)
        details = {NODE_MAP: pack_adapter(self.maps[seed])}
        self.snapshots.clear()
        soon = list(self.soon)
        try:
            push_vectors(store, ids, originals, moved, mode=mode, details=details)
        except PushError as error:
            assert "made live by switch" in str(error)
            return
        self.nothing_is_on_its_way()
        if mode == "in-place" and soon == self.soon:  # with nobody else about
            self.whoever_is_mapped_is_mapped_by_the_live_one(self.held().keys() - set(ids))

    def whoever_is_mapped_is_mapped_by_the_live_one(self, ids):
        store, live = self.open(), self.live()
        made = MapVectors(node_map_of(live))
        held = self.held()
        for node_id in ids:
            truth = self.truth[node_id][None].astype(store.capabilities.dtype)
            assert is_same(held[node_id], store.as_stored(made(truth))[0])

    @rule(node_id=NODES, seed=SEEDS)
    def a_document_is_embedded(self, node_id, seed):
        """Mapped as it is embedded, if a map is live; it is added later."""
        store = self.open()
        if store.capabilities.rounding or not store.capabilities.keeps_norms:
            return
        truth = np.random.default_rng([4, seed]).normal(size=DIMENSION).astype(self.dtype)
        (vector,) = DocumentMap(self.open)([truth.tolist()])
        self.embedded.append((node_id, truth, np.array(vector, dtype=self.dtype)))

    @precondition(lambda self: self.embedded)
    @rule()
    def it_is_added(self):
        node_id, truth, vector = self.embedded.pop()
        self.taken.pop(node_id, None)
        self.truth[node_id] = truth
        self.put(node_id, vector)
        self.snapshots.clear()

    @rule()
    def reapply_it(self):
        soon = list(self.soon)
        super().reapply_it()
        found, live = status(self.open()), self.live()
        is_quiet = soon == self.soon and live is not None and not live.is_beside
        assert not is_quiet or (found.unmapped, found.mapped, found.lost) == ((), (), ())

    @rule()
    def switch_to_it(self):
        """As a copy is made of what is live and the originals, other nodes than those pushed may differ."""
        if not self.beside:
            return
        repair(self.open())
        staged = [one for one in versions(self.open()) if one.is_beside and one.state == "committed"]
        if not staged or any(one.state == "switched" for one in versions(self.open())):
            return
        if not staged[-1].is_streamed:
            super().switch_to_it()
            return
        ids, soon = set(staged[-1].ids), list(self.soon)
        try:
            switch(self.open(), accept_gap=True)
        except PushError as error:
            assert "nothing was switched: push again" in str(error)
            return
        self.snapshots.clear()
        if node_map_of(self.live()) is not None and soon == self.soon:
            self.whoever_is_mapped_is_mapped_by_the_live_one(self.held().keys() - ids)

    @rule(seed=SEEDS, count=st.integers(1, 2))
    def all_is_undone_version_by_version(self, seed, count):
        for number in range(count):
            self.push_a_map([], seed + number, "in-place")
        while (live := self.live()) is not None:
            try:
                rollback(self.open(), version=live.name)
            except ValueError as error:
                assert "cannot be undone by itself" in str(error)
                break
            self.every_original_is_the_truth()
        self.roll_back()

    @invariant()
    def every_vector_is_the_truth_or_a_nudge_of_it(self):
        type(self).steps += 1
        for node_id, vector in self.held().items():
            truth = self.truth[node_id]
            known = vector.tobytes() == truth.tobytes() or (truth.tobytes(), vector.tobytes()) in self.nudges[node_id]
            assert known or any(is_same(vector, made) for made in self.made_of(truth))


def with_maps(model):
    """The model of a store, with maps."""
    return type(f"{model.__name__}WithMaps", (Maps, model), {"steps": 0})
