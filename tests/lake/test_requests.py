"""How many requests are sent to object storage, each of which takes some 30 ms; and that so few notice as much."""

from __future__ import annotations

import time
from collections import Counter
from functools import partial

import numpy as np
import pytest

WHY = "in the environment of `make test-lake`"
pytest.importorskip("moto.server", reason=WHY)
pytest.importorskip("s3fs", reason=WHY)
from moto.moto_server.werkzeug_app import DomainDispatcherApplication  # noqa: E402

from nudge_rag import rollback, status, switch  # noqa: E402
from nudge_rag.journal.manifest import IN_PLACE, SIDE_BY_SIDE  # noqa: E402
from nudge_rag.journal.push import push_vectors  # noqa: E402
from nudge_rag.stores import ParquetStore, leases  # noqa: E402
from nudge_rag.stores.parquet import filesystems, fragments, records, snapshots  # noqa: E402
from nudge_rag.stores.parquet.counting import CountingFiles  # noqa: E402
from nudge_rag.stores.parquet.files import SourceFiles  # noqa: E402
from tests.support.buckets import IDS, VECTORS  # noqa: E402

pytestmark = [pytest.mark.server, pytest.mark.slow]
MOVED = (VECTORS[:5] + 1).astype(np.float32)
# Of the bucket, and those of them that hold a node that is moved.
FILES, WRITTEN = 2, 1
BLOBS = 5
# To read is HEAD and GET through pyarrow; to delete is HEAD, DELETE, and PUT of the folder, lest it be gone.
READ = {"uri": 2, "s3fs": 1}
DELETE = {"uri": 3, "s3fs": 1}
# As measured, and a tenth more.
MOST = {
    "uri": {
        "push": 127,
        "status": 46,
        "rollback": 114,
        "push beside": 168,
        "switch": 119,
        "status beside": 55,
        "rollback beside": 124,
    },
    "s3fs": {
        "push": 102,
        "status": 28,
        "rollback": 73,
        "push beside": 106,
        "switch": 72,
        "status beside": 32,
        "rollback beside": 76,
    },
}


@pytest.fixture
def sent(monkeypatch):
    """The requests that the server has got, without those that depend on how long a call takes.

    Those are renewals of a lease, which are one reading and one writing a second, and readings of it before a write.
    """
    log = []
    answer = DomainDispatcherApplication.__call__

    def note(self, environ, start_response):
        log.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}?{environ.get('QUERY_STRING', '')}")
        return answer(self, environ, start_response)

    monkeypatch.setattr(DomainDispatcherApplication, "__call__", note)
    monkeypatch.setattr(leases, "BETWEEN_BEATS", 1_000.0)
    monkeypatch.setattr(leases, "now", lambda: 0.0)
    return log


@pytest.fixture
def calls(monkeypatch):
    """How often the store was asked for what costs requests."""
    counted = Counter()

    def count(owner, name):
        function = getattr(owner, name)

        def counting(*arguments, **options):
            counted[name] += 1
            return function(*arguments, **options)

        monkeypatch.setattr(owner, name, counting)

    for owner, names in (
        (records.FileRecords, ("write", "read", "names", "delete", "lock", "hold")),
        (snapshots.SnapshotFolder, ("load", "save")),
        (CountingFiles, ("whole_files",)),
        (SourceFiles, ("now",)),
    ):
        for name in names:
            count(owner, name)
    return counted


def bound(calls, way):
    """What these calls send at most: a blob has one part, and one of the two files is written anew."""
    read, delete = READ[way], DELETE[way]
    # A lease is read, written and read, and in the end read and deleted.
    lease = 3 * read + 1 + delete
    return (
        lease * (calls["lock"] + calls["hold"])
        # Of a lock a list, for blobs that are unfinished; of a list of names the heads, once.
        + calls["lock"]
        + calls["names"]
        + read * BLOBS
        + 2 * read * calls["read"]
        # The head before, the part, the head, and the part that is replaced.
        + (read + 2 + delete) * calls["write"]
        + (read + 2 * delete) * calls["delete"]
        # Of each file a look and a reading; of one that is new, its end.
        + calls["now"]
        + (FILES * (1 + read) + WRITTEN) * calls["whole_files"]
        + read * calls["load"]
        # What was written anew before is looked for in a list, and deleted.
        + (2 * read + 1 + 1 + 2 + WRITTEN * delete) * calls["save"]
    )


@pytest.mark.parametrize("way", ["uri", "s3fs"])
def test_what_a_call_sends(bucket, sent, calls, way, record_property):
    def measure(name, function, *arguments, **options):
        sent.clear()
        calls.clear()
        result = function(*arguments, **options)
        record_property(f"requests of {name} by {way}", len(sent))
        assert len(sent) <= MOST[way][name], sent
        assert len(sent) <= bound(calls, way), (calls, sent)
        return result

    store = bucket.open(way)
    store.count()
    for mode, beside in ((IN_PLACE, ""), (SIDE_BY_SIDE, " beside")):
        measure(f"push{beside}", push_vectors, store, IDS[:5], VECTORS[:5], MOVED, mode=mode)
        if mode == SIDE_BY_SIDE:
            measure("switch", switch, store)
        store = bucket.open(way)
        store.count()
        measure(f"status{beside}", status, store)
        assert measure(f"rollback{beside}", rollback, store).exact
        store = bucket.open(way)
        store.count()
        sent.clear()
        assert store.read(IDS).tobytes() == VECTORS.tobytes()
        # The list, the file that says which of ours count, and of each file a reading and a look.
        assert len(sent) == 1 + READ[way] + FILES * (READ[way] + 1)


