"""nDCG@10 on held-out queries: the solvers against what else one could do with the same labels, on the same splits.

    NUDGE_RAG_DATA=... python benchmarks/accuracy.py            # all sets and methods; writes benchmarks/README.md
    NUDGE_RAG_DATA=... python benchmarks/accuracy.py scifact    # prints that set's rows, writes nothing
    NUDGE_RAG_DATA=... python benchmarks/accuracy.py scifact stackfaq --methods NudgeN "nudge-ft NUDGE-N"

The sets and their splits are those of data_sets.py. Nothing is cached: every run trains and measures anew.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import peers
from data_sets import METRIC, SETS, Data, Method, Tuned, load, measure
from report import machine, write_section

from nudge_rag import NudgeContrastive, NudgeM, NudgeN
from nudge_rag.evaluate import Evaluation
from nudge_rag.significance import bootstrap_interval


def untuned(data: Data) -> Tuned:
    return Tuned(data.nodes, 0.0)


def solved(solver: Any) -> Method:
    """A solver of this library, its step chosen on the validation part."""

    def method(data: Data) -> Tuned:
        train, val = data.labels(data.split.train), data.labels(data.split.val)
        started = time.perf_counter()
        vectors = solver.fit(data.nodes, train, val).embeddings()
        return Tuned(vectors, time.perf_counter() - started, similarity=solver.similarity)

    return method


METHODS: dict[str, Method] = {
    "untuned": untuned,
    "nudge-ft NUDGE-M": peers.nudge_ft("NUDGEM"),
    "nudge-ft NUDGE-N": peers.nudge_ft("NUDGEN"),
    "training queries as extra vectors": peers.extra_vectors,
    "NudgeM": solved(NudgeM()),
    "NudgeN": solved(NudgeN()),
    "NudgeN, exact nDCG@10": solved(NudgeN(metric=METRIC, search="exact")),
    "NudgeContrastive": solved(NudgeContrastive(metric=METRIC)),
}

TABLE_HEAD = (
    "| data | method | all | against untuned | uncovered | against untuned | seconds to train |",
    "|---|---|---|---|---|---|---|",
)


def rows_of(name: str, methods: Sequence[str]) -> tuple[list[str], list[str]]:
    """Lines of the table, and of the notes above it."""
    data = load(name)
    every, uncovered = list(data.test.qrels), data.uncovered()
    notes = [f"- {name}: {len(uncovered):,} of {len(every):,} test queries are uncovered."]
    print(notes[0])
    base = measure(data, untuned(data), data.test)
    rows = []
    for method in methods:
        tuned = METHODS[method](data)
        result = measure(data, tuned, data.test)
        cells = [name, method, *_cells(base, result, every), *_cells(base, result, uncovered), f"{tuned.seconds:.1f}"]
        rows.append(f"| {' | '.join(cells)} |")
        print(rows[-1], flush=True)
    return rows, notes


def _cells(base: Evaluation, result: Evaluation, queries: list[str]) -> tuple[str, str]:
    """Mean over ``queries``, and the interval of its difference to the untuned embeddings."""
    if not queries:
        return "", ""
    before, after = base.of(METRIC, queries), result.of(METRIC, queries)
    mean = f"{100 * after.mean():.1f}"
    if (before == after).all():
        return mean, ""
    low, high = bootstrap_interval(before, after)
    return mean, f"{100 * low:+.1f} to {100 * high:+.1f}"


def section(rows: list[str], notes: list[str]) -> list[str]:
    return [
        "nDCG@10 (times 100) on held-out queries: all of them, and the uncovered ones, whose answers have no label in",
        "the training nor in the validation part. Beside each mean, the 95 % paired-bootstrap interval of its",
        "difference to the untuned embeddings. Seconds are those of training alone, choosing the step or the epoch",
        "included; they are comparable only side by side, on one machine.",
        machine("numpy", "scipy", "nudge-ft", "torch", "sentence-transformers"),
        "",
        *notes,
        "",
        *TABLE_HEAD,
        *rows,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="nDCG@10 on held-out queries, and seconds to train.")
    parser.add_argument("sets", nargs="*", metavar="set", help=f"of {', '.join(SETS)}; all where none is named")
    parser.add_argument("--methods", nargs="+", choices=METHODS, metavar="method", default=list(METHODS))
    arguments = parser.parse_args()
    unknown = [name for name in arguments.sets if name not in SETS]
    if unknown:
        parser.error(f"no such set: {', '.join(unknown)}; there are {', '.join(SETS)}")
    rows: list[str] = []
    notes: list[str] = []
    for name in arguments.sets or SETS:
        of_set = rows_of(name, arguments.methods)
        rows += of_set[0]
        notes += of_set[1]
    if not arguments.sets and arguments.methods == list(METHODS):
        write_section("accuracy", "Accuracy", section(rows, notes))


if __name__ == "__main__":
    main()
