"""Labels of a TuningState survive new ids: by texts that it has recorded itself, and by documents."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from nudge_rag import LabeledPairs, TuningState
from nudge_rag.stores import MappingStore
from tests.unit.tuning.test_new_ids import NEW, NODES, OLD, PAIRS, N, embed, rebuild, texts_of


@pytest.fixture
def table():
    return dict(zip(OLD, NODES.tolist(), strict=True))


def state_of(table, folder, **options):
    return TuningState(MappingStore(table, key="test"), embed, versions=folder, **options)


def under_new_ids(pairs):
    names = dict(zip(OLD, NEW, strict=True))
    qrels = {query: {names[node]: grade for node, grade in grades.items()} for query, grades in pairs.qrels.items()}
    return LabeledPairs(pairs.queries, qrels)


def assert_same_nudge(state, expected):
    found, wanted = state.solve(), expected.solve()
    assert found.ids == wanted.ids
    assert found.vectors.tobytes() == wanted.vectors.tobytes()
    assert str(found.comparison) == str(wanted.comparison)


@pytest.mark.parametrize("solver", ["nudge-n", "nudge-contrastive"])
@pytest.mark.parametrize("way", ["loaded", "asked"])
def test_a_rebuilt_index_has_the_labels_of_before(table, tmp_path, way, solver):
    """As if the pairs had named the new ids from the beginning."""
    state = state_of(table, tmp_path / "v", texts=texts_of, solver=solver)
    state.add_pairs(PAIRS)
    state.solve()
    state.save(tmp_path / "state")
    rebuild(table)
    if way == "loaded":
        options = {"versions": tmp_path / "v", "texts": texts_of, "solver": solver}
        state = TuningState.load(tmp_path / "state", MappingStore(table, key="elsewhere"), embed, **options)
        assert state.follow_new_ids() == {}
    else:
        assert state.follow_new_ids() == dict(zip(OLD[: N - 2], NEW[: N - 2], strict=True))
    expected = state_of(table, tmp_path / "v", texts=texts_of, solver=solver)
    expected.add_pairs(under_new_ids(PAIRS))
    assert_same_nudge(state, expected)
    # Labels may go on to name the old ids, and are taken out again under these.
    more = LabeledPairs.from_pairs((f"more {at}", OLD[at]) for at in range(4))
    with pytest.warns(UserWarning, match=r"4 labelled node id\(s\) are not in mapping.*'old-0' is now 'new-0'"):
        state.add_pairs(more)
    expected.add_pairs(under_new_ids(more))
    assert len(state) == len(PAIRS) + 4
    assert_same_nudge(state, expected)
    with pytest.warns(UserWarning, match="were found by text"):
        state.remove_pairs(more)
    assert len(state) == len(PAIRS)


@pytest.mark.slow
def test_a_state_finds_the_same_in_every_process():
    """Sets of texts have another order in each."""
    script = (
        "from tests.unit.tuning.test_state_new_ids import *\n"
        "rebuilt = dict(zip(NEW, NODES.tolist(), strict=True))\n"
        "state = state_of(rebuilt, None, texts=texts_of, solver='nudge-contrastive')\n"
        "state.add_pairs(under_new_ids(PAIRS))\n"
        "state.solve()\n"
        "print(list(state._lists.of_training))\n"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
            cwd=Path(__file__).parents[3],
            capture_output=True,
            check=True,
        ).stdout
        for seed in "01"
    }
    assert len(found) == 1


def test_without_texts_a_state_says_that_its_nodes_are_not_there(table, tmp_path):
    state = state_of(table, tmp_path / "v", texts=texts_of)
    state.add_pairs(PAIRS)
    state.save(tmp_path / "state")
    rebuild(table)
    with pytest.raises(ValueError, match="was made for test, not for elsewhere"):
        TuningState.load(tmp_path / "state", MappingStore(table, key="elsewhere"), embed, versions=tmp_path / "v")


def test_the_nudge_of_a_state_records_texts_and_is_found_by_them(table, tmp_path):
    state = state_of(table, tmp_path / "v", texts=texts_of)
    state.add_pairs(PAIRS)
    nudge = state.solve()
    assert nudge.text_hashes.keys() == set(nudge.ids)
    assert nudge.text_hashes.keys() | nudge.label_hashes.keys() == set(PAIRS.node_ids)
    assert nudge.push().pushed
    rebuild(table)
    # Another state, that knows nothing but what the push recorded.
    other = state_of(table, tmp_path / "v", texts=texts_of)
    with pytest.warns(UserWarning, match="were found by text"):
        other.add_pairs(PAIRS)
    assert set(other.solve().ids) <= set(NEW)
    assert len(other) == len(PAIRS)


def test_labels_by_document_go_to_chunks_and_are_taken_out_again(table, tmp_path):
    table.update({f"back-{at}": (-NODES[at]).tolist() for at in range(N)})
    documents = {f"{kind}-{at}": f"document {at}" for at in range(N) for kind in ("old", "back")}
    options = {"documents": lambda ids: [documents.get(node_id) for node_id in ids]}
    state = state_of(table, tmp_path / "v", **options)
    pairs = LabeledPairs.from_pairs((f"{word} {at}", f"document {at}") for at in range(N - 2) for word in "abcdefghij")
    with pytest.warns(UserWarning, match=r"8 label\(s\) name documents"):
        state.add_pairs(pairs)
    chunks = {node_id for part in state.pairs() for node_id in part.node_ids}
    nearest = {OLD[at] if embed([f"a {at}"])[0] @ NODES[at] > 0 else f"back-{at}" for at in range(N - 2)}
    assert chunks == nearest
    assert len(state) == len(pairs)
    taken = LabeledPairs.from_pairs((f"{word} 0", "document 0") for word in "abcde")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state.remove_pairs(taken)
    assert len(state) == len(pairs) - 5
    assert set(state.solve().ids) <= nearest
