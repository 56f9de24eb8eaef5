"""The folder beside a file with nudged vectors is deleted, or left behind: they are never taken for originals."""

from __future__ import annotations

import json
import shutil
import warnings

import numpy as np
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters, SimpleVectorStore, VectorStoreQuery

from nudge_rag import (
    CorruptArchiveError,
    JournalError,
    LabeledPairs,
    LostHistoryError,
    prune,
    reapply,
    repair,
    rollback,
    status,
    switch,
    take_over,
    tune,
    versions,
)
from nudge_rag.journal.away import AwayNodes
from nudge_rag.journal.ingested import IngestedNodes
from nudge_rag.journal.journal import original_vectors
from nudge_rag.journal.push import push_vectors
from nudge_rag.journal.store_record import read_json, write_json
from nudge_rag.stores import InMemoryStore, SimpleStore
from nudge_rag.stores.stamps import Stamps, read_stamps
from nudge_rag.tuning.adapters import LiveAdapter, open_journal
from tests.integrations.test_node_map import mapping_nudge
from tests.stores.test_returned import IDS, MOVED, ROWS, FaissFolder, InMemoryFile, SimpleFile

PAIRS = LabeledPairs.from_pairs((f"{word} {node}", node) for node in IDS for word in "abcdefgh")
LOST = r"node\(s\) of this (simple|in-memory|faiss) store hold vectors that a push wrote, such as 'n"


def embed(texts):
    return np.array([ROWS[IDS.index(text.split()[1])] for text in texts])


@pytest.fixture(params=[SimpleFile, InMemoryFile, FaissFolder], ids=lambda kind: kind.__name__)
def kept(request, tmp_path):
    folder = tmp_path / "kept"
    folder.mkdir()
    made = request.param(folder)
    made.file = folder / "index.faiss" if request.param is FaissFolder else made.path
    made.history = made.file.with_name(made.file.name + ".nudge-rag")
    return made


def push(kept, ids=IDS[:5], vectors=MOVED, **options):
    store = kept.connect()
    originals = original_vectors(store, ids, store.read(ids))
    return push_vectors(store, ids, originals, store.as_stored(vectors), **options)


def test_every_call_is_refused_and_the_store_stays_as_it_is_until_it_is_said_what_to_do(kept):
    push(kept)
    held = kept.connect().read(IDS)
    shutil.rmtree(kept.history)
    for call in (
        status,
        versions,
        rollback,
        reapply,
        repair,
        take_over,
        lambda store: tune(store, PAIRS, embed),
        lambda store: push_vectors(store, IDS[:5], ROWS[:5], MOVED + 1),
        lambda store: push_vectors(store, IDS[:5], ROWS[:5], MOVED + 1, versions=kept.history.parent / "elsewhere"),
    ):
        with pytest.raises(JournalError, match=r"Bring that back, .*take_over\(store, force=True\)"):
            call(kept.connect())
    with pytest.raises(JournalError, match=rf"5 {LOST}.* the push was recorded in .*\.nudge-rag"):
        status(kept.connect())
    assert kept.connect().read(IDS).tobytes() == held.tobytes()
    assert not kept.history.exists()
    assert take_over(kept.connect(), force=True) == ()
    assert status(kept.connect()).version is None
    assert push(kept, vectors=MOVED + 1).written == 5
    assert rollback(kept.connect()).restored == 5
    assert kept.connect().read(IDS).tobytes() == held.tobytes(), "what was there counts as the nodes' own"


def test_after_a_rollback_the_folder_may_go(kept):
    push(kept)
    push(kept, vectors=MOVED + 1)
    rollback(kept.connect())
    shutil.rmtree(kept.history)
    assert status(kept.connect()).version is None
    content = kept.file.read_bytes()
    assert not any(stamp in content for stamp in (b"nudge_rag", b"NUDGERAG")), "nothing of it is left in the file"
    assert push(kept).written == 5
    rollback(kept.connect())
    assert kept.connect().read(IDS).tobytes() == ROWS.astype(kept.connect().capabilities.dtype).tobytes()


