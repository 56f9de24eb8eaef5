"""Tuning a LanceDB table of 100,000 and of 1,000,000 vectors with the same labels: what is read, and how long it takes.

    python benchmarks/pushdown.py                                # both sizes, and the table in benchmarks/README.md
    python benchmarks/pushdown.py --small 50000 --large 100000   # quicker; prints the table, writes nothing

The smaller table holds the first vectors of the larger one, among them every labelled node. Both have an IVF index with
as many vectors per partition, so that the store itself searches both in about the same time.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
from lancedb.index import BTree, IvfFlat
from report import machine, write_section

from nudge_rag import LabeledPairs, Nudge, tune
from nudge_rag.stores import LanceStore

DIMENSION, LABELLED, QUERIES_PER_NODE = 384, 1_000, 8
TOPICS, PER_PARTITION, NPROBES, BATCH = 2_000, 500, 30, 50_000
SMALL, LARGE = 100_000, 1_000_000


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def topics() -> np.ndarray:
    return unit(np.random.default_rng(0).normal(size=(TOPICS, DIMENSION)))


def batch_of_nodes(batch: int, size: int) -> np.ndarray:
    """Nodes lie around topics; a batch is the same in every table."""
    rng = np.random.default_rng([1, batch])
    centres = topics()[rng.integers(0, TOPICS, size=BATCH)]
    return unit(centres + 0.6 * unit(rng.normal(size=(BATCH, DIMENSION))))[:size]


def make_table(folder: Path, nodes: int) -> Any:
    schema = pa.schema([("id", pa.string()), ("vector", pa.list_(pa.float32(), DIMENSION)), ("text", pa.string())])

    def batches() -> Any:
        for batch in range(-(-nodes // BATCH)):
            first = batch * BATCH
            rows = batch_of_nodes(batch, min(BATCH, nodes - first))
            ids = pa.array([f"n{first + row}" for row in range(len(rows))])
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), DIMENSION)
            yield pa.record_batch([ids, vectors, ids], schema=schema)

    table = lancedb.connect(folder).create_table("nodes", batches(), schema=schema)
    table.create_index("vector", config=IvfFlat(distance_type="cosine", num_partitions=nodes // PER_PARTITION))
    table.create_index("id", config=BTree())
    return table


def labels() -> tuple[LabeledPairs, dict[str, np.ndarray]]:
    """Queries lie between their node and another topic, each node's always the same: nodes of that topic come first."""
    rng = np.random.default_rng(2)
    chosen = rng.choice(BATCH, size=LABELLED, replace=False)
    places = batch_of_nodes(0, BATCH)[chosen] + 1.15 * topics()[rng.integers(0, TOPICS, size=LABELLED)]
    embedded = {}
    for number in range(QUERIES_PER_NODE):
        vectors = unit(places + 0.5 * unit(rng.normal(size=places.shape)))
        embedded |= {f"{number} n{node}": vector for node, vector in zip(chosen, vectors, strict=True)}
    return LabeledPairs.from_pairs((text, text.split()[1]) for text in embedded), embedded


def tuned(table: Any, method: Any, folder: Path) -> tuple[Nudge, float]:
    pairs, embedded = labels()
    store = LanceStore(table, nprobes=NPROBES)
    started = time.perf_counter()
    nudge = tune(
        store, pairs, lambda texts: np.array([embedded[text] for text in texts]), competitors=method, versions=folder
    )
    return nudge, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", type=int, default=SMALL)
    parser.add_argument("--large", type=int, default=LARGE)
    given = parser.parse_args()
    lines = [
        f"LanceDB on disk, {DIMENSION} dimensions, IVF index; {LABELLED:,} nodes with {QUERIES_PER_NODE} queries",
        "each; `tune` with its defaults.",
        machine("lancedb", "numpy"),
        "",
        "| vectors in the table | candidates | vectors read | seconds | gamma | known nodes found | nDCG@10 |",
        "|---|---|---|---|---|---|---|",
    ]
    for nodes in (given.small, given.large):
        folder = Path(tempfile.mkdtemp())
        table = make_table(folder, nodes)
        tuned(table, "search", folder)  # so that both sizes are measured with warm caches
        for method in ("search", "scan"):
            nudge, seconds = tuned(table, method, folder)
            row, reads = nudge.comparison.row("nDCG@10"), nudge.reads
            found = f"{reads.found} of {reads.expected}" if method == "search" else "exact"
            change = f"{row.before:.3f} to {row.after:.3f}"
            cells = [f"{nodes:,}", method, f"{reads.vectors_read:,}", f"{seconds:.1f}", f"{nudge.gamma:.2f}"]
            cells += [found, change]
            lines.append(f"| {' | '.join(cells)} |")
            print(lines[-1], flush=True)
        shutil.rmtree(folder)
    if (given.small, given.large) == (SMALL, LARGE):
        write_section("pushdown", "A store of any size", lines)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
