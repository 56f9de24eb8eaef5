"""What NudgeContrastive finds by the softmax over groups' nodes, beside the softmax over all nodes.

    python benchmarks/full_softmax.py                    # the four sets; writes a section of benchmarks/README.md
    python benchmarks/full_softmax.py --sets attack      # prints

With many covered nodes each group of alike queries looks at its nearest nodes and at a sample that stands for the rest.
Both fits learn from the training part and choose on the validation part; differences are paired by query, and their
standard error tells whether one is more than chance. The goal is that nDCG@10 differs by at most 0.2 points.
"""

from __future__ import annotations

import argparse
import time
from typing import Any
from unittest import mock

import numpy as np
from data_sets import METRIC, SETS, Data, Tuned, load, measure
from report import machine, write_section

from nudge_rag import NudgeContrastive
from nudge_rag.solvers.contrastive.groups import are_worth_it

DECIDES = "nudge_rag.solvers.contrastive.descent.are_worth_it"


def values(data: Data, *, of_all: bool) -> tuple[np.ndarray, float, bool]:
    """nDCG@10 of each test query (times 100), the fit's processor seconds, and whether queries were in groups."""
    decided = []

    def decide(*labels: Any) -> bool:
        decided.append(not of_all and are_worth_it(*labels))
        return decided[-1]

    started = time.process_time()
    with mock.patch(DECIDES, decide):
        fit = NudgeContrastive(metric=METRIC).fit(
            data.nodes, data.labels(data.split.train), data.labels(data.split.val)
        )
    seconds = time.process_time() - started
    tuned = Tuned(fit.embeddings(), seconds)
    return 100 * np.asarray(measure(data, tuned, data.test).of(METRIC, data.parts()["all"])), seconds, any(decided)


def line(name: str) -> str:
    data = load(name)
    (ours, fast, in_groups), (full, slow, _) = (values(data, of_all=of_all) for of_all in (False, True))
    difference = ours - full
    error = difference.std() / np.sqrt(len(difference))
    return (
        f"| {name} | {'yes' if in_groups else 'no'} | {fast:.1f} | {slow:.1f} | {ours.mean():.2f} | {full.mean():.2f} |"
        f" {difference.mean():+.2f} ± {error:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    sets = parser.parse_args().sets
    lines = [
        f"`benchmarks/full_softmax.py`: {METRIC} (times 100) of NudgeContrastive in test, and the difference ± its",
        "standard error. Queries are not put into groups where all nodes cost less.",
        machine("numpy"),
        "",
        f"| set | in groups | processor s | all nodes, processor s | {METRIC} | all nodes, {METRIC} | difference |",
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for name in sets:
        lines.append(line(name))
        print(lines[-1], flush=True)
    if sets == list(SETS):
        write_section("full-softmax", "The softmax over groups' nodes", lines)


if __name__ == "__main__":
    main()
