"""Labels in other spellings of the store's ids, in every verb that takes labels; and what is no store."""

from __future__ import annotations

import uuid

import numpy as np
import pytest

import nudge_rag
from nudge_rag import LabeledPairs, Split
from nudge_rag.journal.push import push_vectors
from nudge_rag.stores import MappingStore
from nudge_rag.tuning.label_coverage import coverage
from nudge_rag.tuning.spelling import spell_pairs

UUID = uuid.UUID("a3da8d14-7c06-5c25-a301-21a6bf82cb64")
FORMS = [
    str(UUID),
    UUID.hex,
    str(UUID).upper(),
    UUID.hex.upper(),
    UUID.urn,
    UUID.urn.upper(),
    f"{{{UUID}}}",
    f" {UUID}\n",
]
NUMBERS = ["7", "007", "+7", " 7 ", "7.0", "7."]


def store_of(*ids):
    vectors = np.random.default_rng(0).normal(size=(len(ids), 4))
    return MappingStore(dict(zip(ids, vectors.tolist(), strict=True)), key="spelled")


@pytest.mark.parametrize("held", FORMS[:5])
@pytest.mark.parametrize("label", FORMS)
def test_a_uuid_is_one_id_in_any_spelling(held, label):
    assert spell_pairs(LabeledPairs.from_pairs([("leave", label)]), store_of(held, "other")).node_ids == (held,)


@pytest.mark.parametrize("label", NUMBERS)
def test_a_number_is_one_id_in_any_spelling(label):
    assert spell_pairs(LabeledPairs.from_pairs([("leave", label)]), store_of("7", "70")).node_ids == ("7",)


@pytest.mark.parametrize("label", ["EXIT", "-7", "7.5", "7e0", "seven", "exit!", "0x7"])
def test_other_ids_stay_as_they_are(label):
    assert spell_pairs(LabeledPairs.from_pairs([("leave", label)]), store_of("7", "exit")).node_ids == (label,)


def test_ids_that_the_store_holds_are_never_renamed():
    pairs = LabeledPairs.from_pairs([("leave", "007"), ("enter", "7"), ("pay", " 7")])
    assert spell_pairs(pairs, store_of("007", "7")).node_ids == ("007", "7")


def test_two_spellings_of_a_node_add_up_in_every_part():
    pairs = LabeledPairs.from_pairs([("leave", "7", 1), ("leave", "007", -3), ("pay", "9.0")])
    spelled = spell_pairs(Split(pairs, pairs.subset(["q1"]), pairs.subset(["q0"])), store_of("7", "9"))
    assert dict(spelled.train.qrels["q0"]) == dict(spelled.test.qrels["q0"]) == {"7": -2.0}
    assert dict(spelled.val.qrels["q1"]) == {"9": 1.0}


def test_retrievers_find_the_nodes_that_labels_spell_otherwise():
    held = {"leave": [str(UUID), "7"], "pay": ["9", "7"]}
    pairs = LabeledPairs.from_pairs([("leave", UUID.hex.upper()), ("pay", "007"), ("pay", "0009", 2)])
    found = nudge_rag.evaluate_retrievers({"own": held.__getitem__}, pairs, ["Recall@2", "MRR@10"])
    assert (found.mean("own", "Recall@2"), found.mean("own", "MRR@10")) == (1.0, 1.0)


def test_labels_are_counted_by_node():
    pairs = LabeledPairs.from_pairs([("leave", "007"), ("go", "7"), ("pay", "9.0")])
    assert str(coverage(pairs, store_of("7", "9"))).startswith("2 of 2 nodes have a label, 3 labels in all")


class Retriever:
    """Looks like what a framework gives."""


Retriever.__module__ = "langchain_core.vectorstores.base"
VERBS = {
    "status": nudge_rag.status,
    "versions": nudge_rag.versions,
    "rollback": nudge_rag.rollback,
    "reapply": nudge_rag.reapply,
    "switch": nudge_rag.switch,
    "drop_copies": nudge_rag.drop_copies,
    "prune": nudge_rag.prune,
    "repair": nudge_rag.repair,
    "live_version": nudge_rag.live_version,
    "take_over": nudge_rag.take_over,
    "coverage": lambda store: nudge_rag.coverage(LabeledPairs.from_pairs([("a", "b")]), store),
    "load": lambda store: nudge_rag.Nudge.load("nowhere", store),
    "tune": lambda store: nudge_rag.tune(store, LabeledPairs.from_pairs([("a", "b")]), len),
    "TuningState": lambda store: nudge_rag.TuningState(store, len),
    "store_retriever": lambda store: nudge_rag.store_retriever(store, len),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("given", "advice"),
    [
        (Retriever(), r"got Retriever: pass langchain_nudge.embedding_store\(vectorstore\); langchain_nudge has most"),
        ("chroma:///folder", r"got str: pass nudge_rag.open_store\(url\)"),
        (None, "got NoneType: see nudge_rag.stores"),
        ({"a": [1.0]}, "got dict: see nudge_rag.stores"),
    ],
    ids=["retriever", "url", "none", "mapping"],
)
def test_what_is_no_store_is_told_at_once(verb, given, advice):
    with pytest.raises(TypeError, match=rf"expected a store \(an EmbeddingStore\), {advice}"):
        VERBS[verb](given)


class Sealed(MappingStore):
    """Cannot be written to, and says so."""

    write_problem = "this collection is sealed"


def test_a_store_that_cannot_be_written_to_is_told_when_it_is_tuned():
    store = Sealed({"exit": [1.0, 0.0], "bill": [0.0, 1.0]}, key="sealed")
    pairs = LabeledPairs.from_pairs((f"leave {turn}", "exit") for turn in range(40))
    with pytest.warns(UserWarning, match="cannot be pushed, only served by an overlay: this collection is sealed"):
        nudge = nudge_rag.tune(store, pairs, lambda texts: np.tile([0.6, 0.8], (len(texts), 1)), solver="nudge-n")
    assert nudge.refusal(force=True) == "this collection is sealed; an overlay serves the nudge"
    with pytest.warns(UserWarning, match="nothing was pushed: this collection is sealed"):
        assert not nudge.push(force=True).pushed
    with pytest.raises(nudge_rag.PushError, match="this collection is sealed: nothing was written"):
        push_vectors(store, nudge.ids, nudge.originals, nudge.vectors)
    assert nudge_rag.versions(store) == []
