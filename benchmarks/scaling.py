"""How the time and memory of "auto" grow with nodes and queries together, and how long it took at another commit.

    python benchmarks/scaling.py                              # 5,000 x 20,000 up to 50,000 x 200,000; writes a section
    python benchmarks/scaling.py --sizes 5000 10000           # labelled nodes, four times as many queries; prints
    python benchmarks/scaling.py --base PATH                  # the checkout in PATH beside this one; writes a section

Nodes lie in clusters of about 50, queries a common way off their nodes, as questions lie off the texts that answer
them; a tenth as many more validate. What the labels bring along of unlabelled nodes, as `tune` has it from a store's
search, are scores with 2,000 random nodes. Each case runs in a process of its own; seconds are those of the
processor, of all threads together.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from checkouts import commit_of
from report import machine, write_section

DIMENSION, QUERIES_A_NODE, CLUSTER, BYSTANDERS, DEPTH = 384, 4, 50, 2_000, 50
SIZES = (5_000, 10_000, 20_000, 50_000)
READ_AT_ONCE = 5_000


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def make_case(nodes: int) -> tuple[np.ndarray, Any, Any, np.ndarray]:
    """Labelled nodes, training and validation labels, and the nodes whose scores these bring along."""
    from nudge_rag import LabeledQueries

    rng = np.random.default_rng(0)

    def noise(count: int) -> np.ndarray:
        return unit(rng.normal(size=(count, DIMENSION)).astype(np.float32))

    centres, bystanders = noise(nodes // CLUSTER), noise(BYSTANDERS)
    vectors = unit(centres[rng.integers(0, len(centres), size=nodes)] + 0.35 * noise(nodes))
    places = unit(vectors + 0.5 * noise(1) + 1.5 * noise(nodes))
    parts = []
    for count in (QUERIES_A_NODE * nodes, QUERIES_A_NODE * nodes // 10):
        answers = rng.integers(0, nodes, size=count)
        queries = np.concatenate(
            [
                unit(
                    places[answers[first : first + READ_AT_ONCE]]
                    + 1.0 * noise(len(answers[first : first + READ_AT_ONCE]))
                )
                for first in range(0, count, READ_AT_ONCE)
            ]
        )
        competitors = np.concatenate(
            [
                -np.sort(-(queries[first : first + READ_AT_ONCE] @ bystanders.T), axis=1)[:, :DEPTH]
                for first in range(0, count, READ_AT_ONCE)
            ]
        )
        parts.append(LabeledQueries(queries, [[int(answer)] for answer in answers], competitors=competitors))
    return vectors, parts[0], parts[1], bystanders


def run_case(nodes: int) -> dict[str, Any]:
    from nudge_rag.solvers import AutoSolver

    vectors, train, val, bystanders = make_case(nodes)
    started, processor = time.perf_counter(), time.process_time()
    fit = AutoSolver(metric="nDCG@10").fit(vectors, train, val, competitor_vectors=bystanders)
    return _result(started, processor, next((one.solver for one in fit.tried if one.chosen), "none"))


def run_set(name: str) -> dict[str, Any]:
    from data_sets import METRIC, Tuned, load, measure

    from nudge_rag.solvers import AutoSolver

    data = load(name)
    train, val = data.labels(data.split.train), data.labels(data.split.val)
    started, processor = time.perf_counter(), time.process_time()
    fit = AutoSolver(metric=METRIC).fit(data.nodes, train, val)
    result = _result(started, processor, fit.solver)
    tuned = measure(data, Tuned(fit.embeddings(), 0.0), data.test)
    return result | {"metric": float(tuned.of(METRIC, list(data.test.qrels)).mean())}


def _result(started: float, processor: float, chosen: str) -> dict[str, Any]:
    return {
        "seconds": time.process_time() - processor,
        "wall": time.perf_counter() - started,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "chosen": chosen,
    }


def in_process(arguments: list[str], checkout: Path) -> dict[str, Any]:
    """Run this file in a process of its own that imports nudge_rag from ``checkout``."""
    # -P: the checkout's own benchmarks/data_sets.py, not the one beside this file; what it lacks is beside this file.
    beside = Path(__file__).resolve().parent
    environment = os.environ | {"PYTHONPATH": f"{checkout}:{checkout / 'benchmarks'}:{beside}"}
    command = [sys.executable, "-P", __file__, *arguments]
    output = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def growth(sizes: list[int], here: Path) -> list[str]:
    lines = [
        "| labelled nodes | queries | processor seconds | times, by a doubling | seconds | peak GiB | chosen |",
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    before: tuple[int, float] | None = None
    for nodes in sizes:
        result = in_process(["--nodes", str(nodes)], here)
        factor = ""
        if before is not None:
            # The factor of a doubling, if the sizes are further apart.
            factor = f"{(result['seconds'] / before[1]) ** (np.log(2) / np.log(nodes / before[0])):.2f}"
        before = nodes, result["seconds"]
        lines.append(
            f"| {nodes:,} | {QUERIES_A_NODE * nodes:,} | {result['seconds']:.0f} | {factor} | {result['wall']:.0f} |"
            f" {result['memory']:.1f} | {result['chosen']} |"
        )
        print(lines[-1], flush=True)
    return lines


def comparison(sets: list[str], base: Path, here: Path) -> list[str]:
    lines = ["| set | commit | processor seconds | seconds | nDCG@10 |", "|---|---|---|---|---|"]
    print("\n".join(lines), flush=True)
    for name in sets:
        for checkout in (base, here):
            result = in_process(["--set", name], checkout)
            lines.append(
                f"| {name} | {commit_of(checkout)} | {result['seconds']:.1f} | {result['wall']:.1f} |"
                f" {100 * result['metric']:.1f} |"
            )
            print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description='How the time and memory of "auto" grow.')
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="numbers of labelled nodes")
    parser.add_argument("--base", type=Path, help="a checkout of another commit, to compare with on --sets")
    parser.add_argument("--sets", nargs="+", default=["attack", "nfcorpus"])
    parser.add_argument("--nodes", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--set", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.nodes or arguments.set:
        print(json.dumps(run_case(arguments.nodes) if arguments.nodes else run_set(arguments.set)))
        return
    here = Path(__file__).resolve().parent.parent
    if arguments.base is not None:
        lines = comparison(arguments.sets, arguments.base.resolve(), here)
        write_section("auto-times", 'Times of "auto", beside those of an older commit', [machine("numpy"), "", *lines])
        return
    lines = growth(arguments.sizes, here)
    if arguments.sizes == list(SIZES):
        write_section("scaling", "Growth with the labels", [machine("numpy"), "", *lines])


if __name__ == "__main__":
    main()
