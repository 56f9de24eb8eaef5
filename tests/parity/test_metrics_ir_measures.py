"""Our metrics against ir-measures on random graded runs."""

from __future__ import annotations

import ir_measures
import numpy as np
import pytest

from nudge_rag import evaluate

SAME = {"nDCG": "nDCG", "Recall": "R", "MRR": "RR", "Success": "Success"}


@pytest.mark.parametrize("seed", range(10))
def test_random_runs(seed):
    rng = np.random.default_rng(seed)
    docs = [f"d{i}" for i in range(60)]
    queries = [f"q{i}" for i in range(40)]
    qrels = {
        q: {str(d): int(rng.integers(0, 4)) for d in rng.choice(docs, rng.integers(1, 15), replace=False)}
        for q in queries
    }
    run = {
        q: {str(d): float(rng.random()) for d in rng.choice(docs, rng.integers(1, 30), replace=False)}
        for q in queries[: rng.integers(20, 41)]
    }
    for family, theirs in SAME.items():
        for k in (1, 3, 10, 50):
            ours = evaluate(qrels, run, [f"{family}@{k}"]).mean(f"{family}@{k}")
            measure = ir_measures.parse_measure(f"{theirs}@{k}")
            values = {m.query_id: m.value for m in ir_measures.iter_calc([measure], qrels, run)}
            expected = np.mean([values.get(query, 0.0) for query in queries])
            assert ours == pytest.approx(expected, abs=1e-9), (family, k)
