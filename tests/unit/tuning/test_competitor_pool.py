"""Vectors of competing nodes are read as far as they are there; rough estimates never make a tune fail."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from nudge_rag import LabeledPairs, StoreError, tune
from nudge_rag.solvers import AutoSolver
from nudge_rag.stores import MappingStore
from nudge_rag.tuning.competitor_pool import read_pool

# Rough estimates of reaches and what goes wrong in them are the same for any number of settings.
pytestmark = pytest.mark.usefixtures("little_auto")

N_LABELLED = 20


class ShakyStore(MappingStore):
    """Loses nodes, or its connection, when nodes are read that nobody labelled."""

    lost: tuple[str, ...] = ()
    error: Exception | None = None

    def read(self, ids):
        if any(int(node_id[1:]) >= N_LABELLED for node_id in ids):
            if self.error is not None:
                raise self.error
            for node_id in self.lost:
                self._mapping().pop(node_id, None)
        return super().read(ids)


def made(n_nodes=60, **changed):
    """A store, labels of its first nodes, and the embeddings of their queries."""
    rng = np.random.default_rng(0)
    nodes = rng.normal(size=(n_nodes, 8))
    turn = 0.5 * np.eye(8) + 0.5 * np.linalg.qr(rng.normal(size=(8, 8)))[0]
    texts = {
        f"{number} of {row}": (nodes[row] + 0.3 * rng.normal(size=8)) @ turn
        for row in range(N_LABELLED)
        for number in range(4)
    }
    nodes = dict(zip([f"n{row}" for row in range(n_nodes)], nodes, strict=True)) | changed
    pairs = LabeledPairs.from_pairs((text, f"n{text.split()[2]}") for text in texts)
    store = ShakyStore({name: vector.tolist() for name, vector in nodes.items()}, key="pool")
    return store, pairs, lambda asked: np.stack([texts[text] for text in asked])


@pytest.fixture(scope="module")
def whole(little_auto, tmp_path_factory):
    """What nothing went wrong in."""
    store, pairs, embed = made()
    return tune(store, pairs, embed, versions=tmp_path_factory.mktemp("whole"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reach", "similarity"), [("labelled", "cosine"), ("labelled", "dot"), ("queries", "cosine"), ("nodes", "cosine")]
)
def test_a_competitor_without_a_direction_is_no_reason_to_fail(tmp_path, reach, similarity):
    store, pairs, embed = made(n50=np.zeros(8))
    store = MappingStore(store._mapping(), similarity=similarity, key="zero")
    nudge = tune(store, pairs, embed, reach=reach, versions=tmp_path)
    assert nudge.improves
    assert len(nudge.other_reaches) == {"labelled": 2, "queries": 1, "nodes": 1}[reach]


@pytest.mark.parametrize("reach", ["labelled", "queries"])
def test_nodes_that_are_deleted_meanwhile_are_left_out(reach):
    store, _, _ = made()
    kept = store.read(["n30", "n33"])
    store.lost = ("n31", "n32")
    pool = read_pool(store, AutoSolver(reach=reach), [[["n30", "n31"], ["n32", "n33"]]])
    assert pool.tolist() == kept[[0, 1]].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("error", [RuntimeError("connection lost"), ValueError("no such field")])
def test_a_store_that_does_not_give_the_sample_costs_the_estimate_alone(tmp_path, whole, error, caplog, recwarn):
    store, pairs, embed = made()
    assert len(whole.other_reaches) == 2
    store.error = error
    without = tune(store, pairs, embed, versions=tmp_path)
    assert without.other_reaches == ()
    assert str(error) in caplog.text
    assert "is not estimated" in caplog.text
    assert not recwarn.list
    assert without.vectors.tobytes() == whole.vectors.tobytes()
    assert without.tried == whole.tried
    # Who learns from these vectors cannot do without.
    with pytest.raises(StoreError if isinstance(error, RuntimeError) else ValueError, match=str(error)):
        tune(store, pairs, embed, reach="queries", versions=tmp_path)


@pytest.mark.slow
def test_reaches_are_estimated_if_nothing_competes(tmp_path):
    store, pairs, embed = made(n_nodes=N_LABELLED)
    nudge = tune(store, pairs, embed, versions=tmp_path)
    assert [one.is_rough for one in nudge.other_reaches] == [True, True]


@pytest.mark.slow
def test_an_estimate_that_fails_or_warns_is_no_matter_of_the_result(tmp_path, whole, monkeypatch, caplog, recwarn):
    store, pairs, embed = made()

    def fail(*_):
        warnings.warn("a map of fewer labels", RuntimeWarning, stacklevel=1)
        raise FloatingPointError("the descent went astray")

    monkeypatch.setattr("nudge_rag.solvers.auto.trials.OtherReaches", fail)
    without = tune(store, pairs, embed, versions=tmp_path)
    assert without.other_reaches == ()
    assert "FloatingPointError: the descent went astray" in caplog.text
    assert not recwarn.list
    assert without.vectors.tobytes() == whole.vectors.tobytes()
