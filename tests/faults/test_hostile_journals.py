"""Journals that are cut, changed or made to harm: one clear error, no write, nothing unpickled, nothing allocated."""

from __future__ import annotations

import copy
import os
import resource
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from nudge_rag import reapply, rollback, status, versions
from nudge_rag.common.archive import CorruptArchiveError, read_folder, write_folder
from nudge_rag.journal.push import push_vectors
from nudge_rag.journal.versions import as_version
from nudge_rag.stores import MappingStore
from tests.support.hostile import (
    FOLDER,
    assert_whole,
    hostile_arrays,
    hostile_folders,
    hostile_manifests,
    mutations,
    outcome,
    same_record,
    signed,
)

IDS = [f"n{i}" for i in range(6)]
ORIGINALS = np.random.default_rng(0).normal(size=(6, 3))
ROUNDS = int(os.environ.get("NUDGE_RAG_FUZZ", "4000"))


class Watched(MappingStore):
    """Counts writes."""

    writes = 0
    replace_vectors_if = None  # so that every write goes through replace

    def replace(self, ids, vectors):
        self.writes += 1
        super().replace(ids, vectors)


@pytest.fixture
def pushed(tmp_path):
    """A store with a push, and the folder of its record."""
    store = Watched(dict(zip(IDS, ORIGINALS.tolist(), strict=True)), key="test")
    push_vectors(
        store, IDS, ORIGINALS, ORIGINALS + 1, versions=tmp_path / "v", details={"solver": "nudge-n", "gamma": 0.1}
    )
    store.writes = 0
    return store, tmp_path / "v" / "test" / "0001"


def assert_refused(store, root):
    before = copy.deepcopy(store._table)
    actions = {
        "versions": lambda: versions(store, root),
        "status": lambda: status(store, root),
        "rollback": lambda: rollback(store, root),
        "rollback of one": lambda: rollback(store, root, version="0001"),
        "reapply": lambda: reapply(store, root),
        "push": lambda: push_vectors(store, IDS, ORIGINALS, ORIGINALS + 5, versions=root),
    }
    for name, action in actions.items():
        with pytest.raises(CorruptArchiveError, match="0001"):
            action()
            raise AssertionError(f"{name} went through")
    assert store.writes == 0
    assert store._table == before


def files_of(folder):
    return (folder / "manifest.json").read_bytes(), (folder / "arrays.npz").read_bytes()