def test_a_small_file_is_written_in_one_request_if_the_uri_does_not_say_otherwise(bucket, sent):
    def uploads(source, **options):
        sent.clear()
        ParquetStore(source, **options).replace(["n1"], np.ones((1, 4)))
        return sum(request.startswith("POST") for request in sent)

    uri = f"s3://{bucket.docs}"
    assert uploads(uri) == uploads(f"{uri}?region=us-east-1") == 0
    # Of the lease, the file and the list of what counts, each is begun and ended.
    assert uploads(f"{uri}?allow_delayed_open=false") == uploads(bucket.docs, filesystem=bucket.arrow) == 6


@pytest.mark.parametrize("way", ["uri", "s3fs"])
@pytest.mark.parametrize("is_whole", [True, False])
@pytest.mark.parametrize("is_before", [True, False])
def test_a_file_that_is_replaced_while_it_is_read_is_read_again(bucket, monkeypatch, way, is_whole, is_before):
    """By one of the same size, between the list and the reading, or between the reading and its end."""
    store = bucket.open(way)
    assert store.read(["n3"]).tobytes() == VECTORS[3:4].tobytes()
    if not is_whole:
        monkeypatch.setattr(filesystems, "BYTES_AT_ONCE", 0)
    newer = VECTORS[19::-1]
    opened = fragments.opened

    def replacing(filesystem, path, size):
        if path.endswith("part-1.parquet") or not replaced:
            return opened(filesystem, path, size)
        replaced.clear()
        time.sleep(1)  # S3 tells times apart by seconds
        write = partial(bucket.write, "part-0.parquet", IDS[:20], newer)
        if is_before:
            write()
        found = opened(filesystem, path, size)
        if not is_before:
            write()
        return found

    replaced = [True]
    monkeypatch.setattr(fragments, "opened", replacing)
    assert store.read(["n3"]).tobytes() == newer[3:4].tobytes()
    assert not replaced


@pytest.mark.parametrize("way", ["uri", "s3fs"])
def test_a_file_that_is_replaced_while_its_parts_are_read_is_read_again(bucket, monkeypatch, way):
    monkeypatch.setattr(filesystems, "BYTES_AT_ONCE", 0)
    store = bucket.open(way)
    newer = VECTORS[19::-1]
    read = fragments.ParquetFragment.read

    def replacing(fragment, file, batch_size, groups, names=None):
        yield from read(fragment, file, batch_size, groups, names)
        # The vectors of the last group of rows, after which nothing is read.
        if fragment.path.endswith("part-0.parquet") and "embedding" in names and not replaced:
            replaced.append(True)
            time.sleep(1)
            bucket.write("part-0.parquet", IDS[:20], newer)

    replaced = []
    monkeypatch.setattr(fragments.ParquetFragment, "read", replacing)
    assert store.read(["n19"]).tobytes() == newer[19:20].tobytes()
    assert replaced


@pytest.mark.parametrize("way", ["uri", "s3fs"])
def test_what_is_read_is_all_of_a_file_also_of_an_empty_one(bucket, way):
    filesystem = bucket.open(way)._files.source.filesystem
    for content in (b"", b"1", bytes(range(256)) * 40_000):
        with bucket.arrow.open_output_stream(f"{bucket.docs}/_file") as stream:
            stream.write(content)
        filesystems.forget(filesystem)
        assert filesystems.read_content(filesystem, f"{bucket.docs}/_file") == content
    filesystems.delete_file(filesystem, f"{bucket.docs}/_file")
    filesystems.forget(filesystem)
    with pytest.raises(FileNotFoundError):
        filesystems.read_content(filesystem, f"{bucket.docs}/_file")


@pytest.mark.parametrize("way", ["uri", "s3fs"])
def test_a_folder_that_becomes_a_file_or_is_gone_is_noticed(bucket, way):
    store = bucket.open(way)
    assert store.count() == 40
    client, (name, docs) = bucket.client, bucket.docs.split("/")
    for part in range(2):
        client.copy_object(Bucket=name, Key=f"kept-{part}", CopySource=f"{name}/{docs}/part-{part}.parquet")
        client.delete_object(Bucket=name, Key=f"{docs}/part-{part}.parquet")
    with pytest.raises(ValueError, match="there is no Parquet file at"):
        store.count()
    client.copy_object(Bucket=name, Key=docs, CopySource=f"{name}/kept-1")
    assert store.read(["n25"]).tobytes() == VECTORS[25:26].tobytes()
    client.delete_object(Bucket=name, Key=docs)
    client.copy_object(Bucket=name, Key=f"{docs}/again.parquet", CopySource=f"{name}/kept-0")
    assert store.read(["n3"]).tobytes() == VECTORS[3:4].tobytes()
