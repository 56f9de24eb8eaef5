"""An older backup of a history is put back alone, beside a newer file: what later pushes wrote is no original."""

from __future__ import annotations

import json
import shutil
import warnings

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_nudge import embedding_store
from llama_index.core.vector_stores import SimpleVectorStore

from nudge_rag import (
    LostHistoryError,
    StoreError,
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
from nudge_rag.journal.push import push_vectors
from nudge_rag.stores import InMemoryStore, ParquetStore, SimpleStore
from nudge_rag.tuning.adapters import LiveAdapter, open_journal
from tests.integrations.test_node_map import mapping_nudge
from tests.stores.test_lost_histories import PAIRS, embed, failing, kept, push
from tests.stores.test_returned import IDS, MOVED, ROWS, FaissFolder, InMemoryFile, SimpleFile

__all__ = ["kept"]

OLDER = (
    r"node\(s\) of this (simple|in-memory|faiss) store hold vectors that version {} wrote, such as 'n\d', and its"
    r" history in the folder .*\.nudge-rag does not know that push: the newest it knows is {}, as in an older backup\."
    r" Bring the newer history back, .*take_over\(store, force=True\)"
)


def as_kept(made):
    """Name the file and the folder of a store that has one file, as the fixture does."""
    made.file, made.history = made.path, made.path.with_name(made.path.name + ".nudge-rag")
    return made


def back_up(kept):
    shutil.copytree(kept.history, kept.history.with_name("backup"))


def restore_older(kept):
    """Put the backup in the place of the history, which is kept aside."""
    shutil.move(kept.history, kept.history.with_name("newer"))
    shutil.copytree(kept.history.with_name("backup"), kept.history)


def bring_newer_back(kept):
    shutil.rmtree(kept.history)
    shutil.move(kept.history.with_name("newer"), kept.history)


def files_in(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def as_held(kept, rows=ROWS):
    return rows.astype(kept.connect().capabilities.dtype).tobytes()


def test_every_call_is_refused_before_anything_is_written_and_the_newer_history_undoes_all(kept):
    push(kept)
    back_up(kept)
    push(kept, IDS[2:7], MOVED + 1)
    held, file = kept.connect().read(IDS), kept.file.read_bytes()
    restore_older(kept)
    recorded = files_in(kept.history)
    for call in (
        status,
        versions,
        rollback,
        reapply,
        repair,
        prune,
        take_over,
        lambda store: rollback(store, version="0001"),
        lambda store: tune(store, PAIRS, embed),
        lambda store: push_vectors(store, IDS[:5], ROWS[:5], MOVED + 2),
        lambda store: push_vectors(store, IDS[:5], ROWS[:5], MOVED + 2, mode="side-by-side"),
    ):
        with pytest.raises(LostHistoryError, match="5 " + OLDER.format("0002", "0001")):
            call(kept.connect())
    assert (kept.connect().read(IDS).tobytes(), kept.file.read_bytes()) == (held.tobytes(), file)
    lock = {path for path in files_in(kept.history) if path.name == "lock"}
    assert {path: content for path, content in files_in(kept.history).items() if path not in lock} == {
        path: content for path, content in recorded.items() if path not in lock
    }
    bring_newer_back(kept)
    assert status(kept.connect()).version == "0002"
    assert rollback(kept.connect()).restored == 7, "the second push gave two nodes their originals back"
    assert kept.connect().read(IDS).tobytes() == as_held(kept)


def test_by_force_what_is_there_is_the_nodes_own_and_the_older_history_goes_on(kept):
    push(kept)
    back_up(kept)
    push(kept, IDS[2:7], MOVED + 1)  # n0 and n1 have their originals again
    restore_older(kept)
    held = kept.connect().read(IDS)
    assert take_over(kept.connect(), force=True) == ()
    found = status(kept.connect())
    assert (found.version, found.nudged, found.lost) == ("0001", (), ("n0", "n1"))
    assert set(found.changed) == {"n2", "n3", "n4"}
    assert push(kept, IDS[4:8], MOVED[:4] + 2).version == "0002"
    rollback(kept.connect())
    assert kept.connect().read(IDS).tobytes() == held.tobytes()
    with pytest.raises(OSError, match="has a history already"):
        take_over(kept.connect(), force=True)


def test_an_older_file_beside_the_newer_history_goes_on_as_before(kept):
    push(kept)
    kept.remember()
    push(kept, vectors=MOVED + 1)
    older = {path: path.read_bytes() for path in kept.file.parent.iterdir() if path.is_file()}
    kept.bring_back()
    assert any(path.read_bytes() != content for path, content in older.items())
    assert status(kept.connect()).version == "0002"
    assert rollback(kept.connect()).restored == 5
    assert kept.connect().read(IDS).tobytes() == as_held(kept)


def files_of(kept):
    """The store's files, without the history."""
    return {path: path.read_bytes() for path in kept.file.parent.iterdir() if path.is_file()}


def bring(files):
    for path, content in files.items():
        path.write_bytes(content)


TOO_OLD = (
    r"{} node\(s\) of this (simple|in-memory|faiss) store hold vectors that version {} wrote, such as 'n\d', and its"
    r" history in the folder .*\.nudge-rag keeps no vectors of so old a push: the file seems to be of an older backup\."
    r" Bring the newer file back, .*take_over\(store, force=True\)"
)


def test_an_older_file_whose_push_the_history_has_thinned_out_is_not_taken_for_originals(kept):
    push(kept)
    older = files_of(kept)
    for night in range(1, 5):
        push(kept, IDS[1:6], MOVED + night)
    newest, newer = kept.connect().read(IDS), files_of(kept)
    bring(older)
    held, file = kept.connect().read(IDS), kept.file.read_bytes()
    for call in (status, rollback, reapply, repair, prune, take_over, lambda store: tune(store, PAIRS, embed)):
        with pytest.raises(LostHistoryError, match=TOO_OLD.format(5, "0001")):
            call(kept.connect())
    assert (kept.connect().read(IDS).tobytes(), kept.file.read_bytes()) == (held.tobytes(), file)
    bring(newer)
    assert kept.connect().read(IDS).tobytes() == newest.tobytes()
    assert rollback(kept.connect()).exact
    assert kept.connect().read(IDS).tobytes() == as_held(kept)


def test_nor_is_one_from_before_a_rollback_whose_record_was_pruned(kept):
    push(kept)
    older = files_of(kept)
    rollback(kept.connect())
    push(kept, IDS[5:], MOVED[:3])
    assert prune(kept.connect()) == ("0001",)
    bring(older)
    with pytest.raises(LostHistoryError, match=TOO_OLD.format(5, "0001")):
        status(kept.connect())
    assert take_over(kept.connect(), force=True) == ()
    assert status(kept.connect()).lost == tuple(IDS[5:])


def test_both_from_one_backup_are_as_they_were(kept, tmp_path):
    push(kept)
    shutil.copytree(kept.file.parent, tmp_path / "whole")
    push(kept, vectors=MOVED + 1)
    shutil.rmtree(kept.file.parent)
    shutil.move(tmp_path / "whole", kept.file.parent)
    assert status(kept.connect()).version == "0001"
    assert rollback(kept.connect()).restored == 5
    assert kept.connect().read(IDS).tobytes() == as_held(kept)


def test_a_push_whose_number_another_had_before_is_told_from_it(kept):
    push(kept)
    back_up(kept)
    rollback(kept.connect())
    assert prune(kept.connect()) == ("0001",)
    assert push(kept, vectors=MOVED + 1).version == "0001"
    restore_older(kept)
    with pytest.raises(
        LostHistoryError,
        match="5 " + OLDER.replace("the newest it knows is {}", "its version 0001 is another").format("0001"),
    ):
        status(kept.connect())
    bring_newer_back(kept)
    assert rollback(kept.connect()).restored == 5


@pytest.mark.parametrize("way", ["mapped", "switched", "rolled back to"])
def test_whatever_made_vectors_live_they_are_known(kept, way):
    push(kept)
    back_up(kept)
    push(kept, vectors=MOVED + 1)
    if way == "mapped":
        mapping_nudge(kept.connect(), None).push()
    if way == "switched":
        push(kept, vectors=MOVED + 2, mode="side-by-side")
        switch(kept.connect())
    if way == "rolled back to":
        push(kept, vectors=MOVED + 2)
        rollback(kept.connect(), version="0003")
    restore_older(kept)
    name = "0002" if way == "rolled back to" else "0003"
    with pytest.raises(LostHistoryError, match=OLDER.format(name, "0001")):
        status(kept.connect())


def test_an_older_history_that_knows_what_the_file_holds_is_enough(kept):
    push(kept)
    push(kept, vectors=MOVED + 1)
    back_up(kept)
    rollback(kept.connect(), version="0002")
    restore_older(kept)
    assert rollback(kept.connect()).restored == 5
    assert kept.connect().read(IDS).tobytes() == as_held(kept)


def test_nothing_is_said_of_vectors_that_a_kept_record_knows_though_the_push_that_wrote_them_last_was_pruned(kept):
    push(kept)
    with pytest.raises(Exception, match="no more"):
        # It writes the same to four nodes as the version before, another vector to the fifth, and dies.
        push_vectors(failing(kept.connect()), IDS[:5], ROWS[:5], np.concatenate([MOVED[:4], MOVED[4:] + 1]))
    with pytest.warns(UserWarning, match="had not finished"):
        assert prune(kept.connect()) == ("0002",)
    assert len(status(kept.connect()).nudged) == 5
    assert rollback(kept.connect()).restored == 5


def test_stamps_without_the_mark_of_a_push_as_earlier_releases_wrote_them_tell_nothing(tmp_path):
    simple = as_kept(SimpleFile(tmp_path))
    push(simple)
    back_up(simple)
    push(simple, vectors=MOVED + 1)
    restore_older(simple)
    content = json.loads(simple.path.read_text())
    stamps = content["metadata_dict"]["__nudge_rag__"]["nodes"]
    content["metadata_dict"]["__nudge_rag__"]["nodes"] = {
        node: known.partition(":")[0] for node, known in stamps.items()
    }
    simple.path.write_text(json.dumps(content))
    assert len(status(simple.connect()).changed) == 5


@pytest.mark.parametrize("mark", ["", "9" * 5000, "x", "-1", "0002-", "٣", "9-zz", "0007", "0001-00000000"])
def test_marks_that_somebody_wrote_into_the_file_are_no_reason_to_fail_otherwise(tmp_path, mark):
    simple = SimpleFile(tmp_path)
    push(simple)
    content = json.loads(simple.path.read_text())
    stamps = content["metadata_dict"]["__nudge_rag__"]["nodes"]
    assert len(stamps) == 5
    for node, known in stamps.items():
        stamps[node] = f"{known.partition(':')[0]}:{mark}"
    simple.path.write_text(json.dumps(content))
    # The history knows all five vectors, whatever the file says.
    assert len(status(simple.connect()).nudged) == 5


def test_a_repair_that_sets_the_newest_record_aside_reports_what_is_lost_with_it(kept):
    push(kept)
    push(kept, IDS[2:7], MOVED + 1)
    rollback(kept.connect())
    push(kept, IDS[:3], MOVED[:3] + 2)
    manifest = kept.history / "0003" / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:-20])
    report = repair(kept.connect())
    assert report.set_aside == ("0003",)
    assert "3 node(s) of this" in report.found[-1]
    with pytest.raises(LostHistoryError, match="3 " + OLDER.format("0003", "0002")):
        status(kept.connect())
    assert take_over(kept.connect(), force=True) == ()
    assert status(kept.connect()).version is None
    assert repair(kept.connect()).found == ()


