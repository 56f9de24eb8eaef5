"""A second column of vectors in a LanceDB table, and a swap of their contents in one commit.

Renaming the columns would be one commit as well, but a writer with a handle from before would go on writing to the old
column, under its new name (LanceDB 0.40), and its rows would be missing from the live version.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.stores.checks import check_label
from nudge_rag.stores.copies import unknown_copy
from nudge_rag.stores.lance.table import LanceTable, quoted

__all__ = ["copy_column", "copy_labels", "create_column", "drop_column", "swap_columns"]

ROWS_PER_STEP = 5_000


def copy_labels(table: LanceTable) -> list[str]:
    """Labels of the copies."""
    prefix = _prefix(table)
    return [name.removeprefix(prefix) for name in table.fresh().schema.names if name.startswith(prefix)]


def copy_column(table: LanceTable, label: str) -> str:
    """Return the column of the copy ``label``.

    Raises:
        ValueError: there is none.
    """
    labels = copy_labels(table)
    if check_label(label) not in labels:
        raise unknown_copy(label, labels, table.vector)
    return _prefix(table) + label


def create_column(table: LanceTable, label: str) -> None:
    """Copy the vectors of all rows, in one commit."""
    new = _prefix(table) + check_label(label)
    if label in copy_labels(table):
        drop_column(table, label)
    kind = "Float32" if table.dtype == "float32" else "Float64"
    # LanceDB does not treat a list column as a vector column, so a search that names no column stays unambiguous.
    table.fresh().add_columns({new: f"arrow_cast({quoted(table.vector)}, 'List({kind})')"})


def swap_columns(table: LanceTable, label: str) -> None:
    """Swap live vector and copy in every row in which they differ, in one commit; a row that has only one keeps it."""
    new = copy_column(table, label)
    ids: list[str] = []
    copies: list[FloatArray] = []
    lives: list[FloatArray] = []
    for batch in table.batches([table.id, table.vector, new], ROWS_PER_STEP, f"{quoted(new)} IS NOT NULL"):
        live, copy = table.matrix(batch, table.vector), table.matrix(batch, new)
        differ = np.flatnonzero((_bits(live) != _bits(copy)).any(axis=1))
        ids += [batch[table.id][int(row)].as_py() for row in differ]
        copies.append(copy[differ])
        lives.append(live[differ])
    if ids:
        table.merge(ids, {table.vector: np.concatenate(copies), new: np.concatenate(lives)})


def drop_column(table: LanceTable, label: str) -> None:
    """Remove the copy ``label``."""
    table.fresh().drop_columns([copy_column(table, label)])


def _bits(rows: FloatArray) -> np.ndarray[Any, Any]:
    return np.ascontiguousarray(rows).view(np.uint32 if rows.dtype == np.float32 else np.uint64)


def _prefix(table: LanceTable) -> str:
    return f"{table.vector}__beside_"
