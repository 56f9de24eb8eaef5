"""Held-out queries whose best unlabelled nodes are kept up to date while nodes come and go."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nudge_rag.common.arrays import FloatArray

__all__ = ["HeldOutQuery", "offer_nodes"]


@dataclass
class HeldOutQuery:
    """A judged query with its best unlabelled nodes, best first.

    Invariant: no unlabelled node outside the list scores above the last one in it; if ``complete``, there is none.

    Attributes:
        vector: (d,) embedding.
        grades: node id to grade.
        ids: the list.
        scores: their scores.
        complete: whether it holds every unlabelled node of the store.
    """

    vector: FloatArray
    grades: dict[str, float] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    complete: bool = False

    def needs_more(self, depth: int) -> bool:
        """Tell whether the list has become too short to name the best ``depth`` nodes."""
        return not self.complete and len(self.ids) < depth

    def fill(self, ids: Sequence[str], scores: Iterable[float], length: int) -> None:
        """Take a fresh list of at most ``length`` nodes; a shorter one is all there is."""
        self.ids, self.scores = list(ids), [float(score) for score in scores]
        self.complete = len(self.ids) < length

    def drop(self, gone: Collection[str]) -> None:
        """Forget nodes that left the store or got a label."""
        if any(node_id in gone for node_id in self.ids):
            kept = [row for row, node_id in enumerate(self.ids) if node_id not in gone]
            self.ids = [self.ids[row] for row in kept]
            self.scores = [self.scores[row] for row in kept]

    def insert(self, node_id: str, score: float, length: int) -> None:
        """Take a node if it beats the last of the list, or if the list is complete."""
        if not self.complete and (not self.scores or score <= self.scores[-1]):
            return
        rank = int(np.searchsorted(-np.array(self.scores), -score, side="right"))
        self.ids.insert(rank, node_id)
        self.scores.insert(rank, score)
        if len(self.ids) > length:
            self.ids, self.scores, self.complete = self.ids[:length], self.scores[:length], False


def offer_nodes(
    queries: Iterable[HeldOutQuery], ids: Sequence[str], scores: np.ndarray[Any, np.dtype[Any]], length: int
) -> None:
    """Offer nodes to every query; ``scores`` is (queries, nodes). Only those that may be taken are looked at."""
    for query, line in zip(queries, scores, strict=True):
        floor = -np.inf if query.complete or not query.scores else query.scores[-1]
        for node in np.flatnonzero(line > floor).tolist():
            query.insert(ids[node], float(line[node]), length)
