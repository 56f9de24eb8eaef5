"""Two versions as dictionaries, and what tests do with them."""

from __future__ import annotations

import copy

import numpy as np

from nudge_rag import versions
from nudge_rag.journal.push import push_vectors
from nudge_rag.stores import MappingStore

IDS = [f"n{i}" for i in range(6)]
ORIGINALS = np.random.default_rng(0).normal(size=(6, 3))
FIRST, SECOND = ORIGINALS + 1, ORIGINALS + 2
MOVED = slice(0, 4)


class TwoTables(MappingStore):
    """Versions as dictionaries; ``tables[None]`` is the live one."""

    def __init__(self, tables, label=None):
        super().__init__(tables[label], key="test" if label is None else f"test-{label}")
        self.tables = tables
        self._capabilities = type(self._capabilities)("cosine", dtype="float64", side_by_side=True, atomic_switch=True)

    def create_copy(self, label):
        self.tables[label] = copy.deepcopy(self.tables[None])
        return self.open_copy(label)

    def open_copy(self, label):
        return TwoTables(self.tables, label)

    def copy_labels(self):
        return [label for label in self.tables if label is not None]

    def switch(self, label):
        self.tables[None], self.tables[label] = self.tables[label], self.tables[None]
        self._table = self.tables[None]

    def drop_copy(self, label):
        del self.tables[label]


def two_tables():
    return TwoTables({None: dict(zip(IDS, ORIGINALS.tolist(), strict=True))})


def push(store, root, vectors=FIRST, rows=MOVED, mode="side-by-side", **details):
    return push_vectors(store, IDS[rows], ORIGINALS[rows], vectors[rows], versions=root, details=details, mode=mode)


def states(store, root):
    return [version.state for version in versions(store, root)]


def holds(store, rows):
    return store.read(IDS).tobytes() == np.asarray(rows).tobytes()


def nudged(vectors=FIRST, rows=MOVED):
    expected = ORIGINALS.copy()
    expected[rows] = vectors[rows]
    return expected
