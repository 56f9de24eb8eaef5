"""NUDGE-N and NUDGE-M on an accelerator, against nudge-ft on the same one and against one matrix product.

    python benchmarks/torch_device.py --device cuda   # 1,000,000 x 768, 10,000 validation queries
    python benchmarks/torch_device.py --device cpu --nodes 20000 --val 500 --dimension 128

Prints seconds, the times that one product of the validation queries with all nodes takes, and how many TFLOP/s of such
products each case comes to. nudge-ft holds a dense matrix of validation queries and nodes: where that does not fit, the
table says so.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from nudge_rag.solvers import NudgeM, NudgeN


def make(nodes: int, dimension: int, labelled: int, train: int, val: int, device: str) -> tuple[Any, Any, Any]:
    """Random unit nodes on the device; queries lie off their nodes, each node's always to the same side."""
    generator = torch.Generator(device=device).manual_seed(0)

    def random(rows: int) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.randn(rows, dimension, generator=generator, device=device), dim=1)

    matrix = random(nodes)
    chosen = np.random.default_rng(0).choice(nodes, size=labelled, replace=False)
    places = matrix[torch.from_numpy(chosen).to(device)] + 1.2 * random(labelled)

    def labels(count: int) -> tuple[torch.Tensor, list[list[int]]]:
        which = np.random.default_rng(count).integers(0, labelled, size=count)
        return places[torch.from_numpy(which).to(device)] + 2.5 * random(count), [[int(chosen[row])] for row in which]

    return matrix, labels(train), labels(val)


def peer(name: str, device: str) -> Callable[..., Any]:
    def run(nodes: Any, train: Any, val: Any) -> None:
        import nudge

        sets = [{"q_embs": part[0].cpu().numpy(), "q_ans_indx": part[1]} for part in (train, val)]
        with contextlib.redirect_stdout(None):
            getattr(nudge, name)(device=device).finetune_embeddings(nodes.cpu().numpy(), *sets)

    return run


def product(nodes: Any, train: Any, val: Any) -> None:
    step = max(1, 64_000_000 // len(val[0]))
    for first in range(0, len(nodes), step):
        val[0] @ nodes[first : first + step].T


def seconds(case: Callable[..., Any], arrays: Any, device: str, runs: int) -> float:
    best = float("inf")
    for _ in range(runs):
        started = time.perf_counter()
        case(*arrays)
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    for name, size in {
        "nodes": 1_000_000,
        "dimension": 768,
        "labelled": 20_000,
        "train": 40_000,
        "val": 10_000,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    given = parser.parse_args()
    arrays = make(given.nodes, given.dimension, min(given.labelled, given.nodes), given.train, given.val, given.device)
    cases: dict[str, tuple[Callable[..., Any], int]] = {
        "product": (product, 3),
        "NUDGE-N, grid": (NudgeN(extend=False).fit, 2),
        "NUDGE-N, exact top-1": (NudgeN(search="exact").fit, 2),
        "NUDGE-M": (NudgeM().fit, 2),
        "nudge-ft NUDGE-N": (peer("NUDGEN", given.device), 1),
        "nudge-ft NUDGE-M": (peer("NUDGEM", given.device), 1),
    }
    print(f"{given.nodes:,} nodes, {given.dimension} dimensions, {given.val:,} validation queries, {given.device}")
    print("| case | seconds | times one product | TFLOP/s of the product |\n|---|---|---|---|")
    work, base = 2e-12 * given.nodes * given.val * given.dimension, 0.0
    for name, (case, runs) in cases.items():
        try:
            taken = seconds(case, arrays, given.device, runs)
        except (RuntimeError, MemoryError) as error:
            print(f"| {name} | fails: {str(error).splitlines()[0]} | | |")
            continue
        base = base or taken
        print(f"| {name} | {taken:.2f} | {taken / base:.2f} | {work / taken:.2f} |")


if __name__ == "__main__":
    main()
