"""One pass over vectors in Parquet files: time, memory and answers of each executor, beside what it cannot beat.

    python benchmarks/lake.py                    # 1,000,000 x 384, 1.6 GB in a temporary folder
    python benchmarks/lake.py --nodes 10000000   # 16 GB; these two write a section of benchmarks/README.md each
    python benchmarks/lake.py --nodes 100000     # quicker; prints the table, writes nothing

What cannot be beaten is the longer of reading it all and one product: pyarrow reads the column of vectors on as many
threads as there are workers, and numpy multiplies as many numbers in float32, with as many threads. ``pass`` is the
time of a scan divided by that; ``processor`` is the same of processor time, which others on the machine change less.
Workers have imported the library before they are timed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from report import machine, write_section

from nudge_rag.stores import ParquetStore, SearchResult, scan
from nudge_rag.stores.lake.executors import map_fragments

ROWS_PER_FILE, ROWS_PER_GROUP, ROWS_PER_PRODUCT = 500_000, 100_000, 8_192
# Numbers of nodes that have a section of benchmarks/README.md, and its name.
SECTIONS = {1_000_000: "lake", 10_000_000: "lake-10-million"}
HEAD = [
    "| what | seconds | pass | processor | worker's peak MB | parent's peak MB | the same answer |",
    "|---|---|---|---|---|---|---|",
]


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


def read_everything(folder: Path, threads: int) -> tuple[float, float]:
    import pyarrow
    import pyarrow.dataset

    pyarrow.set_cpu_count(threads)
    started, used = time.perf_counter(), time.process_time()
    dataset = pyarrow.dataset.dataset(folder, format="parquet")
    for batch in dataset.to_batches(columns=["embedding"], fragment_readahead=threads, batch_readahead=2):
        batch.column(0).flatten().to_numpy()
    return time.perf_counter() - started, time.process_time() - used


def multiply(nodes: int, dimension: int, queries: np.ndarray, threads: int) -> tuple[float, float]:
    import threadpoolctl

    block = np.random.default_rng(1).standard_normal((ROWS_PER_PRODUCT, dimension), dtype=np.float32)
    asked = queries.astype(np.float32)
    with threadpoolctl.threadpool_limits(threads, user_api="blas"):
        asked @ block.T
        products = -(-nodes // ROWS_PER_PRODUCT)
        share = nodes / (products * ROWS_PER_PRODUCT)
        started, used = time.perf_counter(), time.process_time()
        for _ in range(products):
            asked @ block.T
        return (time.perf_counter() - started) * share, (time.process_time() - used) * share


def apart(function: Any, *arguments: Any) -> Any:
    """Call a function in a process of its own, whose memory is not ours."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def peak(_: Any = None, __: Any = None) -> tuple[int, tuple[float, float]]:
    """This process, the most memory that it has had, in MB, and the processor time that it has used."""
    time.sleep(0.05)  # for others to have a turn
    lines = Path("/proc/self/status").read_text().splitlines()
    most = next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
    return os.getpid(), (most, time.process_time())


@dataclass(frozen=True)
class Timed:
    """A scan: its answer, how long it took, the processor time and the most memory of its workers."""

    found: SearchResult
    seconds: float
    processor: float
    memory: float


def timed(store: ParquetStore, queries: np.ndarray, given: argparse.Namespace, executor: Executor) -> Timed:
    before = workers(executor, given)
    started = time.perf_counter()
    found = scan(store, queries, given.k, executor)
    seconds = time.perf_counter() - started
    after = workers(executor, given)
    used = sum(after[number][1] - before.get(number, (0, 0))[1] for number in after)
    return Timed(found, seconds, used, max(most for most, _ in after.values()))


def workers(executor: Executor, given: argparse.Namespace) -> dict[int, tuple[float, float]]:
    return dict(result for _, result in map_fragments(peak, range(8 * given.workers), None, executor))


def same(one: SearchResult, other: SearchResult) -> bool:
    scores = all(mine.tobytes() == theirs.tobytes() for mine, theirs in zip(one.scores, other.scores, strict=True))
    return one.ids == other.ids and scores


