"""Nodes that are deleted while a map that was pushed side by side is live, and come back as they were: no originals."""

from __future__ import annotations

import numpy as np
import pytest

from nudge_rag import Nudge, drop_copies, rollback, status, switch
from nudge_rag.journal.journal import original_vectors
from nudge_rag.solvers import QueryAdapter, ValidationCurve
from tests.support.push_model import DIMENSION, IDS
from tests.support.push_model_stores import Chroma, Faiss, InMemory, Milvus, Qdrant, Simple, SimpleFile

CHANGE = np.random.default_rng(3).normal(size=(DIMENSION, DIMENSION)) * 0.4
GONE = IDS[:2]


@pytest.fixture(params=[Chroma, Faiss, InMemory, Milvus, Qdrant, Simple, SimpleFile], ids=lambda model: model.__name__)
def mapped(request, tmp_path_factory):
    """A store whose map was switched to, with a vector of its own for the first node."""
    if request.param is Milvus:
        Milvus.address = tmp_path_factory.mktemp("model")
    model = request.param()
    store = model.connect()
    own = store.read(GONE[:1])
    curve = ValidationCurve(np.array([0.0]), np.array([0.0]), "nDCG@10")
    nudge = Nudge(store, tuple(GONE[:1]), -own, own, 0.1, curve, True, "", "auto", None, node_map=QueryAdapter(CHANGE))
    nudge.push(mode="side-by-side")
    switch(store, accept_gap=True)
    yield model
    model.teardown()


@pytest.mark.parametrize("way", ["switched back", "dropped", "dropped and rolled back"])
def test_they_are_known_and_undone_when_they_are_back(mapped, way):
    held = mapped.held()
    for node_id in GONE:
        mapped.take(node_id)
    if way != "switched back":
        assert drop_copies(mapped.connect()) == ("0001",)
    if way != "dropped":
        rollback(mapped.connect())
    assert set(status(mapped.connect()).away) == set(GONE)
    for node_id in GONE:
        mapped.put(node_id, held[node_id])
    store = mapped.connect()
    found = dict(zip(IDS, original_vectors(store, IDS, store.read(IDS)), strict=True))
    assert {n: v.tobytes() for n, v in found.items()} == {n: v.tobytes() for n, v in mapped.truth.items()}
    rollback(mapped.connect())
    assert {n: v.tobytes() for n, v in mapped.held().items()} == {n: v.tobytes() for n, v in mapped.truth.items()}
    assert status(mapped.connect()).away == ()


def test_those_that_come_back_as_new_nodes_keep_their_vectors(mapped):
    for node_id in GONE:
        mapped.take(node_id)
    rollback(mapped.connect())
    for node_id in GONE:
        mapped.put(node_id, 3 * mapped.truth[node_id])
    rollback(mapped.connect())
    assert all(mapped.held()[node_id].tobytes() == (3 * mapped.truth[node_id]).tobytes() for node_id in GONE)
