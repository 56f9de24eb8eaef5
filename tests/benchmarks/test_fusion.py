"""The fusion benchmark's BM25 and its fusion, against their formulas by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _benchmarks_are_modules(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_bm25_is_its_formula():
    from fusion import Bm25

    scores = Bm25(["a a b", "b c", "c"]).scores("A z a")
    # "a" stands twice in the first text alone, of length 3 where the mean is 2, and twice in the query.
    idf = math.log(1 + (3 - 1 + 0.5) / (1 + 0.5))
    expected = 2 * idf * 2 * 2.2 / (2 + 1.2 * (0.25 + 0.75 * 3 / 2))
    assert scores.tolist() == pytest.approx([expected, 0, 0])


def test_fusion_adds_reciprocal_ranks():
    from fusion import fuse

    # 1/61 + 1/62 for 3, 1/61 for 9, 1/62 for 1, 1/63 for 2
    assert fuse([3, 1, 2], [9, 3]) == [3, 9, 1, 2]
    # Equal sums: the lower row.
    assert fuse([5], [2]) == [2, 5]
