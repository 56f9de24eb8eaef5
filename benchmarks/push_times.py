"""How long a push and a rollback of 14,000 nodes take, beside what they took in another checkout of the project.

    git worktree add --detach ../old 7a40431
    python benchmarks/push_times.py --other ../old

Both checkouts take turns, each in a process of its own that times one push and one rollback on a new store. The table
has the medians; the last column is the larger of the two ratios, whose goal is 1.5.
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
from report import machine, write_section

ROOT = Path(__file__).resolve().parents[1]
STORES = ("postgres", "lancedb", "chroma")
TABLE = "push_times"


def fill(kind: str, folder: Path, uri: str, ids: list[str], vectors: Any) -> None:
    """Make the store by its database's own client."""
    if kind == "postgres":
        import psycopg

        with psycopg.connect(uri, autocommit=True) as connection:
            connection.execute(f"DROP TABLE IF EXISTS {TABLE}")
            connection.execute(f"CREATE TABLE {TABLE} (id text PRIMARY KEY, embedding vector({vectors.shape[1]}))")
            with connection.cursor() as cursor, cursor.copy(f"COPY {TABLE} FROM STDIN") as rows:
                for node, vector in zip(ids, vectors.tolist(), strict=True):
                    rows.write_row((node, str(vector)))
    elif kind == "lancedb":
        import lancedb
        import pyarrow

        width = vectors.shape[1]
        column = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.ravel()), width)
        lancedb.connect(str(folder)).create_table(TABLE, pyarrow.table({"id": ids, "vector": column}))
    else:
        import chromadb

        collection = chromadb.PersistentClient(str(folder)).create_collection(TABLE, embedding_function=None)
        for first in range(0, len(ids), 5_000):
            part = slice(first, first + 5_000)
            collection.add(ids[part], embeddings=vectors[part])


def open_store(kind: str, folder: Path, uri: str) -> Any:
    """The adapter of the checkout that is imported."""
    from nudge_rag import stores

    if kind == "postgres":
        return stores.PgVectorStore(uri, TABLE)
    if kind == "lancedb":
        return stores.LanceStore.open(folder, TABLE)
    return stores.ChromaStore.open(folder, TABLE)


def time_one(kind: str, folder: Path, uri: str, n_nodes: int, dimension: int) -> dict[str, float]:
    """Seconds of a push of all nodes, and of its rollback."""
    rng = np.random.default_rng(0)
    ids = [f"node-{row:06d}" for row in range(n_nodes)]
    originals = rng.normal(size=(n_nodes, dimension)).astype(np.float32)
    moved = originals + rng.normal(size=originals.shape, scale=0.1).astype(np.float32)
    fill(kind, folder, uri, ids, originals)
    try:
        from nudge_rag.journal.push import push_vectors

        place: dict[str, Any] = {}
    except ImportError:  # before the history lived with the vectors
        from nudge_rag.pushing import push_vectors  # type: ignore[no-redef]

        place = {"root": folder.parent / "history"}
    from nudge_rag import rollback

    store, seconds = open_store(kind, folder, uri), {}
    started = time.perf_counter()
    if not push_vectors(store, ids, originals, moved, details={"solver": "bench"}, **place).pushed:
        sys.exit("nothing was pushed")
    seconds["push"] = time.perf_counter() - started
    started = time.perf_counter()
    if not rollback(store, **place).exact:
        sys.exit("the rollback is not exact")
    seconds["rollback"] = time.perf_counter() - started
    return seconds


def run_one(checkout: Path, kind: str, uri: str, options: argparse.Namespace) -> dict[str, float]:
    """`time_one` in a process that imports ``checkout``."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["--one", kind, "--folder", f"{folder}/store", "--uri", uri]
        arguments += ["--nodes", str(options.nodes), "--dimension", str(options.dimension)]
        return run_in(checkout, __file__, arguments)


def postgres_uri() -> str:
    """The address of a server with pgvector."""
    sys.path.insert(0, str(ROOT))
    import psycopg

    from tests.support.builders.postgres import new_server

    server = new_server(start=True)
    uri = str(server.get_uri())
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    return uri


def main() -> None:
    """Time both checkouts in turns, and write the table."""
    parser = argparse.ArgumentParser(description="Times of a push and a rollback in two checkouts.")
    parser.add_argument("--other", type=Path, help="the other checkout")
    parser.add_argument("--nodes", type=int, default=14_000)
    parser.add_argument("--dimension", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stores", nargs="+", choices=STORES, default=STORES)
    for hidden in ("--one", "--folder", "--uri"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        found = time_one(options.one, Path(options.folder), options.uri, options.nodes, options.dimension)
        sys.stdout.write(json.dumps(found) + "\n")
        return
    if options.other is None:
        parser.error("--other names the checkout to compare with")
    uri, rows = postgres_uri(), []
    for kind in options.stores:
        rounds = [
            (run_one(options.other, kind, uri, options), run_one(ROOT, kind, uri, options))
            for _ in range(options.rounds)
        ]
        then, now = (
            {name: statistics.median(one[which][name] for one in rounds) for name in ("push", "rollback")}
            for which in (0, 1)
        )
        ratio = max(now[name] / then[name] for name in then)
        cells = [kind, *(f"{part[name]:.2f}" for name in ("push", "rollback") for part in (then, now)), f"{ratio:.2f}"]
        rows.append(f"| {' | '.join(cells)} |")
        sys.stdout.write(rows[-1] + "\n")
        sys.stdout.flush()
    commit = commit_of(options.other)
    lines = [
        f"`benchmarks/push_times.py`: {options.nodes:,} x {options.dimension}, medians of {options.rounds} rounds, in"
        " turns, in seconds.",
        machine("chromadb", "lancedb", "psycopg", "numpy"),
        "",
        f"| store | push, {commit} | push, now | rollback, {commit} | rollback, now | times as long, at most |",
        "|---|---|---|---|---|---|",
        *rows,
    ]
    write_section("push-times", "A push and a rollback, beside those of an older commit", lines)


if __name__ == "__main__":
    main()
