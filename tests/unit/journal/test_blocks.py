"""The record of a push of all nodes, in blocks: what is written is found again, and damage is named."""

from __future__ import annotations

import numpy as np
import pytest

from nudge_rag.errors import CorruptArchiveError
from nudge_rag.journal.blocks import BlockRecord, IdIndex, hash_ids
from nudge_rag.journal.coding import Vectors
from nudge_rag.stores.storages import ProcessStorage

DIMENSION = 3


def rows_of(numbers, scale=1.0):
    """Vectors that tell their node: originals, before and after."""
    originals = scale * np.repeat(np.array(numbers, dtype=np.float32)[:, None], DIMENSION, axis=1)
    return Vectors(originals, originals, originals + 0.5)


def name(number):
    return f"node {number}"


def add(record, numbers, scale=1.0):
    record.add([name(number) for number in numbers], rows_of(numbers, scale))


@pytest.fixture
def storage():
    return ProcessStorage()


@pytest.fixture
def blocks(storage):
    record = BlockRecord(storage, "0001", DIMENSION)
    for first in (0, 4, 8):
        add(record, range(first, first + 4))
    assert record.finish() == (3, 12)
    return record


def opened(storage, count=3):
    return BlockRecord(storage, "0001", DIMENSION, count)


def test_what_was_written_is_read_again_block_by_block(storage, blocks):
    for record in (blocks, opened(storage), opened(storage, None)):
        assert [block.ids for block in record] == [tuple(map(name, range(at, at + 4))) for at in (0, 4, 8)]
        found = np.concatenate([block.vectors.after for block in record])
        np.testing.assert_array_equal(found, rows_of(range(12)).after)


def test_nodes_are_found_in_whatever_order_they_are_asked_for(storage, blocks):
    asked = [name(number) for number in (9, 50, 1, 10, 0)]
    rows, found = opened(storage).find(asked)
    assert sorted(rows.tolist()) == [0, 2, 3, 4]
    assert [asked[row] for row in rows] == list(found.ids)
    numbers = [int(node_id.removeprefix("node ")) for node_id in found.ids]
    np.testing.assert_array_equal(found.vectors.originals, rows_of(numbers).originals)
    assert opened(storage).knows(asked).tolist() == [True, False, True, True, True]


def test_a_node_is_looked_up_by_the_index_without_reading_other_blocks(storage, blocks, monkeypatch):
    read = []
    monkeypatch.setattr(storage, "read", lambda blob: read.append(blob) or ProcessStorage.read(storage, blob))
    opened(storage).find([name(5)])
    assert sorted(blob.split("/")[1][:11] for blob in read) == ["block-00001", "index-" + read[0].split("-")[1][:5]]


def test_a_node_that_is_recorded_again_is_found_as_it_was_recorded_last(storage, blocks):
    record = opened(storage)
    add(record, [5, 12], scale=100.0)
    assert record.finish() == (4, 13)
    again = opened(storage, 4)
    _, found = again.find([name(5)])
    np.testing.assert_array_equal(found.vectors.originals, rows_of([5], 100.0).originals)
    every = [node_id for block in again for node_id in block.ids]
    assert sorted(every) == sorted(map(name, range(13)))
    assert len([blob for blob in storage.names() if "index" in blob]) == 1


def test_a_block_of_a_process_that_died_belongs_to_the_record(storage, blocks):
    add(opened(storage), [20])
    again = opened(storage)
    assert len(again) == 4
    assert again.knows([name(20), name(3)]).all()


def test_a_record_is_dropped_whole_and_nothing_else(storage, blocks):
    storage.write("0001/manifest.json", b"{}")
    storage.write("0002/block-00000-0123456789abcdef.npz", b"")
    opened(storage).drop()
    assert storage.names() == ["0001/manifest.json", "0002/block-00000-0123456789abcdef.npz"]


def blob_of(storage, start):
    return next(blob for blob in storage.names() if blob.startswith(f"0001/{start}"))


@pytest.mark.parametrize("start", ["block-00001", "index"])
def test_damage_is_named(storage, blocks, start):
    blob = blob_of(storage, start)
    content = bytearray(storage.read(blob))
    content[len(content) // 2] ^= 1
    storage.write(blob, bytes(content))
    with pytest.raises(CorruptArchiveError, match=r"does not match the checksum in its name"):
        opened(storage).find([name(5)])


def test_a_missing_block_is_named(storage, blocks):
    storage.delete(blob_of(storage, "block-00001"))
    with pytest.raises(CorruptArchiveError, match="has 2 blocks of nodes, expected 3"):
        list(opened(storage))


def test_blocks_of_another_number_are_refused(storage, blocks):
    first, second = blob_of(storage, "block-00000"), blob_of(storage, "block-00001")
    storage.write(first.replace("00000", "00001"), storage.read(first))
    storage.delete(second)
    with pytest.raises(CorruptArchiveError, match="it is block 0"):
        list(opened(storage))


def test_an_index_gives_the_last_place_of_an_id_that_is_there_twice():
    ids = ["a", "b", "a", "c"]
    assert IdIndex(hash_ids(ids)).places(["a", "c", "d"]).tolist() == [2, 3, -1]
    assert IdIndex(hash_ids([])).places(["a"]).tolist() == [-1]
