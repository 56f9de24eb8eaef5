"""Embedding models are known by what they make of a few texts; answers that do not depend on queries are noticed."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from nudge_rag import CorruptArchiveError, LabeledPairs, Nudge, PushError, TuningState, reapply, tune
from nudge_rag.common.embedding import ModelQueries
from nudge_rag.evaluation.metrics import parse_metric
from nudge_rag.journal.fingerprints import PROBES, Fingerprint, differing_models, fingerprint_of, known_name
from nudge_rag.stores import MappingStore
from nudge_rag.tuning.adapters import LiveAdapter
from nudge_rag.tuning.chance import find_chance

D = 8
TEXTS = {f"n{i}": f"text number {i}" for i in range(12)}


def model(seed, noise=0.0):
    """A model: every text has a place of its own, and each seed another one."""

    def embed(texts):
        rows = [np.random.default_rng([seed, *map(ord, text.split(" of ")[0])]).normal(size=D) for text in texts]
        return np.array(rows) + noise * np.random.default_rng(seed + 1).normal(size=(len(texts), D))

    return embed


FIRST, OTHER = model(1), model(2)
PAIRS = LabeledPairs.from_pairs((f"{TEXTS[node]} of {word}", node) for node in TEXTS for word in "abcdefghij")


@pytest.fixture
def store():
    nodes = FIRST(list(TEXTS.values())) + np.random.default_rng(5).normal(size=(12, D))
    return MappingStore(dict(zip(TEXTS, nodes.tolist(), strict=True)), key="test")


def tuned(store, folder, embed=FIRST, **options):
    return tune(store, PAIRS, embed, solver="nudge-n", versions=folder, **options)


def test_the_same_model_on_other_hardware_is_the_same_and_another_one_is_not():
    one, noisy, other = (fingerprint_of(embed) for embed in (FIRST, model(1, noise=1e-3), OTHER))
    vectors = FIRST(list(PROBES))
    assert np.allclose(one.vectors, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    assert one.matches(noisy)
    assert not one.matches(other)
    assert one.similarity(Fingerprint(np.eye(4))) == 0.0, "another dimension"
    assert Fingerprint.unpack(one.pack()).matches(one)


def test_a_model_is_asked_once_in_one_call():
    calls = []

    class Model:
        def encode(self, texts):
            calls.append(len(texts))
            return FIRST(texts)

    mine = Model()
    for _ in range(3):
        assert fingerprint_of(mine.encode).matches(fingerprint_of(FIRST))
        assert fingerprint_of(ModelQueries(mine, FIRST)).matches(fingerprint_of(FIRST))
    assert calls == [5]


@pytest.mark.parametrize(
    "embed",
    [
        lambda texts: {}[texts[0]],
        lambda texts: np.random.default_rng().normal(size=(len(texts), D)),
        lambda texts: np.zeros((len(texts), D)),
        lambda texts: np.ones((1, D)),
        lambda texts: np.full((len(texts), D), np.nan),
    ],
)
def test_some_models_have_no_fingerprint(embed):
    assert fingerprint_of(embed) is None


def test_unknown_is_no_name():
    assert [known_name(name) for name in ("unknown", "Unknown ", "", None, "mini")] == [None, None, None, None, "mini"]
    assert differing_models({"model": "unknown"}, {"model": "mini"}) is None


def test_a_push_over_another_model_of_the_same_dimension_is_refused(store, tmp_path):
    """Without names, and with the same name."""
    assert tuned(store, tmp_path).push().pushed
    for options in ({}, {"model": "mini"}):
        with pytest.warns(UserWarning, match=r"version 0001, which is live, was made for another embedding model"):
            nudge = tuned(store, tmp_path, OTHER, **options)
        with pytest.raises(
            PushError, match=r"for another embedding model than this one: the same text has a cosine of"
        ):
            nudge.push(force=True)
    nudge.save(tmp_path / "saved")
    assert Nudge.load(tmp_path / "saved", store, tmp_path).fingerprint.matches(nudge.fingerprint)
    with pytest.raises(PushError, match="another embedding model"):
        reapply(store, tmp_path, embed_queries=OTHER)
    assert reapply(store, tmp_path, embed_queries=FIRST) == ()


def test_another_name_of_the_same_model_is_the_same(store, tmp_path):
    assert tuned(store, tmp_path, model="mini").push().pushed
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tuned(store, tmp_path, model="models/mini").push(force=True).pushed


def test_a_state_is_not_gone_on_with_by_another_model(store, tmp_path):
    state = TuningState(store, FIRST, versions=tmp_path)
    state.add_pairs(PAIRS)
    assert state.solve().fingerprint.matches(fingerprint_of(FIRST))
    state.save(tmp_path / "state")
    assert len(TuningState.load(tmp_path / "state", store, FIRST)) == len(PAIRS)
    with pytest.raises(ValueError, match="was made for another embedding model"):
        TuningState.load(tmp_path / "state", store, OTHER)


def test_retrievers_look_once_whether_their_model_is_the_one(store, tmp_path):
    assert tuned(store, tmp_path).push().pushed
    adapter = LiveAdapter(lambda: store, tmp_path, seconds=0.0, embed_queries=OTHER)
    with pytest.warns(UserWarning, match="version 0001, which is live, was made for another embedding model"):
        adapter.find()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapter.find()
        LiveAdapter(lambda: store, tmp_path, embed_queries=FIRST).find()


@pytest.mark.parametrize("packed", [7, {}, {"dimension": 2, "float16": "?"}, {"dimension": 10**30, "float16": "AAAA"}])
def test_a_damaged_fingerprint_is_refused(packed):
    with pytest.raises(CorruptArchiveError, match="fingerprint"):
        Fingerprint.unpack(packed)


def test_a_baseline_near_chance_is_said_to_be_one(tmp_path):
    """300 nodes by one model, queries by another: what is found does not depend on the query."""
    texts = {f"n{i}": f"node {i}" for i in range(300)}
    nodes = dict(zip(texts, FIRST(list(texts.values())).tolist(), strict=True))
    pairs = LabeledPairs.from_pairs((f"{texts[node]} of {word}", node) for node in list(texts)[:60] for word in "ab")
    with pytest.warns(UserWarning, match=r"before tuning, nDCG@10 is near chance: 0\.0"):
        nudge = tune(MappingStore(nodes, key="blind"), pairs, OTHER, solver="nudge-n", versions=tmp_path)
    assert "near chance" in nudge.summary
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        right = tune(MappingStore(nodes, key="seeing"), pairs, FIRST, solver="nudge-n", versions=tmp_path)
    assert "chance" not in right.summary


def test_a_baseline_near_chance_is_told_of_a_small_store(tmp_path):
    """30 nodes, of which ten are a third: chance itself finds many."""
    texts = {f"n{i}": f"node {i}" for i in range(30)}
    nodes = dict(zip(texts, FIRST(list(texts.values())).tolist(), strict=True))
    pairs = LabeledPairs.from_pairs((f"{texts[node]} of {word}", node) for node in texts for word in "abcd")
    with pytest.warns(UserWarning, match="before tuning, nDCG@10 is near chance"):
        tune(MappingStore(nodes, key="blind"), pairs, OTHER, solver="nudge-n", versions=tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tune(MappingStore(nodes, key="seeing"), pairs, FIRST, solver="nudge-n", versions=tmp_path)


def test_few_queries_and_tiny_stores_tell_nothing():
    metrics = [parse_metric("Recall@2")]
    few = {str(number): {f"n{number}": 1.0} for number in range(9)}
    assert find_chance(few, {query: [] for query in few}, metrics) is None
    tiny = {str(number): {"a": 1.0} for number in range(20)}
    assert find_chance(tiny, {query: ["a", "b"] for query in tiny}, metrics) is None
