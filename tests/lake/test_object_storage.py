"""Parquet files in object storage: a server of S3, asked through pyarrow, s3fs and by URI; writers beside; kills."""

from __future__ import annotations

import itertools
import signal
import threading
import time

import numpy as np
import pytest

WHY = "in the environment of `make test-lake`"
server = pytest.importorskip("moto.server", reason=WHY)
s3fs = pytest.importorskip("s3fs", reason=WHY)
import boto3  # noqa: E402
import pyarrow.fs  # noqa: E402
import pyarrow.parquet  # noqa: E402

from nudge_rag import LabeledPairs, open_store, reapply, rollback, status, switch, tune  # noqa: E402
from nudge_rag.journal.manifest import IN_PLACE, SIDE_BY_SIDE  # noqa: E402
from nudge_rag.journal.push import push_vectors  # noqa: E402
from nudge_rag.stores import MappingStore, ParquetStore, StoreError, leases, scan  # noqa: E402
from tests.support.killed_worker import nudged  # noqa: E402
from tests.support.killing import Killer, is_whole, losses, quietly  # noqa: E402

# Every call is a request to a server in Python, and a push has some hundred.
pytestmark = [pytest.mark.server, pytest.mark.slow]
RNG = np.random.default_rng(3)
VECTORS = RNG.normal(size=(40, 4)).astype(np.float32)
IDS = [f"n{row}" for row in range(40)]
QUERIES = RNG.normal(size=(5, 4))
KEY, SECRET = "AKIAofnobody", "s3cretOfNobody"
numbers = itertools.count()
SETTLE = 0.05
VECTOR_TYPE = pyarrow.list_(pyarrow.float32())


@pytest.fixture(scope="module")
def address():
    """A server, as host and port."""
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    yield "{}:{}".format(*running.get_host_and_port())
    running.stop()


class Bucket:
    """A bucket with the nodes in two files, and the ways to open it."""

    def __init__(self, address, name):
        self.address, self.url = address, f"http://{address}"
        self.arrow = pyarrow.fs.S3FileSystem(
            endpoint_override=self.url, access_key=KEY, secret_key=SECRET, region="us-east-1"
        )
        self.client = boto3.client("s3")
        self.client.create_bucket(Bucket=name)
        self.docs = f"{name}/docs"
        for part in range(2):
            rows = slice(20 * part, 20 * part + 20)
            self.write(f"part-{part}.parquet", IDS[rows], VECTORS[rows])
        self.theirs = self.contents()

    def write(self, name, ids, vectors):
        table = pyarrow.table({"id": ids, "embedding": pyarrow.array(np.asarray(vectors).tolist(), VECTOR_TYPE)})
        with self.arrow.open_output_stream(f"{self.docs}/{name}") as stream:
            pyarrow.parquet.write_table(table, stream, row_group_size=7, compression="none")

    def contents(self):
        found = self.arrow.get_file_info(pyarrow.fs.FileSelector(self.docs, recursive=True))
        return {info.path: self.arrow.open_input_stream(info.path).read() for info in found if info.is_file}

    def open(self, way):
        if way == "pyarrow":
            return ParquetStore(self.docs, filesystem=self.arrow)
        if way == "s3fs":
            client = {"endpoint_url": self.url}
            return ParquetStore(self.docs, filesystem=s3fs.S3FileSystem(key=KEY, secret=SECRET, client_kwargs=client))
        if way == "uri with login":
            return ParquetStore(f"s3://{KEY}:{SECRET}@{self.docs}?scheme=http&endpoint_override={self.address}")
        if way == "uri":
            return ParquetStore(f"s3://{self.docs}")
        return open_store(f"parquet:///{self.docs}?filesystem=s3")


@pytest.fixture
def bucket(address, monkeypatch):
    settings = {"ACCESS_KEY_ID": KEY, "SECRET_ACCESS_KEY": SECRET, "DEFAULT_REGION": "us-east-1"}
    for name, value in {**settings, "ENDPOINT_URL": f"http://{address}"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setattr(leases, "SECONDS_TO_SETTLE", SETTLE)
    name = f"bucket-{next(numbers)}"
    return Bucket(address, name)


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
