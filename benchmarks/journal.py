"""What a history of many pushes costs: time and memory of `status` and `rollback` at 1 and at 200 versions.

And of vectors that a backup brings back after a rollback.

Usage: python benchmarks/journal.py [--versions 200] [--nodes 14000] [--dimension 64]

Each figure is taken in a process of its own. The last lines say whether the goals are met: status within 0.3 s,
rollback within three times what it takes at one version, both within 300 MB, and a history that grew by less than 2.5
times the originals.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from nudge_rag import rollback, status
from nudge_rag.journal.push import push_vectors
from nudge_rag.stores import MappingStore

CHANGED = 0.1


class Rows(MappingStore):
    """A store in float32, as databases are."""

    replace_vectors_if = None  # that of the table, which is empty

    def __init__(self, ids: list[str], vectors: np.ndarray) -> None:
        super().__init__({}, key="bench")
        self._capabilities = type(self._capabilities)("cosine", dtype="float32")
        self.rows, self.vectors = {node_id: row for row, node_id in enumerate(ids)}, vectors

    def read(self, ids: Any) -> Any:
        return self.vectors[[self.rows[node_id] for node_id in ids]]

    def matching(self, ids: Any, where: Any) -> set[str]:
        return {node_id for node_id in ids if node_id in self.rows}

    def as_stored(self, vectors: Any) -> Any:
        return np.asarray(vectors, dtype=np.float32)

    def replace(self, ids: Any, vectors: Any) -> None:
        self.vectors[[self.rows[node_id] for node_id in ids]] = vectors


def make(folder: Path, n_versions: int, n_nodes: int, dimension: int) -> None:
    """Push every night, with a tenth of the vectors changed; keep what the store holds after the first and the last."""
    rng = np.random.default_rng(0)
    ids = [f"node-{row:06d}" for row in range(n_nodes)]
    originals = rng.normal(size=(n_nodes, dimension)).astype(np.float32)
    moved = originals + rng.normal(size=originals.shape, scale=0.1).astype(np.float32)
    store = Rows(ids, originals.copy())
    for night in range(n_versions):
        chosen = rng.permutation(n_nodes)[: int(CHANGED * n_nodes)]
        moved[chosen] += rng.normal(size=(len(chosen), dimension), scale=0.1).astype(np.float32)
        push_vectors(store, ids, originals, moved, versions=folder / "history", details={"solver": "bench"})
        if night == 0:
            np.savez(folder / "first.npz", ids=np.array(ids), vectors=store.vectors)
            subprocess.run(["cp", "-r", str(folder / "history"), str(folder / "history-first")], check=True)
    np.savez(folder / "last.npz", ids=np.array(ids), vectors=store.vectors)
    # Rolled back, and then a backup brings the vectors of the last version back.
    subprocess.run(["cp", "-r", str(folder / "history"), str(folder / "history-over")], check=True)
    rollback(store, folder / "history-over")
    shutil.copy(folder / "last.npz", folder / "over.npz")


def measure(folder: Path, action: str, which: str) -> None:
    """Print seconds and peak memory of one call, in this process alone."""
    arrays = np.load(folder / f"{which}.npz")
    store = Rows(arrays["ids"].tolist(), arrays["vectors"])
    history = folder / ("history" if which == "last" else f"history-{which}")
    started = time.perf_counter()
    if action == "status":
        found = status(store, history)
        done = len(found.returned if which == "over" else found.nudged)
    else:
        done = rollback(store, history).restored
    seconds = time.perf_counter() - started
    if done != len(arrays["ids"]):
        raise SystemExit(f"{action} found {done} of {len(arrays['ids'])} nodes")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "megabytes": peak}))


def in_a_process(folder: Path, action: str, which: str) -> dict[str, float]:
    """What `measure` prints, from a process of its own."""
    command = [sys.executable, __file__, "--measure", str(folder), action, which]
    result: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return result


def size_of(folder: Path) -> int:
    """Bytes of all files in it."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """Print the table and whether the goals are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", type=int, default=200)
    parser.add_argument("--nodes", type=int, default=14_000)
    parser.add_argument("--dimension", type=int, default=64)
    parser.add_argument("--measure", nargs=3, metavar=("FOLDER", "ACTION", "WHICH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(Path(arguments.measure[0]), *arguments.measure[1:])
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, arguments.versions, arguments.nodes, arguments.dimension)
        size = size_of(folder / "history") / (arguments.nodes * arguments.dimension * 4)
        found = {
            (action, which): in_a_process(folder, action, which)
            for action in ("status", "rollback")
            for which in ("first", "last", "over")
        }
    print(f"{arguments.versions} versions of {arguments.nodes} x {arguments.dimension}")
    print("| | 1 version | all versions | peak memory, all | of vectors that came back after a rollback |")
    print("|---|---|---|---|---|")
    for action in ("status", "rollback"):
        first, last, over = (found[action, which] for which in ("first", "last", "over"))
        seconds = (f"{one['seconds']:.2f} s" for one in (first, last))
        print(f"| {action} | {' | '.join(seconds)} | {last['megabytes']:.0f} MB | {over['seconds']:.2f} s |")
    print(f"The history is {size:.2f} times the originals.")
    slower = found["rollback", "last"]["seconds"] / found["rollback", "first"]["seconds"]
    most = max(found[action, which]["megabytes"] for action in ("status", "rollback") for which in ("last", "over"))
    goals = {
        "status within 0.3 s": max(found["status", which]["seconds"] for which in ("last", "over")) <= 0.3,
        "rollback within 3 times that of one version": slower <= 3,
        "both within 300 MB": most <= 300,
        "history below 2.5 times the originals": size < 2.5,
    }
    for goal, met in goals.items():
        print(f"{'met' if met else 'MISSED'}: {goal}")
    if not all(goals.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
