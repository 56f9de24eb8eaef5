"""How long one strength of NudgeContrastive takes on ATT&CK, beside the plain objective.

    python benchmarks/contrastive_speed.py    # writes a section of benchmarks/README.md

The plain one is what one writes first: float64, the softmax over all nodes, the gradient by one product, SciPy's
L-BFGS-B from the originals until it converges. Both learn from the training part at strength 30 and tau 0.05, one after
the other on the same machine; read the ratio.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from data_sets import METRIC, Data, Tuned, load, measure
from report import machine, write_section
from scipy.optimize import minimize

from nudge_rag import LabeledQueries, NudgeContrastive
from nudge_rag.common.similarity import Similarity

TAU, STRENGTH = 0.05, 30.0
SIMILARITIES: tuple[Similarity, ...] = ("cosine", "dot")


def plain(queries: np.ndarray, answers: np.ndarray, nodes: np.ndarray) -> tuple[Tuned, int]:
    """Softmax cross-entropy over all nodes plus STRENGTH |V - D|^2; every query has one answer.

    Also says how often the objective was asked for.
    """
    rows = np.arange(len(queries))

    def function(flat: np.ndarray) -> tuple[float, Any]:
        moved = flat.reshape(nodes.shape)
        logits = queries @ moved.T / TAU
        highest = logits.max(axis=1, keepdims=True)
        shares = np.exp(logits - highest)
        totals = shares.sum(axis=1, keepdims=True)
        loss = (np.log(totals) + highest).sum() - logits[rows, answers].sum()
        shares /= totals
        shares[rows, answers] -= 1
        gradient = shares.T @ queries / TAU + 2 * STRENGTH * (moved - nodes)
        return loss + STRENGTH * ((moved - nodes) ** 2).sum(), gradient.ravel()

    started = time.perf_counter()
    found = minimize(function, nodes.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    seconds = time.perf_counter() - started
    return Tuned(found.x.reshape(nodes.shape).astype(np.float32), seconds, similarity="dot"), int(found.nfev)


def ours(data: Data, labels: LabeledQueries, similarity: Similarity) -> tuple[Tuned, int]:
    """The middle one of three runs: the first one also loads what it needs."""
    runs = []
    for _ in range(3):
        started = time.perf_counter()
        solver = NudgeContrastive(metric=METRIC, similarity=similarity, taus=[TAU], strength=STRENGTH)
        fit = solver.fit(data.nodes, labels)
        runs.append(time.perf_counter() - started)
    tuned = Tuned(fit.embeddings(), sorted(runs)[1], similarity=similarity)
    return tuned, sum(one.evaluations for one in fit.descents)


def main() -> None:
    data = load("attack")
    labels = data.labels(data.split.train)
    answers = np.array([rows[0] for rows in labels.answers])
    queries, nodes = (np.asarray(part, dtype=np.float64) for part in (labels.vectors, data.nodes))
    found = {f"NudgeContrastive, {one}": ours(data, labels, one) for one in SIMILARITIES}
    found["the plain objective, dot"] = plain(queries, answers, nodes)
    longest = found["the plain objective, dot"][0].seconds
    lines = [
        f"MITRE ATT&CK: {len(queries):,} training queries, {len(set(answers)):,} labelled nodes of {len(nodes):,}, one",
        f"strength ({STRENGTH:g}) at one temperature ({TAU:g}), from the originals; nDCG@10 (times 100) in test.",
        "The plain objective: float64, the softmax over all nodes, SciPy's L-BFGS-B until it converges.",
        machine("numpy", "scipy"),
        "",
        "| | seconds | times as fast | evaluations | nDCG@10 |",
        "|---|---|---|---|---|",
    ]
    for name, (tuned, evaluations) in found.items():
        value = measure(data, tuned, data.test).of(METRIC, data.parts()["all"]).mean()
        ratio = f"{longest / tuned.seconds:.1f}"
        lines.append(f"| {name} | {tuned.seconds:.2f} | {ratio} | {evaluations} | {100 * value:.1f} |")
    write_section("contrastive", "NudgeContrastive", lines)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
