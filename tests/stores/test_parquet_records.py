"""The history of Parquet files outside of this machine: as files on a file system of fsspec, here in memory."""

from __future__ import annotations

import contextlib
import json
import pickle
import time

import numpy as np
import pytest

pytest.importorskip("pyarrow")
fsspec = pytest.importorskip("fsspec")
import pyarrow  # noqa: E402
import pyarrow.parquet  # noqa: E402

from nudge_rag.errors import LockedError  # noqa: E402
from nudge_rag.stores import ParquetStore, leases  # noqa: E402
from nudge_rag.stores.parquet import records, replacing, snapshots  # noqa: E402

numbers = iter(range(1_000))


@pytest.fixture
def open_again(monkeypatch):
    """Opens the same files, as another process does."""
    monkeypatch.setattr(leases, "SECONDS_TO_SETTLE", 0.01)
    filesystem = fsspec.filesystem("memory")
    folder = f"/records-{next(numbers)}/docs"
    table = pyarrow.table({"id": ["a", "b"], "embedding": [[1.0, 0.0], [0.0, 1.0]]})
    filesystem.mkdirs(folder)
    with filesystem.open(f"{folder}/part-0.parquet", "wb") as file:
        pyarrow.parquet.write_table(table, file)
    yield lambda: ParquetStore(folder, filesystem=filesystem)
    filesystem.rm(folder.rpartition("/")[0], recursive=True)


@pytest.fixture
def read_paths(monkeypatch):
    """The names of the files that are read as records, in this order."""
    paths = []
    read = records.read_record

    def note(filesystem, path):
        paths.append(path.rpartition("/")[2])
        return read(filesystem, path)

    monkeypatch.setattr(records, "read_record", note)
    return paths


def test_names_follow_what_others_write_and_delete(open_again, read_paths):
    mine, other = open_again().history(), open_again().history()
    assert mine.names() == []
    other.write("0001/manifest.json", b"1")
    other.write("0002/manifest.json", b"2")
    assert mine.names() == ["0001/manifest.json", "0002/manifest.json"]
    read_paths.clear()
    other.write("0001/manifest.json", b"3")
    other.delete("0002/manifest.json")
    other.write("0003/manifest.json", b"4")
    read_paths.clear()
    assert mine.names() == ["0001/manifest.json", "0003/manifest.json"]
    # Only the head that is new.
    assert len(read_paths) == 1
    assert mine.names("0003/") == ["0003/manifest.json"]
    assert mine.read("0001/manifest.json") == b"3"


def test_names_that_were_read_once_are_known_to_each_history_of_a_store(open_again, read_paths):
    store = open_again()
    store.history().write("0001/manifest.json", b"1")
    store.history().names()
    read_paths.clear()
    assert store.history().names() == ["0001/manifest.json"]
    assert read_paths == []


def test_what_is_no_head_has_no_name(open_again):
    """Also if somebody has copied a head: its name is that of the other."""
    history = open_again().history()
    history.write("0001/manifest.json", b"1")
    filesystem = history._filesystem
    (head,) = history._paths()["head"]
    content = records.read_record(filesystem, head)
    strange = json.dumps({**json.loads(content), "id": "head ../elsewhere", "name": "../elsewhere"}).encode()
    records.write_record(filesystem, f"{history._folder}/head-strange.json", strange)
    assert open_again().history().names() == ["0001/manifest.json"]


@pytest.mark.parametrize("part_size", [4, 64_000_000])
def test_parts_of_a_writer_that_died_are_deleted_and_no_others(open_again, monkeypatch, part_size):
    monkeypatch.setattr(records, "PART_SIZE", part_size)
    history = open_again().history()
    history.write("0001/manifest.json", b"first")
    history.write("0002/manifest.json", b"second")
    kept = set(history._paths()["part"])
    assert len(kept) == (2 + 2 if part_size == 4 else 2)
    put = history.put

    def die(records):
        if records[0].kind == "head":
            raise KeyboardInterrupt
        put(records)

    history.put = die
    with pytest.raises(KeyboardInterrupt):
        history.write("0001/manifest.json", b"never")
    assert set(history._paths()["part"]) > kept
    other = open_again().history()
    with other.lock():
        assert set(other._paths()["part"]) == kept
    assert [other.read(name) for name in other.names()] == [b"first", b"second"]


def test_a_lock_reads_no_blob_if_nothing_is_unfinished(open_again, read_paths):
    history = open_again().history()
    for number in range(5):
        history.write(f"000{number}/manifest.json", b"1")
    read_paths.clear()
    with history.lock():
        pass
    assert {path.partition("-")[0] for path in read_paths} == {"lease"}


def lose(lease):
    """As after a stop of some seconds: it has expired, and another process holds it."""
    lease._record.write('{"holder": "another"}')
    time.sleep(leases.SECONDS_TO_SETTLE)


def test_a_writer_that_has_lost_the_lock_makes_nothing_count(open_again, monkeypatch):
    store = open_again()
    store.replace(["a"], np.array([[0.6, 0.8]]))
    lock = store._files.beside()._locking
    change = replacing.map_fragments

    def change_late(*arguments):
        lose(lock._lease)
        return change(*arguments)

    monkeypatch.setattr(replacing, "map_fragments", change_late)
    with pytest.raises(LockedError, match="the lock was taken over"):
        store.replace(["a"], np.array([[0.8, 0.6]]))
    assert open_again().read(["a"]).tolist() == [[0.6, 0.8]]


