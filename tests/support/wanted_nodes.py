"""Nodes, and queries that point where their nodes should be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from nudge_rag import LabeledPairs
from nudge_rag.stores import MappingStore

DIMENSION = 16


class WantedNodes:
    """``count`` nodes; queries such as "a 3" point where node n3 is wanted, with a little noise of their own.

    Args:
        count: number of nodes.
        kept: how much of a node's own vector is in what is wanted.
    """

    def __init__(self, count: int, kept: float = 0.0) -> None:
        self.ids = [f"n{i}" for i in range(count)]
        self.nodes = np.random.default_rng(0).normal(size=(count, DIMENSION))
        self.wanted = kept * self.nodes + np.random.default_rng(1).normal(size=(count, DIMENSION))

    def embed(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[Any]]:
        """Queries, one row a text."""
        seeds = [[ord(sign) for sign in text] for text in texts]
        noise = [np.random.default_rng(seed).normal(size=DIMENSION, scale=0.2) for seed in seeds]
        return np.array([self.wanted[int(text.split()[1])] + each for text, each in zip(texts, noise, strict=True)])

    def store(self) -> MappingStore:
        """The nodes in a store."""
        return MappingStore(dict(zip(self.ids, self.nodes.tolist(), strict=True)), key="test")


def pairs(nodes: Iterable[int], words: str = "abcdefghij") -> LabeledPairs:
    """A query a word for each node."""
    return LabeledPairs.from_pairs((f"{word} {node}", f"n{node}") for node in nodes for word in words)