def test_a_folder_that_is_too_old_is_not_taken_over_but_by_force(kept, tmp_path):
    push(kept)
    shutil.copytree(kept.history, tmp_path / "older" / kept.connect().key)
    push(kept, vectors=np.concatenate([MOVED[:2], MOVED[2:] + 1]))  # the older record knows two of these
    shutil.rmtree(kept.history)
    with pytest.raises(LostHistoryError, match=r"3 node.* version 0002 wrote.* the newest it knows is 0001"):
        take_over(kept.connect(), tmp_path / "older")
    assert take_over(kept.connect(), tmp_path / "older", force=True) == ("0001",)
    found = status(kept.connect())
    assert (set(found.nudged), set(found.changed)) == ({"n0", "n1"}, {"n2", "n3", "n4"})
    assert rollback(kept.connect()).restored == 2


def test_a_retriever_serves_what_the_file_holds_with_a_warning(kept):
    push(kept)
    back_up(kept)
    push(kept, vectors=MOVED + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LiveAdapter(kept.connect).start()
    restore_older(kept)
    adapter = LiveAdapter(kept.connect)
    with pytest.warns(UserWarning, match="whether queries must pass a map .*5 " + OLDER.format("0002", "0001")):
        adapter.start()
    assert adapter.map_query([0.6, 0.8]) == [0.6, 0.8]
    bring_newer_back(kept)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LiveAdapter(kept.connect).start()


@pytest.mark.parametrize("kind", [SimpleFile, InMemoryFile], ids=lambda kind: kind.__name__)
def test_so_does_one_over_an_index_that_its_framework_loaded(kind, tmp_path):
    kept = as_kept(kind(tmp_path))
    push(kept)
    back_up(kept)
    push(kept, vectors=MOVED + 1)

    def load():
        if kind is SimpleFile:
            return SimpleStore(SimpleVectorStore.from_persist_path(str(kept.path)))
        return InMemoryStore(InMemoryVectorStore.load(str(kept.path), DeterministicFakeEmbedding(size=len(ROWS[0]))))

    assert open_journal(load(), None).live.name == "0002"
    restore_older(kept)
    with pytest.warns(UserWarning, match="5 " + OLDER.format("0002", "0001")):
        LiveAdapter(load).start()


def test_a_push_by_another_process_between_two_looks_is_no_older_history(kept):
    push(kept)
    store = kept.connect()
    assert status(store).version == "0001"
    push(kept, vectors=MOVED + 1)
    assert status(store).version == "0002"
    assert len(status(store).nudged) == 5


def test_an_older_folder_beside_parquet_files_brings_its_vectors_along(tmp_path):
    files, beside = tmp_path / "docs", tmp_path / "docs.nudge-rag"
    files.mkdir()
    column = pyarrow.array(ROWS.tolist(), pyarrow.list_(pyarrow.float32(), ROWS.shape[1]))
    pyarrow.parquet.write_table(pyarrow.table({"id": IDS, "embedding": column}), files / "part-0.parquet")
    push_vectors(ParquetStore(files), IDS[:5], ROWS[:5], MOVED)
    held = ParquetStore(files).read(IDS)
    shutil.copytree(beside, tmp_path / "backup")
    push_vectors(ParquetStore(files), IDS[:5], ROWS[:5], MOVED + 1)
    shutil.rmtree(beside)
    shutil.move(tmp_path / "backup", beside)
    assert ParquetStore(files).read(IDS).tobytes() == held.tobytes()
    assert len(status(ParquetStore(files)).nudged) == 5
    assert rollback(ParquetStore(files)).restored == 5
    assert ParquetStore(files).read(IDS).tobytes() == ROWS.tobytes()


def loaded(kept):
    """Gives a store over what its framework loads from the file now, whenever it is called."""
    if isinstance(kept, FaissFolder):
        index = kept.load()
        return lambda: embedding_store(index, persist_path=kept.file)
    if isinstance(kept, InMemoryFile):
        held = InMemoryVectorStore.load(str(kept.path), DeterministicFakeEmbedding(size=len(ROWS[0])))
        return lambda: InMemoryStore(held, persist_path=kept.path)
    held = SimpleVectorStore.from_persist_path(str(kept.path))
    return lambda: SimpleStore(held, persist_path=kept.path)


@pytest.mark.parametrize("is_undone", [False, True], ids=["pushed", "rolled back"])
def test_what_another_process_did_to_the_file_is_not_told_from_an_older_memory(kept, is_undone):
    if is_undone:
        push(kept)
    opened = loaded(kept)
    if is_undone:
        rollback(kept.connect())
    else:
        push(kept)
    written = kept.file.read_bytes()
    found = status(opened())
    assert found.version == (None if is_undone else "0001")
    assert set(found.outdated) == set(IDS[:5])
    assert (found.nudged, found.lost, found.changed, found.missing, found.returned) == ((), (), (), (), ())
    assert "5 node(s) hold other vectors in memory than in the file, and whose are newer cannot be told: load" in str(
        found
    )
    if not is_undone:
        with pytest.raises(
            StoreError, match=r"5 node\(s\) of this .* in memory than in its file.* nothing was written"
        ):
            reapply(opened())
    assert kept.file.read_bytes() == written
    again = status(loaded(kept)())
    assert (again.outdated, len(again.nudged)) == ((), 0 if is_undone else 5)


def test_nodes_that_truly_lost_their_nudge_are_lost_beside_outdated_ones(kept):
    push(kept)
    kept.connect().replace(IDS[:2], ROWS[:2])
    opened = loaded(kept)
    kept.connect().replace(IDS[3:4], ROWS[3:4])
    found = status(opened())
    assert (set(found.lost), found.outdated, set(found.nudged)) == ({"n0", "n1"}, ("n3",), {"n2", "n4"})
    assert set(status(loaded(kept)()).lost) == {"n0", "n1", "n3"}
