"""Stamps in files: over nobody's key, and at a cost that grows with the nodes, not with the blocks of a push."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import nudge_rag.common.files
import nudge_rag.journal.blocks
import nudge_rag.journal.push_all
import nudge_rag.stores.faiss.index_file
import nudge_rag.stores.stamps
from nudge_rag import LostHistoryError, rollback, status
from nudge_rag.journal.push import push_vectors
from nudge_rag.stores.stamps import stamp_of
from tests.integrations.test_node_map import mapping_nudge
from tests.stores.test_lost_histories import LOST
from tests.stores.test_returned import IDS, MOVED, ROWS, FaissFolder, InMemoryFile, SimpleFile

THEIRS = [
    "mine",
    7,
    None,
    {"vector": "a note"},
    {"vector": "0123456789abcdef", "history": "", "more": 1},
    {"nodes": {}},
]


def as_saved(entries):
    return json.loads(json.dumps(entries))


def check_that_stamps_tell_of_a_lost_history_and_roll_back(kept, tmp_path):
    """Take the history of a push to five nodes away, and bring it back."""
    folder = tmp_path / "vectors.json.nudge-rag"
    shutil.move(folder, tmp_path / "lost")
    with pytest.raises(LostHistoryError, match=rf"5 {LOST}"):
        status(kept.connect())
    shutil.move(tmp_path / "lost", folder)
    assert rollback(kept.connect()).restored == 5


@pytest.mark.parametrize("theirs", THEIRS)
def test_a_key_of_somebody_else_in_an_entry_is_kept(tmp_path, theirs):
    kept = InMemoryFile(tmp_path)
    kept.remember()
    kept.asleep.store["n0"] |= {"nudge_rag": theirs, "nudge_rag_1": "mine too"}
    kept.asleep.store["n7"]["nudge_rag"] = theirs  # which nobody nudges
    kept.bring_back()
    before = as_saved(kept.connect().vector_store.store)
    store = kept.connect()
    push_vectors(store, IDS[:5], store.read(IDS[:5]), MOVED)
    for node_id in ("n0", "n7"):
        entry = kept.connect().vector_store.store[node_id]
        assert {
            name: part for name, part in as_saved(entry).items() if name != "vector" and name in before[node_id]
        } == {name: part for name, part in before[node_id].items() if name != "vector"}
    check_that_stamps_tell_of_a_lost_history_and_roll_back(kept, tmp_path)
    assert as_saved(kept.connect().vector_store.store) == before


def test_another_process_that_changes_such_a_key_is_not_overwritten(tmp_path):
    kept = InMemoryFile(tmp_path)
    store = kept.connect()
    kept.remember()
    kept.asleep.store["n6"]["nudge_rag"] = "mine"
    kept.bring_back()
    push_vectors(store, IDS[:5], store.read(IDS[:5]), MOVED)
    assert kept.connect().vector_store.store["n6"]["nudge_rag"] == "mine"


@pytest.mark.parametrize("theirs", [None, {"page": 3}, {"nodes": {"n0": "a note"}, "history": ""}])
def test_a_node_of_such_an_id_keeps_its_metadata(tmp_path, theirs):
    kept = SimpleFile(tmp_path)
    content = json.loads(kept.path.read_text())
    content["embedding_dict"]["__nudge_rag__"] = ROWS[0].tolist()
    content["metadata_dict"]["__nudge_rag__"] = theirs
    content["text_id_to_ref_doc_id"]["__nudge_rag__"] = "document 1"
    kept.path.write_text(json.dumps(content))
    store, ids = kept.connect(), [*IDS[:4], "__nudge_rag__"]
    push_vectors(store, ids, store.read(ids), MOVED)
    held = json.loads(kept.path.read_text())
    for part in ("metadata_dict", "text_id_to_ref_doc_id"):
        assert {node_id: held[part][node_id] for node_id in content[part]} == content[part]
    check_that_stamps_tell_of_a_lost_history_and_roll_back(kept, tmp_path)
    assert json.loads(kept.path.read_text()) == content


def test_stamps_of_an_earlier_release_are_read(tmp_path):
    (tmp_path / "simple").mkdir()
    kept, other = InMemoryFile(tmp_path), SimpleFile(tmp_path / "simple")
    kept.remember()
    for node_id in IDS[:3]:
        row = ROWS[IDS.index(node_id)].tolist()
        kept.asleep.store[node_id]["nudge_rag"] = {
            "vector": f"{stamp_of(row)} {stamp_of(ROWS[0] + 9)}",
            "history": "/x",
        }
    kept.bring_back()
    content = json.loads(other.path.read_text())
    stamps = {node_id: stamp_of(content["embedding_dict"][node_id]) for node_id in IDS[:3]}
    content["metadata_dict"]["__nudge_rag__"] = {"history": "/x", "nodes": stamps}
    other.path.write_text(json.dumps(content))
    for each in (kept, other):
        with pytest.raises(LostHistoryError, match=rf"3 {LOST}.*recorded in /x\."):
            status(each.connect())
        each.connect().drop_stamps()
        assert "nudge_rag" not in each.path.read_text()


def count_calls(monkeypatch, module, name, counts):
    counted = getattr(module, name)

    def call(*arguments, **options):
        counts[name] = counts.get(name, 0) + 1
        return counted(*arguments, **options)

    monkeypatch.setattr(module, name, call)


@pytest.mark.parametrize("kind", [SimpleFile, InMemoryFile, FaissFolder], ids=lambda kind: kind.__name__)
def test_a_push_to_all_nodes_hashes_each_a_few_times_and_reads_stamps_once_in_however_many_blocks(
    kind, tmp_path, monkeypatch
):
    counts = {}
    for n_blocks in (1, 8):
        monkeypatch.setattr(nudge_rag.journal.push_all, "WRITES_OF_A_FILE", n_blocks)
        monkeypatch.setattr(nudge_rag.journal.blocks, "NUMBERS_PER_BLOCK", 1)
        (tmp_path / str(n_blocks)).mkdir()
        kept = kind(tmp_path / str(n_blocks))
        with monkeypatch.context() as patched:
            found = counts[n_blocks] = {}
            count_calls(patched, nudge_rag.stores.stamps, "stamp_of", found)
            count_calls(patched, nudge_rag.stores.faiss.index_file, "read_stamps", found)
            count_calls(patched, nudge_rag.common.files, "put_over", found)
            mapping_nudge(kept.connect(), None).push()
            assert found.pop("put_over") == n_blocks, "the file is written once a block"
            rollback(kept.connect())
            found.pop("put_over")
        np.testing.assert_array_equal(kept.connect().read(IDS), ROWS.astype(kept.connect().capabilities.dtype))
    hashed = [found.pop("stamp_of") for found in counts.values()]
    assert counts[8] == counts[1]
    # When they are stamped, when they are written, when the file is opened anew, and when they are written back.
    assert 2 * len(IDS) < min(hashed) <= max(hashed) <= 4 * len(IDS)


@pytest.mark.parametrize("kind", [SimpleFile, InMemoryFile, FaissFolder], ids=lambda kind: kind.__name__)
def test_however_many_nodes_there_are_a_map_writes_the_file_as_often(kind, tmp_path, monkeypatch):
    counts = {}
    monkeypatch.setattr(nudge_rag.journal.blocks, "NUMBERS_PER_BLOCK", 1)
    kept = kind(tmp_path)
    count_calls(monkeypatch, nudge_rag.common.files, "put_over", counts)
    monkeypatch.setattr(nudge_rag.journal.push_all, "WRITES_OF_A_FILE", 3)
    mapping_nudge(kept.connect(), None).push()
    assert counts["put_over"] == 3, "eight nodes, of one number a block"
