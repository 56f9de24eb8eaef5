"""Large blobs of a LanceDB table's history: in tables of their own, which a row names, and which nothing outlives."""

from __future__ import annotations

from pathlib import Path

import lancedb
import numpy as np
import pytest

from nudge_rag.errors import CorruptArchiveError
from nudge_rag.stores.lance import large_blobs
from nudge_rag.stores.lance.history import WRITES_BETWEEN_CLEANING, LanceHistory

LIMIT = 1_000


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.setattr(large_blobs, "BYTES_OF_A_ROW", LIMIT)
    return lancedb.connect(tmp_path).create_table("nodes", [{"id": "a", "vector": [1.0, 0.0]}])


@pytest.fixture
def history(table):
    return LanceHistory(table, "vector")


def tables(history):
    """Names of the tables of large blobs, as the disk has them."""
    return sorted(path.stem for path in Path(history.location).glob("blob-*.lance"))


def content(size, seed=0):
    return np.random.default_rng(seed).bytes(size)


@pytest.mark.parametrize(("size", "n_tables"), [(0, 0), (LIMIT - 1, 0), (LIMIT, 1), (50 * LIMIT, 1)])
def test_contents_of_every_size_come_back(history, size, n_tables):
    history.write("1/vectors.npz", content(size))
    assert len(tables(history)) == n_tables
    assert history.read("1/vectors.npz") == content(size)
    assert history.names() == ["1/vectors.npz"]
    history.delete("1/vectors.npz")
    assert tables(history) == history.names() == []
    with pytest.raises(KeyError):
        history.read("1/vectors.npz")


def test_a_content_that_reads_as_the_name_of_a_table_is_a_content(history):
    history.write("one", content(LIMIT))
    named = f"nudge-rag: the table {tables(history)[0]}".encode()
    history.write("other", named)
    assert (history.read("one"), history.read("other")) == (content(LIMIT), named)
    history.delete("other")
    assert history.read("one") == content(LIMIT)


def test_a_blob_is_replaced_whatever_its_size_was(history):
    for seed, size in enumerate([LIMIT, 2 * LIMIT, 10, LIMIT]):
        history.write("blob", content(size, seed))
        assert history.read("blob") == content(size, seed)
    assert history.names() == ["blob"]


def test_a_process_that_dies_before_the_row_leaves_what_there_was(history, monkeypatch):
    history.write("blob", content(LIMIT))

    def die(name, held):
        raise KeyboardInterrupt

    monkeypatch.setattr(history, "_put_row", die)
    for name in ("blob", "another"):
        with pytest.raises(KeyboardInterrupt):
            history.write(name, content(LIMIT, 1))
    monkeypatch.undo()
    assert history.read("blob") == content(LIMIT)
    assert history.names() == ["blob"]


@pytest.mark.parametrize(("seconds", "n_left"), [(3_600, 3), (0, 2)])
def test_tables_that_nothing_names_are_dropped_when_they_are_old(history, table, seconds, n_left, monkeypatch):
    monkeypatch.setattr(large_blobs, "SECONDS_TO_KEEP", seconds)
    other = LanceHistory(table, "another vector")
    history.write("blob", content(LIMIT))
    other.write("blob", content(LIMIT, 1))
    history.write("replaced", content(LIMIT, 2))
    for _ in range(WRITES_BETWEEN_CLEANING - 2):
        history.write("replaced", b"small")
    assert len(tables(history)) == n_left
    assert history.read("blob") == content(LIMIT)
    assert other.read("blob") == content(LIMIT, 1)
    assert history.read("replaced") == b"small"


def test_a_table_that_is_gone_is_one_error(history, tmp_path):
    history.write("blob", content(LIMIT))
    lancedb.connect(history.location).drop_table(tables(history)[0])
    with pytest.raises(CorruptArchiveError, match="cannot be read"):
        history.read("blob")


def test_no_large_blob_is_ever_written_twice(history):
    n_blobs, size = 2 * WRITES_BETWEEN_CLEANING + 1, 100 * LIMIT
    for number in range(n_blobs):
        history.write(f"blob-{number}", content(size, number))
    on_disk = sum(path.stat().st_size for path in Path(history.location).rglob("*") if path.is_file())
    assert n_blobs * size < on_disk < 1.2 * n_blobs * size
    assert all(history.read(f"blob-{number}") == content(size, number) for number in range(n_blobs))
