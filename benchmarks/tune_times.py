"""How long `tune` with nudge-n takes in a database of 200,000 nodes, beside what it took in another checkout.

    git worktree add --detach ../old 7a40431
    python benchmarks/tune_times.py --other ../old

Nodes lie around topics; labelled are half of the nodes of some popular topics, so that the nearest nodes of a query are
labelled ones, and each has four queries. PostgreSQL has an HNSW index, LanceDB an IVF index. Both checkouts take turns
on the same store, each in a process of its own. Seconds are of the wall, of `tune` alone; the ratio is to be a fifth.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from checkouts import commit_of, run_in
from push_times import TABLE, fill, open_store, postgres_uri
from report import machine, write_section

ROOT = Path(__file__).resolve().parents[1]
STORES = ("postgres", "lancedb")
# A topic's nodes, and how many labelled nodes there are for one of the nodes of popular topics.
PER_TOPIC, SHARE_LABELLED, QUERIES = 100, 0.5, 4
# How far nodes lie off their topic, and queries off their node: some of the way all in one direction.
SPREAD, APART, AWAY = 0.6, 1.0, 1.0


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def make_nodes(n_nodes: int, dimension: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Ids and vectors of the nodes, and the topic of each."""
    rng = np.random.default_rng(0)
    topics = np.arange(n_nodes) // PER_TOPIC
    centres = unit(rng.normal(size=(int(topics[-1]) + 1, dimension)))
    vectors = unit(centres[topics] + SPREAD * unit(rng.normal(size=(n_nodes, dimension))))
    return [f"node-{row:06d}" for row in range(n_nodes)], vectors, topics


def make_labels(vectors: np.ndarray, topics: np.ndarray, n_labelled: int) -> tuple[np.ndarray, np.ndarray]:
    """For each query its node's row, and its embedding."""
    rng = np.random.default_rng(1)
    popular = np.flatnonzero(topics < n_labelled / SHARE_LABELLED / PER_TOPIC)
    rows = np.repeat(np.sort(rng.choice(popular, size=n_labelled, replace=False)), QUERIES)
    away = AWAY * unit(rng.normal(size=(1, vectors.shape[1])))
    return rows, unit(vectors[rows] + away + APART * unit(rng.normal(size=(len(rows), vectors.shape[1]))))


def make_index(kind: str, folder: Path, uri: str) -> None:
    """Give the database the index that it would have at this size."""
    if kind == "postgres":
        import psycopg

        with psycopg.connect(uri, autocommit=True) as connection:
            connection.execute("SET maintenance_work_mem = '1GB'")
            connection.execute(f"CREATE INDEX ON {TABLE} USING hnsw (embedding vector_cosine_ops)")
    else:
        import lancedb
        from lancedb.index import IvfFlat

        index = IvfFlat(distance_type="cosine", num_partitions=400)
        lancedb.connect(str(folder)).open_table(TABLE).create_index("vector", config=index)


def time_one(kind: str, folder: Path, uri: str, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of one `tune`, and nDCG@10 before and after."""
    from nudge_rag import LabeledPairs, tune

    ids, vectors, topics = make_nodes(options.nodes, options.dimension)
    rows, queries = make_labels(vectors, topics, options.labelled)
    pairs = LabeledPairs.from_pairs([(f"query {number}", ids[row]) for number, row in enumerate(rows.tolist())])
    store = open_store(kind, folder, uri)

    def embed(texts: list[str]) -> np.ndarray:
        return queries[[int(text.split()[1]) for text in texts]]

    started = time.perf_counter()
    nudge = tune(store, pairs, embed, solver="nudge-n")
    seconds = time.perf_counter() - started
    held_out = next(row for row in nudge.comparison.rows if str(row.metric) == "nDCG@10")
    return {"seconds": seconds, "before": held_out.before, "after": held_out.after}


def run_one(checkout: Path, kind: str, folder: Path, uri: str, options: argparse.Namespace) -> dict[str, Any]:
    """`time_one` in a process that imports ``checkout``."""
    arguments = ["--one", kind, "--folder", str(folder), "--uri", uri]
    for name in ("nodes", "dimension", "labelled"):
        arguments += [f"--{name}", str(getattr(options, name))]
    return run_in(checkout, __file__, arguments, cwd=folder.parent)


def compare(kind: str, uri: str, options: argparse.Namespace) -> str:
    """A row of the table: both checkouts in turns on one store."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "store"
        ids, vectors, _ = make_nodes(options.nodes, options.dimension)
        fill(kind, folder, uri, ids, vectors)
        make_index(kind, folder, uri)
        rounds = [
            [run_one(checkout, kind, folder, uri, options) for checkout in (options.other, ROOT)]
            for _ in range(options.rounds)
        ]
    then, now = (statistics.median(one[which]["seconds"] for one in rounds) for which in (0, 1))
    values = [f"{one['before']:.3f} to {one['after']:.3f}" for one in rounds[0]]
    return f"| {kind} | {then:.1f} | {now:.1f} | {now / then:.2f} | {values[0]} | {values[1]} |"


def main() -> None:
    """Time both checkouts in turns, and write the table."""
    parser = argparse.ArgumentParser(description="Times of tune with nudge-n in two checkouts.")
    parser.add_argument("--other", type=Path, help="the other checkout")
    parser.add_argument("--nodes", type=int, default=200_000)
    parser.add_argument("--dimension", type=int, default=64)
    parser.add_argument("--labelled", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--stores", nargs="+", choices=STORES, default=STORES)
    for hidden in ("--one", "--folder", "--uri"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        found = time_one(options.one, Path(options.folder), options.uri, options)
        sys.stdout.write(json.dumps(found) + "\n")
        return
    if options.other is None:
        parser.error("--other names the checkout to compare with")
    options.other = options.other.resolve()
    uri, rows = postgres_uri(), []
    for kind in options.stores:
        rows.append(compare(kind, uri, options))
        sys.stdout.write(rows[-1] + "\n")
        sys.stdout.flush()
    commit = commit_of(options.other)
    lines = [
        f"`benchmarks/tune_times.py`: {options.nodes:,} x {options.dimension}, {options.labelled:,} labelled nodes with"
        f" {QUERIES} queries each, nudge-n, medians of {options.rounds} rounds in turns, in seconds.",
        "At 7a40431 queries were ranked by exact scores; now the store is asked what its own search answers.",
        machine("lancedb", "psycopg", "numpy"),
        "",
        f"| store | {commit} | now | ratio | nDCG@10, {commit} | nDCG@10, now |",
        "|---|---|---|---|---|---|",
        *rows,
    ]
    write_section("tune-times", "tune in a database, beside an older commit", lines)


if __name__ == "__main__":
    main()