@pytest.mark.parametrize("way", ["rolled back to", "switched", "switched back", "mapped", "died", "given back"])
def test_whatever_made_vectors_live_they_are_known(kept, tmp_path, way):
    if way == "mapped":
        mapping_nudge(kept.connect(), None, own="n3").push()
    else:
        push(kept)
    if way == "rolled back to":
        push(kept, vectors=MOVED + 1)
        rollback(kept.connect(), version="0002")
    if way.startswith("switched"):
        push(kept, vectors=MOVED + 1, mode="side-by-side")
        switch(kept.connect())
    if way == "switched back":
        rollback(kept.connect(), version="0002")
    if way == "given back":
        store = kept.connect()
        store.replace(IDS[:2], ROWS[:2] + 3)
        store.replace(IDS[:2], ROWS[:2])
        reapply(kept.connect())
    if way == "died":
        store = kept.connect()
        with pytest.raises(Exception, match="no more"):
            push_vectors(failing(store), IDS[:5], ROWS[:5], MOVED + 1)
    n_nudged = int((kept.connect().read(IDS) != ROWS).any(axis=1).sum())
    assert n_nudged == (8 if way == "mapped" else 5)
    shutil.rmtree(kept.history)
    with pytest.raises(JournalError, match=rf"{n_nudged} {LOST}"):
        status(kept.connect())


def failing(store):
    """A store whose vectors cannot be read back after they were written."""
    read, written = store.read, []

    def read_before(ids):
        if written:
            raise OSError("no more")
        return read(ids)

    write = store.replace_vectors_if
    store.read = read_before
    store.replace_vectors_if = lambda *given: (write(*given), written.append(1))[0]
    return store


def test_what_the_framework_saves_itself_keeps_the_stamps_but_in_faiss(kept):
    push(kept)
    kept.remember()
    kept.bring_back()
    shutil.rmtree(kept.history)
    if isinstance(kept, FaissFolder):  # its format has no place for them
        assert status(kept.connect()).version is None
        return
    with pytest.raises(JournalError, match=LOST):
        status(kept.connect())


def test_nodes_that_are_embedded_again_are_no_longer_asked_about(kept):
    push(kept)
    shutil.rmtree(kept.history)
    store = kept.connect()
    store.replace(IDS[1:], ROWS[1:])
    with pytest.raises(JournalError, match=rf"1 {LOST}0'"):
        status(kept.connect())
    kept.connect().replace(IDS[:1], ROWS[:1])
    assert status(kept.connect()).version is None


def test_a_file_that_is_moved_alone_names_the_history_that_it_left_behind(kept, tmp_path):
    push(kept)
    moved = type(kept).__new__(type(kept))
    shutil.copytree(kept.file.parent, tmp_path / "new", ignore=shutil.ignore_patterns("*.nudge-rag"))
    moved.folder, moved.path = tmp_path / "new", tmp_path / "new" / kept.file.name
    with pytest.raises(JournalError, match=rf"If this is the store in {kept.file}, pass persist_path="):
        status(moved.connect())
    kept.file.unlink()
    with pytest.raises(JournalError, match=r"Bring it to the store with nudge_rag.take_over\(store, "):
        status(moved.connect())
    assert take_over(moved.connect(), kept.history) == ("0001",)
    assert rollback(moved.connect()).restored == 5
    assert moved.connect().read(IDS).tobytes() == ROWS.astype(moved.connect().capabilities.dtype).tobytes()


def test_a_copy_of_a_file_copies_the_version_that_it_holds_and_the_origin_keeps_its_own(kept, tmp_path):
    push(kept)
    copied = type(kept).__new__(type(kept))
    shutil.copytree(kept.file.parent, tmp_path / "new", ignore=shutil.ignore_patterns("*.nudge-rag"))
    copied.folder, copied.path = tmp_path / "new", tmp_path / "new" / kept.file.name
    push(kept, vectors=MOVED + 1)
    assert take_over(copied.connect(), kept.history) == ("0001",)
    for made in (copied, kept):
        assert status(made.connect()).lost == ()
        assert rollback(made.connect()).restored == 5
        assert made.connect().read(IDS).tobytes() == ROWS.astype(made.connect().capabilities.dtype).tobytes()


@pytest.mark.parametrize("kind", [SimpleFile, InMemoryFile], ids=lambda kind: kind.__name__)
def test_a_copy_of_a_file_knows_a_node_that_was_away_in_the_origin_and_one_that_was_mapped_at_ingestion(kind, tmp_path):
    (tmp_path / "kept").mkdir()
    kept = kind(tmp_path / "kept")
    push(kept)
    held, mapped = kept.connect().read(IDS), kept.connect().read(IDS[7:]) + 1
    saved = json.loads(kept.path.read_text())
    kept.path.write_text(json.dumps(without(saved, "n0")))
    push(kept, IDS[1:6], held[1:6] + 1)
    IngestedNodes(kept.connect().history()).add(kept.connect().read(IDS[7:]), mapped)
    copied = kind.__new__(kind)
    shutil.copytree(kept.path.parent, tmp_path / "new", ignore=shutil.ignore_patterns("*.nudge-rag"))
    copied.path = tmp_path / "new" / kept.path.name
    assert take_over(copied.connect(), kept.path.with_name(kept.path.name + ".nudge-rag")) == ("0002",)
    for made in (copied, kept):
        assert status(made.connect()).away == ("n0",)
        made.path.write_text(json.dumps(put_back(json.loads(made.path.read_text()), saved, "n0")))
        made.connect().replace(IDS[7:], mapped)
        store = made.connect()
        assert original_vectors(store, IDS, store.read(IDS)).tobytes() == ROWS.astype(held.dtype).tobytes()
        rollback(made.connect())
        assert made.connect().read(IDS).tobytes() == ROWS.astype(held.dtype).tobytes()


