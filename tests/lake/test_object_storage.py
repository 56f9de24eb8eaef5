"""Parquet files in object storage: a server of S3, asked through pyarrow, s3fs and by URI; writers beside; kills."""

from __future__ import annotations

import signal
import threading
import time

import numpy as np
import pytest

WHY = "in the environment of `make test-lake`"
pytest.importorskip("moto.server", reason=WHY)
pytest.importorskip("s3fs", reason=WHY)
import pyarrow.parquet  # noqa: E402

from nudge_rag import LabeledPairs, open_store, reapply, rollback, status, switch, tune  # noqa: E402
from nudge_rag.journal.manifest import IN_PLACE, SIDE_BY_SIDE  # noqa: E402
from nudge_rag.journal.push import push_vectors  # noqa: E402
from nudge_rag.stores import MappingStore, ParquetStore, StoreError, scan  # noqa: E402
from tests.support.buckets import (  # noqa: E402
    IDS,
    KEY,
    SECRET,
    SETTLE,
    VECTOR_TYPE,
    VECTORS,
    Bucket,
    numbers,
)
from tests.support.killed_worker import nudged  # noqa: E402
from tests.support.killing import Killer, is_whole, losses, quietly  # noqa: E402

# Every call is a request to a server in Python, and a push has some hundred.
pytestmark = [pytest.mark.server, pytest.mark.slow]
RNG = np.random.default_rng(4)
QUERIES = RNG.normal(size=(5, 4))


@pytest.mark.parametrize("way", ["pyarrow", "s3fs", "uri", "uri with login", "url"])
def test_a_push_a_switch_and_a_rollback_go_through_every_way(bucket, way):
    store = bucket.open(way)
    memory = MappingStore({name: vector.tolist() for name, vector in zip(IDS, VECTORS, strict=True)})
    assert scan(store, QUERIES, 7).ids == memory.search(QUERIES, 7).ids
    moved = (VECTORS[:5] + 1).astype(np.float32)
    for mode in (IN_PLACE, SIDE_BY_SIDE) if way in ("pyarrow", "s3fs") else (IN_PLACE,):
        assert push_vectors(store, IDS[:5], VECTORS[:5], moved, mode=mode).pushed
        if mode == SIDE_BY_SIDE:
            assert bucket.open(way).read(IDS).tobytes() == VECTORS.tobytes()
            switch(store)
        again = bucket.open(way)
        assert again.read(IDS[:5]).tobytes() == moved.tobytes()
        assert again.read(IDS[5:]).tobytes() == VECTORS[5:].tobytes()
        assert status(again).version is not None
        assert rollback(again).exact
        assert bucket.open(way).read(IDS).tobytes() == VECTORS.tobytes()
    assert bucket.contents() == bucket.theirs


def test_tune_reads_from_there_and_its_nudge_is_pushed(bucket):
    shift = RNG.normal(size=(20, 4))
    embedded = {f"question {form} on {row}": VECTORS[row] * 0.6 + shift[row] for row in range(20) for form in range(12)}
    labels = [(text, f"n{text.split()[-1]}") for text in embedded]
    store = bucket.open("uri")
    nudge = tune(
        store,
        LabeledPairs.from_pairs(labels),
        lambda texts: np.array([embedded[text] for text in texts]),
        solver="nudge-n",
        competitors="scan",
    )
    assert nudge.push(force=True).pushed
    moved = (bucket.open("pyarrow").read(IDS) != VECTORS).any(axis=1)
    assert 0 < moved.sum() <= 20
    assert rollback(bucket.open("s3fs")).exact
    assert bucket.open("uri").read(IDS).tobytes() == VECTORS.tobytes()


def test_a_list_of_uris_is_written_to_beside(bucket):
    uris = [f"s3://{bucket.docs}/part-{part}.parquet" for part in range(2)]
    beside = f"s3://{bucket.docs}-ours"
    ParquetStore(uris, beside=beside).replace(["n1"], np.ones((1, 4)))
    assert ParquetStore(uris, beside=beside).read(["n1", "n2"]).tolist() == [[1, 1, 1, 1], VECTORS[2].tolist()]
    assert ParquetStore(uris).read(["n1"]).tolist() == [VECTORS[1].tolist()]
    with pytest.raises(ValueError, match="beside must be on the file system of the files, s3, not local"):
        ParquetStore(uris, beside="file:///tmp/ours")


def test_a_whole_bucket_is_read_and_written_to_with_a_folder_of_ours(bucket):
    name = bucket.docs.partition("/")[0]
    store = ParquetStore(f"s3://{name}")
    assert store.read(IDS).tobytes() == VECTORS.tobytes()
    with pytest.raises(ValueError, match=r"a whole bucket has nothing beside it: give beside="):
        store.replace(["n1"], np.ones((1, 4)))
    ours = ParquetStore(f"s3://{name}", beside=f"s3://{name}/_ours")
    ours.replace(["n1"], np.ones((1, 4)))
    assert (ours.count(), ours.read(["n1"]).tolist()) == (40, [[1, 1, 1, 1]])


