"""Where the nodes of an index are, looked up once as long as the index and its ids stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nudge_rag.common.arrays import IntArray
from nudge_rag.stores.faiss.index import FaissIndex

__all__ = ["KnownPositions"]


@dataclass(frozen=True, eq=False)
class _Positions:
    """Where nodes were when that was looked up last: of so many ids, with these FAISS ids."""

    n_ids: int
    labels: IntArray
    positions: dict[str, int]


class KnownPositions:
    """The positions that were looked up last."""

    def __init__(self) -> None:
        self._known: _Positions | None = None

    def find(self, rows: FaissIndex, ids: Mapping[int, str], names: Sequence[str]) -> Mapping[str, int]:
        """Positions of nodes, by name; those looked up before, if these names still have them.

        Args:
            rows: the index.
            ids: FAISS id to node id.
            names: of the nodes that are wanted; others may be among the positions.
        """
        labels, known = rows.labels(), self._known
        if known is not None and len(ids) == known.n_ids and np.array_equal(labels, known.labels):
            places = np.array([known.positions.get(name, -1) for name in names], dtype=np.int64)
            if (places >= 0).all() and [ids.get(label) for label in labels[places].tolist()] == list(names):
                return known.positions
        self._known = _Positions(len(ids), labels, rows.positions(ids))
        return self._known.positions
