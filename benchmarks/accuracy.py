"""nDCG@10 on held-out queries: the solvers against what else one could do with the same labels, on the same splits.

    NUDGE_RAG_DATA=... python benchmarks/accuracy.py            # all sets and methods; writes benchmarks/README.md
    NUDGE_RAG_DATA=... python benchmarks/accuracy.py scifact    # prints that set's rows, writes nothing
    NUDGE_RAG_DATA=... python benchmarks/accuracy.py scifact:withheld attack:300    # scarcer labels: data_sets.py
    NUDGE_RAG_DATA=... python benchmarks/accuracy.py scifact stackfaq --methods NudgeN "nudge-ft NUDGE-N"
    NUDGE_RAG_DATA=... python benchmarks/accuracy.py --fine-tuning    # fine-tunes the encoder first, where it was not

The sets and their splits are those of data_sets.py. Every run trains and measures anew, but for the fine-tuned encoder:
its row is of the run that filled the cache, and is left out where there was none.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import fine_tuning
import numpy as np
import peers
from data_sets import METRIC, SETS, Data, Method, Tuned, load, measure
from report import machine, write_section

from nudge_rag import NudgeContrastive, NudgeM, NudgeN
from nudge_rag.evaluation.runs import Evaluation
from nudge_rag.evaluation.significance import bootstrap_interval
from nudge_rag.solvers import AutoSolver, LinearMap, QueryAdapter
from nudge_rag.solvers.labels import join_labels

# Fine-tuning takes minutes on these, and hours on the others.
FINE_TUNED_SETS = ("scifact", "stackfaq")


def untuned(data: Data) -> Tuned:
    return Tuned(data.nodes, 0.0)


def solved(solver: Any) -> Method:
    """A solver of this library, its step chosen on the validation part."""

    def method(data: Data) -> Tuned:
        train, val = data.labels(data.split.train), data.labels(data.split.val)
        started = time.perf_counter()
        fit = solver.fit(data.nodes, train, val)
        seconds = time.perf_counter() - started
        embed = None if fit.adapter is None else _mapped(data, fit.adapter)
        return Tuned(fit.embeddings(), seconds, similarity=solver.similarity, embed=embed)

    return method


def map_alone(data: Data) -> Tuned:
    """The linear map of queries, its settings chosen on held-out nodes; no node moves."""
    started = time.perf_counter()
    fit = LinearMap(metric=METRIC).fit(
        data.nodes, join_labels(data.labels(data.split.train), data.labels(data.split.val))
    )
    seconds = time.perf_counter() - started
    return Tuned(data.nodes, seconds, embed=None if fit.adapter is None else _mapped(data, fit.adapter))


def _mapped(data: Data, adapter: QueryAdapter) -> Callable[[Sequence[str]], np.ndarray]:
    return lambda texts: adapter(data.embed(texts))


# A method that returns None has no row: it takes so long that it is run apart.
METHODS: dict[str, Callable[[Data], Tuned | None]] = {
    "untuned": untuned,
    "nudge-ft NUDGE-M": peers.nudge_ft("NUDGEM"),
    "nudge-ft NUDGE-N": peers.nudge_ft("NUDGEN"),
    "training queries as extra vectors": peers.extra_vectors,
    "linear query adapter": peers.query_adapter,
    "additive steps towards missed queries": peers.additive_steps,
    "fine-tuned encoder": fine_tuning.cached,
    "NudgeM": solved(NudgeM()),
    "NudgeN": solved(NudgeN()),
    "NudgeN, exact nDCG@10": solved(NudgeN(metric=METRIC, search="exact")),
    "NudgeContrastive": solved(NudgeContrastive(metric=METRIC)),
    "auto": solved(AutoSolver(metric=METRIC)),
    "linear map": map_alone,
    "auto, reach queries": solved(AutoSolver(metric=METRIC, reach="queries")),
    "auto, reach nodes": solved(AutoSolver(metric=METRIC, reach="nodes")),
    "auto, any loss of uncovered queries": solved(AutoSolver(metric=METRIC, tolerance=math.inf)),
    "NudgeContrastive, dot product": solved(NudgeContrastive(metric=METRIC, similarity="dot")),
    "auto, dot product": solved(AutoSolver(metric=METRIC, similarity="dot")),
}


def section_of(name: str, methods: Sequence[str], *, fine_tuning_too: bool) -> list[str]:
    """Heading, counts and table of one set."""
    data = load(name)
    parts = data.parts()
    if fine_tuning_too and name in FINE_TUNED_SETS:
        fine_tuning.fine_tune(data)
    head = ["method", *(cell for part in parts for cell in (part, "against untuned")), "seconds to train"]
    counts = ", ".join(f"{len(queries):,} {part}" for part, queries in parts.items())
    lines = [f"### {name}", "", f"Test queries: {counts}.", "", _line(head), "|---" * len(head) + "|"]
    print("\n".join(lines))
    base = measure(data, untuned(data), data.test)
    for method in methods:
        tuned = METHODS[method](data)
        if tuned is None:
            continue
        result = measure(data, tuned, data.test)
        cells = [cell for queries in parts.values() for cell in _cells(base, result, queries)]
        lines.append(_line([method, *cells, _seconds(tuned)]))
        print(lines[-1], flush=True)
    return [*lines, ""]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(base: Evaluation, result: Evaluation, queries: list[str]) -> tuple[str, str]:
    """Mean over ``queries``, and the interval of its difference to the untuned embeddings."""
    before, after = base.of(METRIC, queries), result.of(METRIC, queries)
    mean = f"{100 * after.mean():.1f}"
    if (before == after).all():
        return mean, ""
    low, high = bootstrap_interval(before, after)
    return mean, f"{100 * low:+.1f} to {100 * high:+.1f}"


def _seconds(tuned: Tuned) -> str:
    again = f", {tuned.seconds_to_embed:.0f} to embed again" if tuned.seconds_to_embed else ""
    return f"{tuned.seconds:.1f}{again}"


def page(sections: list[list[str]]) -> list[str]:
    return [
        "nDCG@10 (times 100) on held-out queries: all, the covered, and the uncovered ones, whose answers have no",
        "label in the training nor in the validation part. Beside each mean, the 95 % paired-bootstrap interval of its",
        "difference to the untuned embeddings. Seconds are those of training alone, choosing the step, the rate or the",
        "epoch included; they are comparable only side by side, on one machine. Those of fine-tuning are the",
        "processor's over the number of threads, in the run that filled its cache (`accuracy.py --fine-tuning`).",
        'Under "withheld" the labels of 20 % of the labelled nodes, popular ones among them, are taken away first.',
        "NudgeM and the last two rows are for stores that rank by dot product: there vectors may change their lengths.",
        machine("numpy", "nudge-ft", "torch", "sentence-transformers"),
        "",
        *(line for section in sections for line in section),
    ][:-1]


def _is_known(name: str) -> bool:
    """Whether it is a set, or one under a protocol."""
    name, _, protocol = name.partition(":")
    return name in SETS and (protocol in ("", "withheld") or protocol.isdigit())


def main() -> None:
    parser = argparse.ArgumentParser(description="nDCG@10 on held-out queries, and seconds to train.")
    parser.add_argument("sets", nargs="*", metavar="set", help=f"of {', '.join(SETS)}; all where none is named")
    parser.add_argument("--methods", nargs="+", choices=METHODS, metavar="method", default=list(METHODS))
    parser.add_argument(
        "--fine-tuning",
        action="store_true",
        help=f"fine-tune the encoder where that was not done before: minutes; of {', '.join(FINE_TUNED_SETS)} alone",
    )
    arguments = parser.parse_args()
    unknown = [name for name in arguments.sets if not _is_known(name)]
    if unknown:
        parser.error(
            f"no such set: {', '.join(unknown)}; there are {', '.join(SETS)}, each also as NAME:withheld and NAME:COUNT"
        )
    sections = [
        section_of(name, arguments.methods, fine_tuning_too=arguments.fine_tuning)
        for name in arguments.sets or [*SETS, *(f"{name}:withheld" for name in SETS)]
    ]
    if not arguments.sets and arguments.methods == list(METHODS):
        write_section("accuracy", "Accuracy", page(sections))


if __name__ == "__main__":
    main()