def test_signs_in_paths_are_those_of_the_url(bucket):
    """A path is decoded once, and may hold what a URI has to write in another way."""
    table = pyarrow.table({"id": ["x"], "embedding": pyarrow.array([[1.0, 0.0]], VECTOR_TYPE)})
    with bucket.arrow.open_output_stream(f"{bucket.docs}/a b/ü%20/part 1.parquet") as stream:
        pyarrow.parquet.write_table(table, stream)
    for store in (
        open_store(f"parquet:///{bucket.docs}/a%20b/%C3%BC%2520?filesystem=s3"),
        ParquetStore(f"s3://{bucket.docs}/a%20b/%C3%BC%2520"),
        ParquetStore(f"{bucket.docs}/a b/ü%20", filesystem=bucket.arrow),
    ):
        assert store.files() == [f"{bucket.docs}/a b/ü%20/part 1.parquet"]
    with pytest.raises(ValueError, match="a space in one is %20"):
        ParquetStore(f"s3://{bucket.docs}/a b")


@pytest.mark.parametrize(
    "uri",
    [
        "s3://{key}:{secret}@nowhere/docs?scheme=http&endpoint_override={address}",
        "s3://{key}:{secret}@nowhere/docs?unknown=1",
        "s3://{key}:{secret}/x@nowhere/docs",
        "s3a://{key}:{secret}@nowhere/docs",
    ],
)
@pytest.mark.parametrize("listed", [False, True])
def test_no_error_shows_a_key(bucket, uri, listed):
    uri = uri.format(key=KEY, secret=SECRET, address=bucket.address)
    with pytest.raises((ValueError, StoreError, OSError)) as raised:
        ParquetStore([uri] if listed else uri)
    shown, cause = [], raised.value
    while cause is not None:
        shown.append(str(cause))
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    assert SECRET not in "".join(shown)


@pytest.mark.parametrize("way", ["pyarrow", "s3fs"])
def test_files_that_a_pipeline_writes_beside_a_push_are_kept(bucket, way):
    """Also one as large as before, of which s3fs tells Arrow no time."""
    store = bucket.open(way)
    push_vectors(store, ["n3", "n25"], VECTORS[[3, 25]], VECTORS[[3, 25]] + 1)
    time.sleep(1)  # S3 tells times apart by seconds
    newer = VECTORS[19::-1]
    bucket.write("part-0.parquet", IDS[:20], newer)
    bucket.write("part-2.parquet", ["new"], np.ones((1, 4)))
    assert {path: len(content) for path, content in bucket.theirs.items()}.items() <= {
        path: len(content) for path, content in bucket.contents().items()
    }.items()
    assert store.read(["n3", "n25"]).tobytes() == np.stack([newer[3], VECTORS[25] + 1]).tobytes()
    again = bucket.open(way)
    assert again.count() == 41
    with pytest.warns(UserWarning, match=r"1 node.* changed since the push"):
        assert list(rollback(again).changed_since) == ["n3"]
    assert bucket.open("uri").read(["n3", "n25"]).tobytes() == np.stack([newer[3], VECTORS[25]]).tobytes()


def test_what_one_file_system_has_pushed_another_sees(bucket):
    push_vectors(bucket.open("s3fs"), ["n3"], VECTORS[3:4], VECTORS[3:4] + 1)
    for way in ("pyarrow", "uri", "url", "s3fs"):
        assert bucket.open(way).read(["n3"]).tobytes() == (VECTORS[3:4] + 1).tobytes()
    assert rollback(bucket.open("uri")).exact
    assert bucket.open("s3fs").read(["n3"]).tobytes() == VECTORS[3:4].tobytes()


def test_two_that_write_at_once_lose_nothing(bucket):
    """One of each file system: they wait for each other by a lease in the bucket."""

    def write(way, row):
        bucket.open(way).replace([IDS[row]], np.full((1, 4), row))

    threads = [
        threading.Thread(target=write, args=(way, row)) for row, way in [(2, "pyarrow"), (4, "s3fs"), (30, "uri")]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bucket.open("url").read(["n2", "n4", "n30"]).tolist() == [[row] * 4 for row in (2, 4, 30)]


@pytest.fixture
def killer():
    return Killer()


@pytest.mark.parametrize("action", ["push", "push-beside"])
def test_a_push_that_is_killed_midway_is_finished_or_undone(bucket, killer, tmp_path, action):
    np.savez(tmp_path / "vectors.npz", ids=np.array(IDS), originals=VECTORS)
    job = {"vectors": tmp_path / "vectors.npz", "root": None, "settle": SETTLE, "action": action, "number": 2}
    job["counted"] = tmp_path / "counted"
    assert killer.run("parquet", **job, address=f"s3://{bucket.docs}", steps=1_000_000) == 0
    n_steps = int(job["counted"].read_text())
    assert n_steps >= 8
    for steps in np.linspace(1, n_steps - 2, 4).round().astype(int).tolist():
        fresh = Bucket(bucket.address, f"bucket-{next(numbers)}")
        assert killer.run("parquet", **job, address=f"s3://{fresh.docs}", steps=steps) == signal.SIGKILL
        store = fresh.open("uri")
        assert losses(store, IDS, VECTORS, nudged(VECTORS, 2)) == 0
        quietly(reapply, store)
        assert is_whole(store, IDS, VECTORS, nudged(VECTORS, 2))
        quietly(rollback, store)
        assert is_whole(fresh.open("s3fs"), IDS, VECTORS)
        assert fresh.contents() == fresh.theirs
