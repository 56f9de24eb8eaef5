"""The notes of a copy are lost, and somebody writes to it who opened it while it was live: nothing of his is lost."""

from __future__ import annotations

import numpy as np
import pytest
from qdrant_client import models

from nudge_rag import PushError, drop_copies, rollback, switch
from nudge_rag.journal.manifest import SIDE_BY_SIDE
from nudge_rag.journal.push import push_vectors
from tests.support.push_model import DIMENSION, IDS
from tests.support.push_model_stores import Chroma, Milvus, Qdrant

LATE = np.ones(DIMENSION, dtype=np.float32)


class Service:
    """A process that opened the collection that was live first, and goes on with it."""

    def __init__(self, model):
        self.model = model
        self.collection = model.collection() if isinstance(model, Chroma) else None

    def add(self, node_id):
        model = self.model
        if isinstance(model, Chroma):
            self.collection.add(ids=[node_id], embeddings=[LATE])
        elif isinstance(model, Qdrant):
            model.client.upsert("first", [models.PointStruct(id=int(node_id), vector=LATE.tolist())])
        else:
            model.client.upsert(model.name, [{"id": node_id, "vector": LATE.tolist()}])

    def has(self, node_id):
        model = self.model
        if isinstance(model, Chroma):
            return self.collection.get(ids=[node_id])["ids"] == [node_id]
        if isinstance(model, Qdrant):
            return len(model.client.retrieve("first", [int(node_id)])) == 1
        return len(model.client.get(model.name, [node_id])) == 1


@pytest.fixture(params=[Chroma, Qdrant, Milvus], ids=lambda model: model.__name__)
def model(request, tmp_path_factory):
    """A store that was switched, and whose notes were lost."""
    if request.param is Milvus:
        Milvus.address = tmp_path_factory.mktemp("model")
    made = request.param()
    made.service = Service(made)
    store = made.connect()
    vectors = store.read(IDS[:3])
    push_vectors(store, IDS[:3], vectors, store.as_stored(vectors + 1), mode=SIDE_BY_SIDE)
    switch(store, accept_gap=True)
    yield made
    made.teardown()


def lose_notes(model):
    history = model.connect().history()
    lost = history.names("copies/")
    assert lost
    for name in lost:
        history.delete(name)


def test_a_rollback_writes_vectors_back_and_the_copy_is_kept(model):
    lose_notes(model)
    model.service.add("9")
    with pytest.warns(UserWarning, match=r"cannot be switched back without a loss .1 node\(s\) only in the copy"):
        assert rollback(model.connect()).exact
    held = model.held()
    assert {n: v.tobytes() for n, v in held.items()} == {n: v.tobytes() for n, v in model.truth.items()}
    assert model.service.has("9")
    with pytest.raises(PushError, match=r"only in the copy beside it: '9'"):
        drop_copies(model.connect())
    assert model.service.has("9")


def test_nothing_is_dropped_or_switched_to_after_a_rollback_either(model):
    rollback(model.connect())  # the first is live again, and whoever opened the other writes to that
    lose_notes(model)
    (label,) = model.connect().copy_labels()
    model.connect().open_copy(label).replace(["5"], LATE[None])
    before = {n: v.tobytes() for n, v in model.held().items()}
    with pytest.raises(PushError, match=r"nothing was switched: push again"):
        switch(model.connect(), accept_gap=True)
    with pytest.raises(PushError, match=r"1 node\(s\) changed: '5'.*force=True"):
        drop_copies(model.connect())
    store = model.connect()
    vectors = store.read(IDS[:1])
    with pytest.raises(PushError, match=r"1 node\(s\) changed: '5'.*force=True"):
        push_vectors(store, IDS[:1], vectors, store.as_stored(vectors + 2), mode=SIDE_BY_SIDE)
    assert model.connect().open_copy(label).read(["5"]).tobytes() == LATE.tobytes()
    assert {n: v.tobytes() for n, v in model.held().items()} == before
    assert drop_copies(model.connect(), force=True) == ("0001",)


def test_without_such_writes_all_goes_on_as_ever(model):
    lose_notes(model)
    rollback(model.connect())
    lose_notes(model)
    assert switch(model.connect(), accept_gap=True).nodes == 3
    lose_notes(model)
    assert drop_copies(model.connect()) == ("0001",)
    rollback(model.connect())
    assert {n: v.tobytes() for n, v in model.held().items()} == {n: v.tobytes() for n, v in model.truth.items()}