def without(content, node_id):
    """What a file of either framework holds, without a node."""
    if "embedding_dict" not in content:
        return {name: entry for name, entry in content.items() if name != node_id}
    return {part: {name: one for name, one in known.items() if name != node_id} for part, known in content.items()}


def put_back(content, saved, node_id):
    if "embedding_dict" not in content:
        return content | {node_id: saved[node_id]}
    return {part: known | {node_id: saved[part][node_id]} for part, known in content.items()}


def test_a_history_beside_a_file_of_other_nodes_is_not_taken_over(kept, tmp_path):
    push(kept)
    folder = tmp_path / "other"
    folder.mkdir()
    other = SimpleFile(folder)
    other.connect().replace(IDS, ROWS + 3)
    with pytest.raises(JournalError, match=r"the history of another store|does not explain|that this one may hold"):
        take_over(other.connect(), kept.history)
    assert status(kept.connect()).version == "0001"


def test_the_framework_sees_nothing_of_stamps(tmp_path):
    kept = SimpleFile(tmp_path)
    made = SimpleVectorStore.from_persist_path(str(kept.path))
    before = made.to_dict()
    push_vectors(SimpleStore(made, persist_path=kept.path), IDS[:5], ROWS[:5], MOVED)
    assert {**made.to_dict(), "embedding_dict": None} == {**before, "embedding_dict": None}


@pytest.mark.parametrize("stamps", ["x", 7, [], {"nodes": 1}, {"nodes": {"n0": 1}}, {"nodes": {"n0": "ff"}}])
def test_stamps_that_nobody_should_have_written_are_none(tmp_path, stamps):
    kept = SimpleFile(tmp_path)
    content = json.loads(kept.path.read_text())
    content["metadata_dict"]["__nudge_rag__"] = stamps
    kept.path.write_text(json.dumps(content))
    assert status(kept.connect()).version is None
    assert push_vectors(kept.connect(), IDS[:5], ROWS[:5], MOVED).pushed


@pytest.mark.parametrize("end", [b"", b"NUDGERAG", b"\xff" * 8 + b"NUDGERAG", b"[1]" + b"\3" + bytes(7) + b"NUDGERAG"])
def test_an_end_of_a_file_that_is_no_stamps_is_none(tmp_path, end):
    (tmp_path / "index").write_bytes(b"0123456789" + end)
    assert read_stamps(tmp_path / "index") == Stamps()


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        ("/nul\0byte", r"/nul\x00byte. Bring"),
        ("/" + "long" * 2_000, "/" + "long" * 1_023 + "lon..."),
        ("/\x1b[31mred\nline", r"/\x1b[31mred line. Bring"),
        ("postgresql://me:s3cret@host/db?password=t0ken", "postgresql://me:***@host/db?password=***. Bring"),
        (["a"], "['a']. Bring"),
    ],
    ids=["NUL", "long", "escape", "secret", "list"],
)
def test_a_place_that_somebody_wrote_into_the_file_is_shown_in_one_line_without_secrets(tmp_path, place, shown):
    kept = SimpleFile(tmp_path)
    push(kept)
    shutil.rmtree(f"{kept.path}.nudge-rag")
    content = json.loads(kept.path.read_text())
    content["metadata_dict"]["__nudge_rag__"]["history"] = place
    kept.path.write_text(json.dumps(content))
    with pytest.raises(JournalError, match=LOST) as raised:
        status(kept.connect())
    assert f"recorded in {shown}" in str(raised.value)


