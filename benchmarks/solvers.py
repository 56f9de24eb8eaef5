"""Time and memory of the solvers against nudge-ft and against one matrix product, side by side on the same arrays.

    python benchmarks/solvers.py                    # 100,000 nodes, and the table in benchmarks/README.md
    python benchmarks/solvers.py --nodes 20000      # quicker; prints the table, writes nothing

Seconds depend on the machine; the ratios are what to read. Each case runs in a process of its own, three times
(nudge-ft once: it takes minutes), and the fastest run counts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from report import machine, write_section

from nudge_rag.solvers import NudgeM, NudgeN

DIMENSION, LABELLED, TRAIN, VAL = 384, 5_000, 10_000, 1_000
BLOCK = 4_000
FULL_SIZE, LARGE = 100_000, 1_000_000

Labels = tuple[np.ndarray, list[list[int]]]


def make_arrays(folder: Path, nodes: int) -> None:
    """Random unit nodes; queries lie off their nodes, each node's always to the same side."""
    rng = np.random.default_rng(0)
    matrix = np.lib.format.open_memmap(folder / "nodes.npy", "w+", np.float32, (nodes, DIMENSION))
    for first in range(0, nodes, 50_000):
        matrix[first : first + 50_000] = unit(rng.normal(size=(min(50_000, nodes - first), DIMENSION)))
    matrix.flush()
    labelled = rng.choice(nodes, size=LABELLED, replace=False)
    places = matrix[labelled] + 1.2 * unit(rng.normal(size=(LABELLED, DIMENSION)))
    for name, size in (("train", TRAIN), ("val", VAL)):
        chosen = rng.integers(0, LABELLED, size=size)
        np.save(folder / f"{name}.npy", unit(places[chosen] + 0.15 * rng.normal(size=(size, DIMENSION))))
        np.save(folder / f"{name}_answers.npy", labelled[chosen])


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def read_labels(folder: Path, name: str) -> Labels:
    return np.load(folder / f"{name}.npy"), [[int(row)] for row in np.load(folder / f"{name}_answers.npy")]


def product(nodes: np.ndarray, train: Labels, val: Labels) -> float:
    for first in range(0, len(nodes), BLOCK):
        val[0] @ nodes[first : first + BLOCK].T
    return 0.0


def ours(solver: Any) -> Callable[..., float]:
    return lambda nodes, train, val: solver.fit(nodes, train, val).gamma


def peer(name: str) -> Callable[..., float]:
    def run(nodes: np.ndarray, train: Labels, val: Labels) -> float:
        import nudge

        sets = [{"q_embs": part[0], "q_ans_indx": part[1]} for part in (train, val)]
        with contextlib.redirect_stdout(None):
            moved = getattr(nudge, name)(device="cpu").finetune_embeddings(np.array(nodes), *sets)
        rows = sorted({row for answers in train[1] for row in answers})
        return float(((moved[rows] - nodes[rows]) ** 2).sum(axis=1).max())

    return run


def compat(nodes: np.ndarray, train: Labels, val: Labels) -> float:
    from nudge_rag.compat import NUDGEN

    sets: list[Any] = [{"q_embs": part[0], "q_ans_indx": part[1]} for part in (train, val)]
    moved = NUDGEN().finetune_embeddings(nodes, *sets)
    rows = sorted({row for answers in train[1] for row in answers})
    return float(((moved[rows] - nodes[rows]) ** 2).sum(axis=1).max())


CASES: dict[str, Callable[..., float]] = {
    "product": product,
    "NUDGE-N, grid": ours(NudgeN(extend=False)),
    "compat NUDGE-N": compat,
    "NUDGE-N, exact top-1": ours(NudgeN(search="exact")),
    "NUDGE-N, exact nDCG@10": ours(NudgeN(search="exact", metric="nDCG@10")),
    "NUDGE-M": ours(NudgeM()),
    "nudge-ft NUDGE-N": peer("NUDGEN"),
    "nudge-ft NUDGE-M": peer("NUDGEM"),
}


def run_case(case: str, folder: Path) -> dict[str, float]:
    """Best time, memory that Python and numpy allocate above the inputs, and the process's peak, in one process."""
    mapped = np.load(folder / "nodes.npy", mmap_mode="r")
    nodes = np.array(mapped) if len(mapped) <= FULL_SIZE else mapped
    train, val = read_labels(folder, "train"), read_labels(folder, "val")
    seconds, gamma = [], 0.0
    for _ in range(1 if case.startswith("nudge-ft") or len(mapped) > FULL_SIZE else 3):
        started = time.perf_counter()
        gamma = CASES[case](nodes, train, val)
        seconds.append(time.perf_counter() - started)
    peak = 0
    if not case.startswith("nudge-ft"):
        tracemalloc.start()
        CASES[case](nodes, train, val)
        peak = tracemalloc.get_traced_memory()[1]
    process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": min(seconds), "gamma": gamma, "allocated": peak, "process": process}


def measure(case: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--case", case, "--folder", str(folder)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    result: dict[str, float] = json.loads(output.splitlines()[-1])
    sys.stderr.write(f"{case}: {result['seconds']:.2f} s\n")
    return result


def table(results: dict[str, dict[str, float]]) -> list[str]:
    base = results["product"]["seconds"]
    lines = [
        "| case | seconds | times one product | nudge-ft takes | allocated above the inputs |",
        "|---|---|---|---|---|",
    ]
    for case, result in results.items():
        rival = results.get("nudge-ft NUDGE-M" if "-M" in case else "nudge-ft NUDGE-N")
        own = not case.startswith("nudge-ft") and case != "product"
        ratio = f"{rival['seconds'] / result['seconds']:.0f} times as long" if rival and own else ""
        memory = f"{result['allocated'] / 2**20:.0f} MiB" if result["allocated"] else ""
        lines.append(f"| {case} | {result['seconds']:.2f} | {result['seconds'] / base:.2f} | {ratio} | {memory} |")
    return lines


def heading(nodes: int) -> list[str]:
    return [
        f"{nodes:,} nodes, {DIMENSION} dimensions, float32, {LABELLED:,} of them labelled; {TRAIN:,} training and",
        f"{VAL:,} validation queries; one product is that of the validation queries with all nodes, in blocks.",
        machine("numpy", "torch", "nudge-ft"),
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=FULL_SIZE)
    parser.add_argument("--case", choices=list(CASES))
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(run_case(arguments.case, arguments.folder)))
        return
    with tempfile.TemporaryDirectory() as name:
        make_arrays(Path(name), arguments.nodes)
        lines = heading(arguments.nodes) + table({case: measure(case, Path(name)) for case in CASES})
    if arguments.nodes == FULL_SIZE:
        with tempfile.TemporaryDirectory() as name:
            make_arrays(Path(name), LARGE)
            large = {case: measure(case, Path(name)) for case in ("product", "NUDGE-N, grid", "NUDGE-N, exact top-1")}
        most = max(result["process"] for result in large.values()) / 2**30
        lines += [
            "",
            f"{LARGE:,} nodes, memory-mapped; the whole process takes at most {most:.1f} GiB:",
            "",
            *table(large),
        ]
        write_section("solvers", "Solvers", lines)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