def test_a_push_that_lost_the_history_before_it_locked_the_files_makes_nothing_count(open_again):
    store = open_again()
    history = store.history()
    with history.lock():
        lose(history._lease)
        with pytest.raises(LockedError, match="the lock was taken over"):
            store.replace(["a"], np.array([[0.8, 0.6]]))
    assert open_again().read(["a"]).tolist() == [[1.0, 0.0]]
    store.replace(["a"], np.array([[0.8, 0.6]]))
    assert open_again().read(["a"]).tolist() == [[0.8, 0.6]]


def test_a_store_that_was_pickled_writes(open_again):
    store = open_again()
    history = store.history()
    with history.lock():
        again = pickle.loads(pickle.dumps(store))
        again.replace(["a"], np.array([[0.8, 0.6]]))
    assert store.read(["a"]).tolist() == [[0.8, 0.6]]


def test_a_write_is_seen_at_once(open_again):
    first, second = open_again(), open_again()
    first.replace(["a"], np.array([[0.6, 0.8]]))
    assert second.read(["a", "b"]).tolist() == [[0.6, 0.8], [0.0, 1.0]]
    second.replace(["a"], np.array([[0.8, 0.6]]))
    assert first.read(["a"]).tolist() == [[0.8, 0.6]]


def test_a_writer_that_has_lost_the_lock_deletes_no_file_of_the_one_that_took_it(open_again, monkeypatch):
    """It was stopped after its write counted, before it looked which files nobody needs any more."""
    store = open_again()
    files, listed = store._files.beside(), snapshots.list_inside
    taken = []

    def take_over(filesystem, folder, **options):
        if folder == files.rewritten and not taken:
            taken.append(True)
            files._locking._lease._record.remove()
            time.sleep(leases.SECONDS_TO_SETTLE)
            open_again().replace(["b"], np.array([[0.8, 0.6]]))
        return listed(filesystem, folder, **options)

    monkeypatch.setattr(snapshots, "list_inside", take_over)
    monkeypatch.setattr(leases, "process_lock", lambda key: contextlib.nullcontext())
    store.replace(["a"], np.array([[0.6, 0.8]]))
    assert taken
    assert open_again().read(["a", "b"]).tolist() == [[0.6, 0.8], [0.8, 0.6]]


def test_a_writer_that_has_lost_the_lock_deletes_no_parts_of_the_one_that_took_it(open_again, monkeypatch):
    """It was stopped after it got the lock, before it looked for what is unfinished."""
    mine, other = open_again().history(), open_again().history()
    monkeypatch.setattr(leases, "process_lock", lambda key: contextlib.nullcontext())
    delete_unfinished, put = mine._delete_unfinished, other.put

    def put_slowly(records):
        if records[0].kind == "head":
            with pytest.raises(LockedError, match="the lock was taken over"):
                delete_unfinished()
        put(records)

    def take_over():
        mine._lease._record.remove()
        time.sleep(leases.SECONDS_TO_SETTLE)
        with other.lock():
            other.put = put_slowly
            other.write("0001/manifest.json", b"1")

    mine._delete_unfinished = take_over
    with mine.lock():
        pass
    assert open_again().history().read("0001/manifest.json") == b"1"


@pytest.mark.parametrize("what", ["history", "files"])
def test_a_list_that_fails_is_an_error_and_not_empty(open_again, monkeypatch, what):
    """Find of fsspec passes over folders that cannot be listed, as if there were nothing in them."""
    store = open_again()
    store.history().write("0001/manifest.json", b"1")
    filesystem = type(fsspec.filesystem("memory"))
    ls, failures = filesystem.ls, [OSError("connection reset")]

    def fail_once(self, *arguments, **options):
        if failures:
            raise failures.pop()
        return ls(self, *arguments, **options)

    call = store.history().names if what == "history" else store.count
    expected = call()
    monkeypatch.setattr(filesystem, "find", fsspec.AbstractFileSystem.find)
    monkeypatch.setattr(filesystem, "ls", fail_once)
    with pytest.raises(OSError, match="connection reset"):
        call()
    assert not failures
    assert call() == expected


def test_files_are_found_at_every_depth_and_a_folder_that_goes_meanwhile_is_passed_over(open_again, monkeypatch):
    store = open_again()
    filesystem, folder = fsspec.filesystem("memory"), store._files.source.root
    for place in ("lang=de/year=1", "lang=en"):
        filesystem.mkdirs(f"{folder}/{place}")
        table = pyarrow.table({"id": [place], "embedding": [[1.0, 0.0]]})
        with filesystem.open(f"{folder}/{place}/part.parquet", "wb") as file:
            pyarrow.parquet.write_table(table, file)
    assert store.count() == 4
    ls, left = type(filesystem).ls, [True]

    def remove(self, path, *arguments, **options):
        found = ls(self, path, *arguments, **options)
        if path.strip("/") == folder.strip("/") and left:
            left.clear()
            self.rm(f"{folder}/lang=en", recursive=True)
        return found

    monkeypatch.setattr(type(filesystem), "find", fsspec.AbstractFileSystem.find)
    assert store.count() == 4
    monkeypatch.setattr(type(filesystem), "ls", remove)
    assert store.count() == 3