@pytest.mark.parametrize("metadata", [{}, None, "missing"])
@pytest.mark.filterwarnings("ignore:'NoneType' object value of non-optional type:RuntimeWarning")
def test_a_store_without_metadata_stays_one(tmp_path, metadata):
    kept = SimpleFile(tmp_path)
    content = {**json.loads(kept.path.read_text()), "metadata_dict": metadata}
    if metadata == "missing":
        del content["metadata_dict"]
    kept.path.write_text(json.dumps(content))
    push(kept)
    only_a = MetadataFilters(filters=[MetadataFilter(key="a", value="a")])
    with pytest.raises(ValueError, match="Cannot filter stores that were persisted without metadata"):
        SimpleVectorStore.from_persist_path(str(kept.path)).query(
            VectorStoreQuery(query_embedding=[1.0] * ROWS.shape[1], filters=only_a)
        )
    shutil.rmtree(f"{kept.path}.nudge-rag")
    with pytest.raises(JournalError, match=rf"5 {LOST}"):
        status(kept.connect())
    take_over(kept.connect(), force=True)
    assert "__nudge_rag__" not in kept.path.read_text()


def test_a_repair_that_leaves_no_record_of_what_nodes_hold_reports_that(kept):
    push(kept)
    push(kept, vectors=MOVED + 1)
    shutil.rmtree(kept.history / "0002")
    with pytest.raises(CorruptArchiveError, match="the record of version 0002 is gone"):
        status(kept.connect())
    report = repair(kept.connect())
    assert report.set_aside == ("0001",), "which needs the other"
    assert "the record of version 0002 is gone" in report.found[0]
    assert "5 node(s) of this" in report.found[-1]
    with pytest.raises(JournalError, match=LOST):
        status(kept.connect())
    take_over(kept.connect(), force=True)
    assert status(kept.connect()).version is None
    assert repair(kept.connect()).found == ()


def test_records_that_are_gone_together_are_forgotten_by_force(kept):
    push(kept)
    shutil.rmtree(kept.history / "0001")
    with pytest.raises(JournalError, match=LOST):
        status(kept.connect())
    take_over(kept.connect(), force=True)
    assert status(kept.connect()).version is None
    assert push(kept, vectors=MOVED + 1).written == 5


def test_a_record_that_an_older_release_pruned_is_not_missed(kept):
    push(kept)
    push(kept, vectors=MOVED + 1)
    storage = kept.connect().history()
    write_json(storage, "store.json", {**read_json(storage, "store.json"), "newest": "0001"})
    shutil.rmtree(kept.history / "0001")
    assert status(kept.connect()).version == "0002"
    assert rollback(kept.connect()).restored == 5
    assert kept.connect().read(IDS).tobytes() == ROWS.astype(kept.connect().capabilities.dtype).tobytes()


@pytest.mark.parametrize("kind", [SimpleFile, InMemoryFile], ids=lambda kind: kind.__name__)
def test_a_retriever_finds_the_history_of_what_its_framework_loaded_and_serves_without_it_with_a_warning(
    kind, tmp_path
):
    kept = kind(tmp_path)
    push(kept)
    history = kept.path.with_name(kept.path.name + ".nudge-rag")

    def load():
        if kind is SimpleFile:
            return SimpleStore(SimpleVectorStore.from_persist_path(str(kept.path)))
        return InMemoryStore(InMemoryVectorStore.load(str(kept.path), DeterministicFakeEmbedding(size=len(ROWS[0]))))

    assert open_journal(load(), None).live.name == "0001"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LiveAdapter(load).start()
    with pytest.raises(LostHistoryError, match="pass persist_path=") as caught:
        status(load())
    assert caught.value.folder == history.resolve()
    shutil.rmtree(history)
    adapter = LiveAdapter(load)
    with pytest.warns(UserWarning, match=rf"whether queries must pass a map .*5 {LOST}"):
        adapter.start()
    assert adapter.map_query([0.6, 0.8]) == [0.6, 0.8]
    with pytest.raises(LostHistoryError) as caught:
        status(load())
    assert caught.value.folder is None


def test_a_node_that_was_away_is_known_though_the_records_of_all_pushes_were_pruned(kept):
    push(kept)
    held = kept.connect().read(IDS[:1])
    kept.remember()
    rollback(kept.connect())
    storage = kept.connect().history()
    AwayNodes(storage).add([(IDS[0], held[0], ROWS[0].astype(held.dtype))])
    assert prune(kept.connect()) == ("0001",)
    kept.bring_back()
    kept.connect().replace(IDS[1:5], ROWS[1:5])  # all have come back
    assert status(kept.connect()).away == (IDS[0],)
    assert rollback(kept.connect()).restored == 1
    assert kept.connect().read(IDS).tobytes() == ROWS.astype(kept.connect().capabilities.dtype).tobytes()
