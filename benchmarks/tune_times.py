"""How long `tune` with nudge-n takes in a database of 200,000 nodes, beside what it took in another checkout.

    git worktree add --detach ../old 7a40431
    python benchmarks/tune_times.py --other ../old

Nodes lie around topics. Labelled are half of the nodes of some popular topics, so that half of the nearest nodes of a
query are labelled; or all of them, so that its nearest hundred are, and 7a40431 asks for twice as many again and again.
Each labelled node has four queries. PostgreSQL has an HNSW index, LanceDB an IVF index. Both checkouts take turns on
one store, each in a process of its own. Seconds are of the wall, of `tune` alone; processors also work for others, so
those of the process and of the database's server are counted too. The ratio is to be a fifth.
"""

from __future__ import annotations

import argparse
import json
import os
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
# A topic's nodes, the queries of a labelled node, and the shares of popular topics that are labelled.
PER_TOPIC, QUERIES = 100, 4
SHARES = (0.5, 1.0)
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


def make_labels(
    vectors: np.ndarray, topics: np.ndarray, n_labelled: int, share: float
) -> tuple[np.ndarray, np.ndarray]:
    """For each query its node's row, and its embedding."""
    rng = np.random.default_rng(1)
    popular = np.flatnonzero(topics < n_labelled / share / PER_TOPIC)
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
    """Seconds of one `tune`, of the wall and of processors, and nDCG@10 before and after."""
    from nudge_rag import LabeledPairs, tune

    ids, vectors, topics = make_nodes(options.nodes, options.dimension)
    rows, queries = make_labels(vectors, topics, options.labelled, options.share)
    pairs = LabeledPairs.from_pairs([(f"query {number}", ids[row]) for number, row in enumerate(rows.tolist())])
    store = open_store(kind, folder, uri)

    def embed(texts: list[str]) -> np.ndarray:
        return queries[[int(text.split()[1]) for text in texts]]

    started, processors = time.perf_counter(), time.process_time() + server_seconds(options.server)
    nudge = tune(store, pairs, embed, solver="nudge-n")
    seconds = time.perf_counter() - started
    processors = time.process_time() + server_seconds(options.server) - processors
    held_out = next(row for row in nudge.comparison.rows if str(row.metric) == "nDCG@10")
    return {"seconds": seconds, "processors": processors, "before": held_out.before, "after": held_out.after}


def server_seconds(server: int) -> float:
    """Processor time of a server's process and of its children, of which it has waited for those that ended."""
    if not server:
        return 0.0
    ticks = 0
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(status.parent.name) == server:
            ticks += sum(map(int, fields[11:15]))
        elif int(fields[1]) == server:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def server_process(uri: str) -> int:
    """The number of the server's first process, if it runs on this machine under Linux; 0 otherwise."""
    import psycopg

    with psycopg.connect(uri) as connection:
        ((own,),) = connection.execute("SELECT pg_backend_pid()").fetchall()
        status = Path(f"/proc/{own}/stat")
        return int(status.read_text().rpartition(")")[2].split()[1]) if status.exists() else 0


def run_one(checkout: Path, kind: str, folder: Path, uri: str, options: argparse.Namespace) -> dict[str, Any]:
    """`time_one` in a process that imports ``checkout``."""
    arguments = ["--one", kind, "--folder", str(folder), "--uri", uri]
    for name in ("nodes", "dimension", "labelled", "share", "server"):
        arguments += [f"--{name}", str(getattr(options, name))]
    return run_in(checkout, __file__, arguments, cwd=folder.parent)


def compare(kind: str, uri: str, options: argparse.Namespace) -> list[str]:
    """Rows of the table, one a share of labelled nodes: both checkouts in turns on one store."""
    lines = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "store"
        ids, vectors, _ = make_nodes(options.nodes, options.dimension)
        fill(kind, folder, uri, ids, vectors)
        make_index(kind, folder, uri)
        for share in options.shares:
            options.share = share
            rounds = [
                [run_one(checkout, kind, folder, uri, options) for checkout in (options.other, ROOT)]
                for _ in range(options.rounds)
            ]
            cells = [kind, f"{share:.0%}"]
            for name in ("seconds", "processors"):
                then, now = (statistics.median(one[which][name] for one in rounds) for which in (0, 1))
                cells += [f"{then:.1f}", f"{now:.1f}", f"{now / then:.2f}"]
            cells += [f"{one['before']:.3f} to {one['after']:.3f}" for one in rounds[0]]
            lines.append(f"| {' | '.join(cells)} |")
            sys.stdout.write(lines[-1] + "\n")
            sys.stdout.flush()
    return lines


def main() -> None:
    """Time both checkouts in turns, and write the table."""
    parser = argparse.ArgumentParser(description="Times of tune with nudge-n in two checkouts.")
    parser.add_argument("--other", type=Path, help="the other checkout")
    parser.add_argument("--nodes", type=int, default=200_000)
    parser.add_argument("--dimension", type=int, default=64)
    parser.add_argument("--labelled", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--stores", nargs="+", choices=STORES, default=STORES)
    parser.add_argument("--shares", nargs="+", type=float, default=SHARES, help="of popular topics that are labelled")
    parser.add_argument("--share", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--server", type=int, default=0, help=argparse.SUPPRESS)
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
        options.server = server_process(uri) if kind == "postgres" else 0
        rows += compare(kind, uri, options)
    commit = commit_of(options.other)
    lines = [
        f"`benchmarks/tune_times.py`: {options.nodes:,} x {options.dimension}, {options.labelled:,} labelled nodes with"
        f" {QUERIES} queries each, nudge-n, medians of {options.rounds} rounds in turns, in seconds.",
        "At 7a40431 queries were ranked by exact scores; now the store is asked what its own search answers to",
        "a sample of them. Processor seconds are of the process and of PostgreSQL's server together.",
        machine("lancedb", "psycopg", "numpy"),
        "",
        f"| store | labelled of a topic | {commit} | now | ratio | {commit}, processors | now, processors | ratio |"
        f" nDCG@10, {commit} | nDCG@10, now |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *rows,
    ]
    write_section("tune-times", "tune in a database, beside an older commit", lines)


if __name__ == "__main__":
    main()