def test_a_record_cut_at_any_length_is_refused(pushed):
    store, folder = pushed
    manifest, arrays = files_of(folder)
    for name, whole in (("manifest.json", manifest), ("arrays.npz", arrays)):
        for length in range(len(whole)):
            parts = {"manifest.json": manifest, "arrays.npz": arrays, name: whole[:length]}
            assert outcome(*parts.values()) is None, (name, length)
        (folder / name).write_bytes(whole[: len(whole) // 2])
        assert_refused(store, folder.parent.parent)
        (folder / name).write_bytes(whole)
    assert rollback(store, folder.parent.parent).exact


def test_any_flipped_bit_of_the_arrays_is_found(pushed):
    manifest, arrays = files_of(pushed[1])
    for at in range(len(arrays)):
        for bit in range(8):
            flipped = bytearray(arrays)
            flipped[at] ^= 1 << bit
            assert outcome(manifest, bytes(flipped)) is None, (at, bit)


def test_random_damage_is_found_or_changes_nothing(pushed, record_property, capsys):
    """More rounds with NUDGE_RAG_FUZZ. Every fiftieth damaged record is put before a store as well."""
    store, folder = pushed
    whole, true = files_of(folder), outcome(*files_of(folder))
    counts = {"refused": 0, "as it was": 0, "met": 0}
    for number, files in enumerate(mutations(*whole, ROUNDS), start=1):
        found = outcome(*files)
        counts["refused" if found is None else "as it was"] += 1
        assert found is None or same_record(found, true), files
        if number % 50 == 0:
            counts["met"] += 1
            meet(store, folder, files, refused=found is None)
        if number % 50_000 == 0:
            with capsys.disabled():
                print(f"  {number:,} of {ROUNDS:,} damaged records: {counts}", flush=True)  # noqa: T201
    assert counts["refused"] > ROUNDS * 0.9
    assert counts["as it was"] > 0
    assert store.writes == 0
    record_property("fault", "journal damaged at random")
    record_property("store", "")
    record_property("times", ROUNDS)
    record_property("refused", counts["refused"])
    record_property("met", counts["met"])
    record_property("lost", store.writes)


def meet(store, folder, files, refused):
    """Put a damaged record where the journal is, and call everything there is."""
    root = folder.parent.parent
    for name, content in zip(("manifest.json", "arrays.npz"), files, strict=True):
        (folder / name).write_bytes(content)
    if refused:
        assert_refused(store, root)
    else:
        assert [version.name for version in versions(store, root)] == ["0001"]
        assert status(store, root).nudged == tuple(IDS)


def test_random_damage_under_right_checksums_is_refused_or_leaves_a_whole_record(pushed, record_property):
    """Whoever signs anew can say what they like, but not make us read what is no record."""
    whole, read = files_of(pushed[1]), 0
    for files in mutations(*whole, ROUNDS // 4, sign=True, seed=1):
        found = outcome(*files)
        if found is not None:
            read += 1
            assert_whole(found)
    assert 0 < read < ROUNDS // 8
    record_property("fault", "journal damaged at random, checksums made to fit")
    record_property("store", "")
    record_property("times", ROUNDS // 4)
    record_property("refused", ROUNDS // 4 - read)


@pytest.mark.parametrize("name", hostile_arrays())
def test_hostile_arrays_under_right_checksums(pushed, name):
    store, folder = pushed
    manifest, _ = read_folder(folder)
    content = hostile_arrays()[name]
    (folder / "arrays.npz").write_bytes(content)
    (folder / "manifest.json").write_bytes(signed(manifest, content))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    try:
        assert_refused(store, folder.parent.parent)
        allocated = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert allocated < 4 * len(content) + 2_000_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most < 100_000  # KiB


@pytest.mark.parametrize("name", hostile_manifests({"ids": IDS}))
def test_hostile_manifests_under_right_checksums(pushed, name):
    store, folder = pushed
    manifest, _ = read_folder(folder)
    changed = hostile_manifests(manifest)[name]
    (folder / "manifest.json").write_bytes(signed(changed, (folder / "arrays.npz").read_bytes()))
    assert_refused(store, folder.parent.parent)


@pytest.mark.parametrize("name", hostile_folders())
def test_hostile_folders(pushed, tmp_path, name):
    store, folder = pushed
    hostile_folders()[name](folder, tmp_path)
    assert_refused(store, folder.parent.parent)


def test_what_is_not_named_as_a_version_is_left_alone(pushed):
    store, folder = pushed
    for name in ("²", "0002.tmp", "..0003", "-1", "9" * 200):
        (folder.parent / name).mkdir()
    (folder.parent / "notes").write_text("mine")
    (folder.parent / "0002").mkdir()  # a push that died before its manifest was there
    assert [version.name for version in versions(store, folder.parent.parent)] == ["0001"]
    assert push_vectors(store, IDS, ORIGINALS, ORIGINALS + 3, versions=folder.parent.parent).version == "0003"


@pytest.mark.parametrize("key", ["", ".", "..", "../other", "/etc", "a/b", "a\\b", "a\0b"])
def test_a_key_that_leads_elsewhere_is_refused(tmp_path, key):
    store = Watched(dict(zip(IDS, ORIGINALS.tolist(), strict=True)), key="test")
    store._key = key
    root = tmp_path / "root"
    with pytest.raises(ValueError, match="fit for the name of a folder"):
        push_vectors(store, IDS, ORIGINALS, ORIGINALS + 1, versions=root)
    with pytest.raises(ValueError, match="fit for the name of a folder"):
        versions(store, root)
    assert store.writes == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("ids", "change", "error", "message"),
    [
        (IDS, lambda v: v * np.nan, ValueError, "vectors row 0 holds NaN"),
        (IDS, lambda v: np.where(v == v[2, 0], np.inf, v), ValueError, "vectors row 2 holds NaN or infinite"),
        ([*IDS[:5], "n0"], lambda v: v, ValueError, "'n0' is given more than once"),
        (IDS[:5], lambda v: v, ValueError, "5 ids but 6 vectors"),
        ([*IDS[:5], 5], lambda v: v, TypeError, "strings, got 5"),
        (IDS, lambda v: v[:, :2], ValueError, "dimension"),
        (IDS, lambda v: v[0], ValueError, "two dimensions"),
        (IDS, lambda v: v.astype(str), TypeError, "numeric"),
    ],
)
def test_bad_pushes_leave_no_record(pushed, ids, change, error, message):
    store, folder = pushed
    with pytest.raises(error, match=message):
        push_vectors(store, ids, ORIGINALS, change(ORIGINALS), versions=folder.parent.parent)
    assert store.writes == 0
    assert [version.name for version in versions(store, folder.parent.parent)] == ["0001"]


def test_ids_of_any_text_come_back(tmp_path):
    ids = ["", "a'b", "☃", "\ud800", "line\nbreak", "x" * 10_000]
    table = dict(zip(ids, ORIGINALS.tolist(), strict=True))
    store = MappingStore(table, key="test")
    assert push_vectors(store, ids, ORIGINALS, ORIGINALS + 1, versions=tmp_path).written == 6
    assert versions(store, tmp_path)[0].ids == tuple(ids)
    assert rollback(store, tmp_path).exact
    assert table == dict(zip(ids, ORIGINALS.tolist(), strict=True))


def test_a_push_of_another_dimension_is_refused(pushed):
    store, folder = pushed
    root = folder.parent.parent
    store._table.update({node: [1.0] * 5 for node in IDS})
    with pytest.raises(Exception, match=r"version 0001\) for dimension 3, this one has 5: roll back first; nothing"):
        push_vectors(store, IDS, np.ones((6, 5)), np.ones((6, 5)) * 2, versions=root)
    assert store.writes == 0
    with pytest.warns(UserWarning, match=r"left alone: 6 node\(s\) changed"):
        rollback(store, root)
    assert push_vectors(store, IDS, np.ones((6, 5)), np.ones((6, 5)) * 2, versions=root).pushed


@pytest.mark.parametrize("writes", range(3))
def test_overwriting_a_folder_leaves_the_old_or_the_new_one(tmp_path, monkeypatch, writes):
    """Also where the process dies between the two files, twice."""
    from nudge_rag.common import files

    folder, write, put = tmp_path / "folder", files.write_synced, files.put_in_place
    write_folder(folder, {"number": 0}, {"a": np.zeros(3)})
    for number in (1, 2):
        left = [writes]

        def dying(action, *arguments, left=left):
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            action(*arguments)

        monkeypatch.setattr(files, "write_synced", lambda *given: dying(write, *given))
        monkeypatch.setattr(files, "put_in_place", lambda *given: dying(put, *given))
        monkeypatch.setattr(Path, "unlink", lambda path, **_: None)  # a dead process cleans nothing up
        with pytest.raises(KeyboardInterrupt):
            write_folder(folder, {"number": number}, {"a": np.full(3, number)})
        monkeypatch.undo()
        manifest, arrays = read_folder(folder)
        assert arrays["a"].tolist() == [manifest["number"]] * 3
        assert manifest["number"] == (1 if writes == 2 else 0)
    write_folder(folder, {"number": 3}, {"a": np.full(3, 3)})
    assert read_folder(folder)[1]["a"].tolist() == [3] * 3
    assert sorted(path.name for path in folder.iterdir()) == ["arrays.npz", "manifest.json"]


def test_the_good_record_is_read(pushed):
    manifest, arrays = read_folder(pushed[1])
    assert as_version(FOLDER, manifest, arrays).ids == tuple(IDS)
