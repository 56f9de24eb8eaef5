"""One pass over vectors in Parquet files: time, memory and answers of each executor, beside what it cannot beat.

    python benchmarks/lake.py                    # 1,000,000 x 384, 1.6 GB in a temporary folder
    python benchmarks/lake.py --nodes 10000000   # 16 GB

What cannot be beaten is the longer of reading it all and one product: pyarrow reads the column of vectors on as many
threads as there are workers, and numpy multiplies as many numbers in float32, with as many threads. ``pass`` is the
time of a scan divided by that. Workers have imported the library before they are timed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from nudge_rag.stores import ParquetStore, SearchResult, scan
from nudge_rag.stores.lake.executors import map_fragments

ROWS_PER_FILE, ROWS_PER_GROUP, ROWS_PER_PRODUCT = 500_000, 100_000, 8_192


def write_files(folder: Path, nodes: int, dimension: int) -> None:
    import pyarrow
    import pyarrow.parquet

    rng = np.random.default_rng(0)
    schema = pyarrow.schema([("id", pyarrow.string()), ("embedding", pyarrow.list_(pyarrow.float32()))])
    for first in range(0, nodes, ROWS_PER_FILE):
        with pyarrow.parquet.ParquetWriter(folder / f"part-{first // ROWS_PER_FILE:05d}.parquet", schema) as writer:
            for start in range(first, min(nodes, first + ROWS_PER_FILE), ROWS_PER_GROUP):
                rows = min(ROWS_PER_GROUP, nodes - start)
                numbers = rng.standard_normal(rows * dimension, dtype=np.float32)
                offsets = pyarrow.array(np.arange(rows + 1, dtype=np.int32) * dimension)
                lists = pyarrow.ListArray.from_arrays(offsets, pyarrow.array(numbers))
                ids = pyarrow.array([f"node-{row:09d}" for row in range(start, start + rows)])
                writer.write_table(pyarrow.table([ids, lists], schema=schema), row_group_size=ROWS_PER_GROUP)


def read_everything(folder: Path, threads: int) -> float:
    import pyarrow
    import pyarrow.dataset

    pyarrow.set_cpu_count(threads)
    started = time.perf_counter()
    dataset = pyarrow.dataset.dataset(folder, format="parquet")
    for batch in dataset.to_batches(columns=["embedding"], fragment_readahead=threads, batch_readahead=2):
        batch.column(0).flatten().to_numpy()
    return time.perf_counter() - started


def multiply(nodes: int, dimension: int, queries: np.ndarray, threads: int) -> float:
    import threadpoolctl

    block = np.random.default_rng(1).standard_normal((ROWS_PER_PRODUCT, dimension), dtype=np.float32)
    asked = queries.astype(np.float32)
    with threadpoolctl.threadpool_limits(threads, user_api="blas"):
        asked @ block.T
        started = time.perf_counter()
        for _ in range(-(-nodes // ROWS_PER_PRODUCT)):
            asked @ block.T
        return (time.perf_counter() - started) * nodes / (-(-nodes // ROWS_PER_PRODUCT) * ROWS_PER_PRODUCT)


def apart(function: Any, *arguments: Any) -> Any:
    """Call a function in a process of its own, whose memory is not ours."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def peak(_: Any = None, __: Any = None) -> tuple[int, float]:
    """This process, and the most memory that it has had, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return os.getpid(), next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def timed(store: ParquetStore, queries: np.ndarray, k: int, executor: Executor | None) -> tuple[float, SearchResult]:
    started = time.perf_counter()
    found = scan(store, queries, k, executor)
    return time.perf_counter() - started, found


def same(one: SearchResult, other: SearchResult) -> bool:
    scores = all(mine.tobytes() == theirs.tobytes() for mine, theirs in zip(one.scores, other.scores, strict=True))
    return one.ids == other.ids and scores


def tell(name: str, seconds: float, floor: float, *more: str) -> None:
    print(f"{name:<32} {seconds:8.1f} s   pass {seconds / floor:.2f}   {'   '.join(more)}", flush=True)


def workers_peak(executor: Executor, workers: int) -> str:
    peaks = dict(result for _, result in map_fragments(peak, range(4 * workers), None, executor))
    return f"worker's peak {max(peaks.values()):.0f} MB"


def measure(folder: Path, given: argparse.Namespace) -> None:
    queries = np.random.default_rng(2).normal(size=(given.queries, given.dimension))
    started = time.perf_counter()
    apart(write_files, folder, given.nodes, given.dimension)
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e9
    print(
        f"{given.nodes:,} x {given.dimension} float32 in Parquet, {size:.1f} GB, {given.queries:,} queries, k {given.k}"
    )
    print(f"{'writing':<32} {time.perf_counter() - started:8.1f} s", flush=True)
    reading = apart(read_everything, folder, given.workers)
    product = apart(multiply, given.nodes, given.dimension, queries, given.workers)
    floor = max(reading, product)
    print(f"{'reading it all':<32} {reading:8.1f} s\n{'one product':<32} {product:8.1f} s", flush=True)
    store = ParquetStore(folder, similarity=given.similarity)

    with ProcessPoolExecutor(given.workers) as pool:
        workers_peak(pool, given.workers)
        seconds, expected = timed(store, queries, given.k, pool)
        parent = f"parent's peak {peak()[1]:.0f} MB"
        tell("ProcessPoolExecutor", seconds, floor, workers_peak(pool, given.workers), parent)
    with ProcessPoolExecutor(given.workers) as pool:
        pool.submit(peak).result()
        victim = next(iter(pool._processes))
        killer = threading.Timer(0.4 * seconds, os.kill, (victim, signal.SIGKILL))
        killer.start()
        killed, found = timed(store, queries, given.k, pool)
        tell("a worker killed midway", killed, floor, f"the same answer: {same(found, expected)}")
    cluster_seconds(store, queries, given, (seconds, floor, expected))


def cluster_seconds(store: ParquetStore, queries: np.ndarray, given: argparse.Namespace, known: Any) -> None:
    from distributed import Client, LocalCluster

    seconds, floor, expected = known
    options = {"n_workers": given.workers, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        executor = client.get_executor()
        workers_peak(executor, given.workers)
        taken, found = timed(store, queries, given.k, executor)
        told = f"{taken / seconds:.2f} times processes", f"the same answer: {same(found, expected)}"
        tell("dask", taken, floor, workers_peak(executor, given.workers), *told)
        print(f"{'parent, with the cluster':<32} {peak()[1]:8.0f} MB at most")


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    for name, default in {"nodes": 1_000_000, "dimension": 384, "queries": 1_000, "k": 10, "workers": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--similarity", default="cosine", choices=("cosine", "dot", "l2"))
    parser.add_argument("--folder", type=Path, help="where the files are written and deleted again")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nudge-lake-", dir=given.folder) as folder:
        measure(Path(folder), given)


if __name__ == "__main__":
    main()
