"""`LanceFragment`: a fragment of a Lance dataset, at the version that the dataset had when it was listed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.packages import import_package
from nudge_rag.stores.lance.table import LanceTable, telling

__all__ = ["LanceFragment", "fragments_of"]


@dataclass(frozen=True, eq=False)
class LanceFragment:
    """A fragment, and what is read of it. Later commits of others leave it as it is.

    Attributes:
        fragment: of ``lance``; it knows its dataset and the version.
        id: the name of the column of ids.
        vector: the name of the column of vectors.
        dtype: ``"float32"`` or ``"float64"``.
        dimension: length of the vectors.
        rows: number of rows.
        where: an SQL condition that rows must meet; None for all.
    """

    fragment: Any
    id: str
    vector: str
    dtype: str
    dimension: int
    rows: int
    where: str | None = None

    def batches(self, batch_size: int) -> Iterator[tuple[list[str], FloatArray]]:
        """Its nodes: ids and vectors."""
        batches = self.fragment.to_batches(
            columns=[self.id, self.vector], batch_size=batch_size, filter=self.where, batch_readahead=2
        )
        for batch in telling(batches):
            for column in (self.id, self.vector):  # a row that lacks one of them is no node
                if batch[column].null_count:
                    batch = batch.filter(batch[column].is_valid())
            for start in range(0, batch.num_rows, batch_size):
                part = batch.slice(start, batch_size)
                flat = np.asarray(part[self.vector].flatten(), dtype=self.dtype)
                yield part[self.id].to_pylist(), flat.reshape(part.num_rows, self.dimension)


def fragments_of(table: LanceTable, where: str | None) -> list[LanceFragment]:
    """Fragments of a table at its present version.

    Raises:
        MissingPackageError: pylance is not installed; names the pip command.
    """
    import_package("lance", "reading a LanceDB table by fragments", "lance")
    return [
        LanceFragment(part, table.id, table.vector, table.dtype, table.dimension, part.count_rows(), where)
        for part in table.fresh().to_lance().get_fragments()
    ]
