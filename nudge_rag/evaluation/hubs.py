"""Hubs: how unevenly nodes are returned, a known fault of dense retrieval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

__all__ = ["measure_hubs"]


def measure_hubs(rankings: Iterable[Sequence[str]], depth: int) -> dict[str, Any]:
    """Return how often nodes are among the first ``depth`` of rankings, as plain values.

    With c_j the number of rankings that node j is in, for the nodes that are in any: skewness = mean of
    ((c_j - mean) / standard deviation)^3 (Radovanovic, Nanopoulos, Ivanovic, JMLR 2010).

    Args:
        rankings: node ids, best first.
        depth: how many of each count.

    Returns:
        ``nodes_returned``, ``most_often``, ``mean`` and ``skewness``.

    Example:
        >>> measure_hubs([["a", "b"], ["a", "c"], ["a", "d"]], 2)
        {'nodes_returned': 4, 'most_often': 3, 'mean': 1.5, 'skewness': 1.154701}
    """
    counts = Counter(node for ranking in rankings for node in ranking[:depth])
    times = np.array(list(counts.values()) or [0], dtype=np.float64)
    spread = times.std()
    skewness = float((((times - times.mean()) / spread) ** 3).mean()) if spread > 0 else 0.0
    return {
        "nodes_returned": len(counts),
        "most_often": int(times.max()),
        "mean": float(times.mean()),
        "skewness": round(skewness, 6),
    }