def measure(folder: Path, given: argparse.Namespace) -> list[str]:
    """The table."""
    queries = np.random.default_rng(2).normal(size=(given.queries, given.dimension))
    reading = apart(read_everything, folder, given.workers)
    product = apart(multiply, given.nodes, given.dimension, queries, given.workers)
    longer = max(reading[0], product[0]), max(reading[1], product[1])

    def row(name: str, seconds: float, used: float, *more: str) -> str:
        cells = [name, f"{seconds:.1f}", f"{seconds / longer[0]:.2f}", f"{used / longer[1]:.2f}", *more]
        return "| " + " | ".join([*cells, *[""] * (7 - len(cells))]) + " |"

    def scanned(name: str, one: Timed, answer: str = "") -> str:
        return row(name, one.seconds, one.processor, f"{one.memory:.0f}", f"{peak()[1][0]:.0f}", answer)

    lines = [*HEAD, row("reading it all", *reading), row("one product", *product)]
    store = ParquetStore(folder, similarity=given.similarity)
    with ProcessPoolExecutor(given.workers) as pool:
        processes = timed(store, queries, given, pool)
    lines.append(scanned("ProcessPoolExecutor", processes))
    found, seconds = scan_with_a_death(store, queries, given, 0.4 * processes.seconds)
    killed = [f"{seconds:.1f}", f"{seconds / longer[0]:.2f}", "", "", "", agreement(found, processes.found)]
    lines.append("| " + " | ".join(["a worker killed midway", *killed]) + " |")
    with cluster(given.workers) as executor:
        dask = timed(store, queries, given, executor)
    lines.append(scanned("dask", dask, agreement(dask.found, processes.found)))
    return [*lines, "", f"dask took {dask.seconds / processes.seconds:.2f} times as long as processes."]


def scan_with_a_death(
    store: ParquetStore, queries: np.ndarray, given: argparse.Namespace, after: float
) -> tuple[SearchResult, float]:
    """A scan one of whose workers is killed after some seconds: its answer, and how long it took."""
    with ProcessPoolExecutor(given.workers) as pool:
        pool.submit(peak).result()
        killer = threading.Timer(after, os.kill, (next(iter(pool._processes)), signal.SIGKILL))
        killer.start()
        started = time.perf_counter()
        return scan(store, queries, given.k, pool), time.perf_counter() - started


def agreement(one: SearchResult, other: SearchResult) -> str:
    return "yes" if same(one, other) else "no"


def heading(folder: Path, given: argparse.Namespace) -> list[str]:
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e9
    return [
        f"`python benchmarks/lake.py --nodes {given.nodes}`: {given.nodes:,} x {given.dimension} float32 in Parquet,",
        f"{size:.1f} GB, {given.queries:,} queries, k {given.k}, {given.workers} workers. `pass` is the time over the",
        "longer of reading it all and one product; `processor` is the same of processor time, which others on the",
        "machine change less.",
        machine("pyarrow", "distributed", "numpy"),
        "",
    ]


@contextmanager
def cluster(n_workers: int) -> Iterator[Executor]:
    from distributed import Client, LocalCluster

    options = {"n_workers": n_workers, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**options) as local, Client(local) as client:
        yield client.get_executor()


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    for name, default in {"nodes": 1_000_000, "dimension": 384, "queries": 1_000, "k": 10, "workers": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--similarity", default="cosine", choices=("cosine", "dot", "l2"))
    parser.add_argument("--folder", type=Path, help="where the files are written and deleted again")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nudge-lake-", dir=given.folder) as name:
        folder = Path(name)
        apart(write_files, folder, given.nodes, given.dimension)
        lines = heading(folder, given) + measure(folder, given)
    print("\n".join(lines))
    if given.nodes in SECTIONS:
        write_section(SECTIONS[given.nodes], f"One pass over {given.nodes:,} vectors in files", lines)


if __name__ == "__main__":
    main()
