"""Labels and nudges survive new ids: they are found by the texts of nodes, or name documents."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from nudge_rag import LabeledPairs, drop_copies, reapply, rollback, status, switch, tune, versions
from nudge_rag.feedback.pairs import Split
from nudge_rag.journal.new_ids import find_by_text
from nudge_rag.journal.text_hashes import hash_text
from nudge_rag.stores import MappingStore
from tests.support.two_tables import TwoTables

N, D = 10, 8
OLD = [f"old-{i}" for i in range(N)]
NEW = [f"new-{i}" for i in range(N)]
TEXTS = {name: f"text {at}" for names in (OLD, NEW) for at, name in enumerate(names)}
NODES = np.random.default_rng(0).normal(size=(N, D))
WANTED = 0.5 * NODES + np.random.default_rng(1).normal(size=(N, D))
PAIRS = LabeledPairs.from_pairs((f"{word} {at}", OLD[at]) for at in range(N - 2) for word in "abcdefghij")


def embed(texts):
    noise = [np.random.default_rng([ord(sign) for sign in text]).normal(size=D, scale=0.2) for text in texts]
    places = [int(text.split()[1]) if text.split()[-1].isdigit() else 0 for text in texts]
    return np.array([WANTED[at % N] + each for at, each in zip(places, noise, strict=True)])


def texts_of(ids):
    return [TEXTS.get(node_id) for node_id in ids]


@pytest.fixture
def table():
    return dict(zip(OLD, NODES.tolist(), strict=True))


def rebuild(table, noise=0.0):
    """The index is built again from the same texts, under new ids, in another order."""
    table.clear()
    again = NODES + noise * np.random.default_rng(2).normal(size=NODES.shape)
    table.update({NEW[at]: again[at].tolist() for at in reversed(range(N))})


def tuned(table, folder, pairs=PAIRS, **options):
    store = MappingStore(table, key="test")
    return tune(store, pairs, embed, solver="nudge-n", versions=folder, **{"texts": texts_of, **options})


@pytest.mark.parametrize("noise", [0.0, 1e-4])
def test_a_nudge_is_reapplied_to_the_same_texts_under_new_ids_and_can_be_undone(table, tmp_path, noise):
    nudge = tuned(table, tmp_path)
    assert nudge.push().pushed
    rebuild(table, noise)
    before = {node: list(vector) for node, vector in table.items()}
    store = nudge.store
    assert reapply(store, tmp_path) == (), "without texts nobody knows them"
    written = reapply(store, tmp_path, texts=texts_of)
    assert sorted(written) == sorted(NEW[OLD.index(node)] for node in nudge.ids)
    for node, vector in zip(nudge.ids, nudge.vectors, strict=True):
        assert np.array_equal(table[NEW[OLD.index(node)]], vector)
    assert status(store, tmp_path, texts=texts_of).edited == ()
    assert len(status(store, tmp_path).nudged) == len(nudge.ids)
    details = versions(store, tmp_path)[-1].manifest["details"]
    assert details["query_hashes"] == list(nudge.query_hashes)
    assert reapply(store, tmp_path, texts=texts_of) == ()
    rollback(store, tmp_path)
    assert table == before


def test_nodes_embedded_anew_by_another_model_are_left_alone(table, tmp_path):
    nudge = tuned(table, tmp_path)
    assert nudge.push().pushed
    rebuild(table, noise=1.0)
    before = dict(table)
    with pytest.warns(UserWarning, match=r"8 node\(s\) have texts that were nudged, and other embeddings"):
        assert reapply(nudge.store, tmp_path, texts=texts_of) == ()
    assert table == before


def test_old_labels_tune_a_rebuilt_index(table, tmp_path):
    first = tuned(table, tmp_path)
    assert first.push().pushed
    # Two nodes have labels for testing alone: they were not moved, and are known by their texts all the same.
    assert first.label_hashes.keys().isdisjoint(first.ids)
    rebuild(table)
    with pytest.warns(UserWarning, match=r"8 labelled node id\(s\) are not in mapping.*'old-0' is now 'new-0'"):
        nudge = tuned(table, tmp_path)
    assert set(nudge.ids) == {NEW[OLD.index(node)] for node in first.ids}
    assert nudge._what_is_lost() is None, "the same queries, under new ids"


def test_messages_show_ids_of_both_sides(table, tmp_path):
    with pytest.warns(UserWarning), pytest.raises(ValueError, match=r"labels name 'x', mapping holds 'old-0', 'old-1'"):
        tuned(table, tmp_path, LabeledPairs.from_pairs([("a 1", "x")]))
    some = PAIRS + LabeledPairs.from_pairs([("z 1", "x")])
    with pytest.warns(UserWarning, match=r"'x' \(1\).*Ids of mapping are such as 'old-0', 'old-1', 'old-2'"):
        tuned(table, tmp_path, some)


@pytest.mark.parametrize("split", [False, True])
def test_labels_by_document_go_to_the_chunk_that_answers_best(table, tmp_path, split):
    """Each document has two chunks that point in opposite directions: one of them answers."""
    table.update({f"back-{at}": (-NODES[at]).tolist() for at in range(N)})
    documents = {f"{kind}-{at}": f"document {at}" for at in range(N) for kind in ("old", "back")}
    pairs = LabeledPairs.from_pairs((f"{word} {at}", f"document {at}") for at in range(N - 2) for word in "abcdefghij")
    given = pairs.split() if split else pairs
    options = {"documents": lambda ids: [documents.get(node_id) for node_id in ids]}
    with pytest.warns(UserWarning, match="8 label.s. name documents and not nodes, such as 'document 0'"):
        nudge = tuned(table, tmp_path, given, **options)
    learned = nudge.split.train
    for query, text in learned.queries.items():
        at = int(text.split()[1])
        nearest = OLD[at] if embed([text])[0] @ NODES[at] > 0 else f"back-{at}"
        assert list(learned.qrels[query]) == [nearest]
    assert set(nudge.ids) == set(learned.node_ids)
    assert nudge.improves


def test_labels_of_nodes_and_documents_may_be_mixed(table, tmp_path):
    pairs = PAIRS + LabeledPairs.from_pairs((f"{word} 9", "document 9") for word in "abcdefghij")
    documents = {"old-9": "document 9"}
    with pytest.warns(UserWarning, match="such as 'document 9'"):
        nudge = tuned(table, tmp_path, pairs, documents=lambda ids: [documents.get(node) for node in ids])
    assert {node for part in nudge.split for node in part.node_ids} == {*OLD[: N - 2], "old-9"}


def test_twins_are_given_out_one_by_one():
    store = MappingStore({name: [1.0, 0.0] for name in ("x", "y", "z")})
    wanted = {"a": hash_text("same"), "b": hash_text("same")}
    found = find_by_text(store, wanted, lambda ids: ["same" for _ in ids], taken={"x"})
    assert {old: node.id for old, node in found.items()} == {"a": "y", "b": "z"}


def test_a_split_is_renamed_part_by_part(table, tmp_path):
    nudge = tuned(table, tmp_path)
    assert nudge.push().pushed
    rebuild(table)
    with pytest.warns(UserWarning, match="found by text"):
        again = tuned(table, tmp_path, Split(*PAIRS.split()))
    assert set(again.split.test.node_ids) <= set(NEW)


@pytest.mark.parametrize("way", ["switched back", "kept"])
def test_a_nudge_that_a_switch_made_live_is_reapplied_under_new_ids_and_can_be_undone(way, tmp_path):
    store = TwoTables({None: dict(zip(OLD, NODES.tolist(), strict=True))})
    nudge = tune(store, PAIRS, embed, solver="nudge-n", versions=tmp_path, texts=texts_of)
    assert nudge.push(mode="side-by-side").pushed
    switch(store, tmp_path)
    nudged = dict(store.tables[None])
    rebuild(store.tables[None])
    before = dict(store.tables[None])
    written = reapply(store, tmp_path, texts=texts_of)
    moved = (nudge.vectors != nudge.originals).any(axis=1)
    assert sorted(written) == sorted(NEW[OLD.index(nudge.ids[row])] for row in np.flatnonzero(moved))
    for node, vector in zip(nudge.ids, nudge.vectors, strict=True):
        assert np.array_equal(store.tables[None][NEW[OLD.index(node)]], vector)
    found = status(store, tmp_path, texts=texts_of)
    assert (found.version, found.state, len(found.nudged), found.edited) == ("0001", "switched", len(nudge.ids), ())
    assert reapply(store, tmp_path, texts=texts_of) == ()
    if way == "kept":
        drop_copies(store, tmp_path)
    # A node of before that comes back as it was is undone as well.
    store.tables[None][nudge.ids[0]] = nudged[nudge.ids[0]]
    # The copy knows none of the new ids: vectors are written back.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if way == "switched back" else "error")
        rollback(store, tmp_path)
    assert store.tables[None] == before | {nudge.ids[0]: NODES[OLD.index(nudge.ids[0])].tolist()}
