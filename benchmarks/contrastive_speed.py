"""How long one strength of NudgeContrastive takes on ATT&CK, beside the plain objective under the same optimiser.

    python benchmarks/contrastive_speed.py

The plain one is what one writes first: float64, the softmax over all nodes, the gradient by one product, L-BFGS-B from
the originals until it converges. Both learn from the training part at strength 30 and tau 0.05, one
after the other on the same machine; read the ratio.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from data_sets import METRIC, load
from scipy.optimize import minimize

from nudge_rag import NudgeContrastive

TAU, STRENGTH = 0.05, 30.0


def plain(queries: np.ndarray, answers: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """Softmax cross-entropy over all nodes plus STRENGTH |V - D|^2; every query has one answer."""
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

    found = minimize(function, nodes.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    print(f"plain: {found.nfev} evaluations, {'converged' if found.success else 'not converged'}")
    return np.asarray(found.x.reshape(nodes.shape))


def main() -> None:
    data = load("attack")
    labels = data.labels(data.split.train)
    queries = np.asarray(labels.vectors, dtype=np.float64)
    answers = np.array([rows[0] for rows in labels.answers])
    nodes = np.asarray(data.nodes, dtype=np.float64)
    started = time.perf_counter()
    fit = NudgeContrastive(metric=METRIC, taus=[TAU], strength=STRENGTH).fit(data.nodes, labels)
    ours = time.perf_counter() - started
    print(f"NudgeContrastive: {sum(one.evaluations for one in fit.descents)} evaluations, {ours:.1f} s")
    started = time.perf_counter()
    plain(queries, answers, nodes)
    theirs = time.perf_counter() - started
    print(f"plain: {theirs:.1f} s, {theirs / ours:.1f} times as long")


if __name__ == "__main__":
    main()
