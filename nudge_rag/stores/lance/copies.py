"""A second column of vectors in a LanceDB table, and a swap of their contents in one commit.

Renaming the columns would be one commit as well, but a writer with a handle from before would go on writing to the old
column, under its new name (LanceDB 0.40), and its rows would be missing from the live version.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from nudge_rag.common.arrays import BoolArray, FloatArray
from nudge_rag.stores.checks import check_label
from nudge_rag.stores.copies import MovedNodes, unknown_copy
from nudge_rag.stores.lance.table import LanceTable, quoted, retried

__all__ = [
    "catch_up_column",
    "copy_column",
    "copy_labels",
    "create_column",
    "drop_column",
    "swap_columns",
    "swap_moved",
]

ROWS_PER_STEP = 5_000
# Rounds of catching up, which end when one finds so few changes: whatever comes later is caught up by the next switch.
ROUNDS, FEW = 5, 5
QUICK_TRIES = 5


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
    """Copy the vectors of all rows: in one commit, or in several if other writers' commits always come first."""
    new = _prefix(table) + check_label(label)
    if label in copy_labels(table):
        drop_column(table, label)
    kind = "Float32" if table.dtype == "float32" else "Float64"
    # LanceDB does not treat a list column as a vector column, so a search that names no column stays unambiguous.
    column = {new: f"arrow_cast({quoted(table.vector)}, 'List({kind})')"}
    try:
        retried(lambda: table.fresh().add_columns(column), QUICK_TRIES)
    except RuntimeError:
        import pyarrow

        empty = pyarrow.field(new, pyarrow.list_(pyarrow.float32() if kind == "Float32" else pyarrow.float64()))
        retried(lambda: table.fresh().add_columns(empty))
        nothing = np.zeros((0, table.dimension), dtype=table.dtype)
        catch_up_column(table, label, MovedNodes([], nothing, nothing))


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


def catch_up_column(table: LanceTable, label: str, moved: MovedNodes) -> int:
    """Bring what was written since into the copy, in rounds until hardly anything changes; readers see none of it.

    Returns:
        How many nodes were caught up.
    """
    new, total = copy_column(table, label), 0
    for _ in range(ROUNDS):
        ids: list[str] = []
        vectors: list[FloatArray] = []
        for batch in table.batches([table.id, table.vector, new], ROWS_PER_STEP):
            names, live = batch[table.id].to_pylist(), table.matrix(batch, table.vector)
            wanted = moved.wanted(names, live, _same_bits)
            held = batch[new].is_valid().to_numpy(zero_copy_only=False)
            stale = ~held
            stale[held] = ~_same_bits(table.matrix(batch.filter(batch[new].is_valid()), new), wanted[held])
            ids += [names[row] for row in np.flatnonzero(stale)]
            vectors.append(wanted[stale])
        if ids:
            table.merge(ids, {new: np.concatenate(vectors)})
        total += len(ids)
        if len(ids) <= FEW:
            break
    return total


def swap_moved(table: LanceTable, label: str, moved: MovedNodes) -> tuple[list[str], FloatArray]:
    """Swap live vector and copy of the moved nodes that nobody else has changed, in one commit.

    Commits have numbers: if the swap's is not the next one after the version that was looked at, the version before it
    says which vectors of other writers it has overwritten.

    Returns:
        Ids of nodes that were overwritten, and the vectors that they had then.
    """
    new = copy_column(table, label)
    looked_at = int(table.fresh().version)
    ids = [name for name, _ in _unchanged(table, moved)]
    if not ids:
        return [], moved.live[:0]
    rows = [moved.rows[name] for name in ids]
    made = table.merge(ids, {table.vector: moved.copy[rows], new: moved.live[rows]})
    if made == looked_at + 1:
        return [], moved.live[:0]
    earlier = table.as_of(made - 1)
    still, swapped = {name for name, _ in _unchanged(earlier, moved)}, set(ids)
    lost = dict(_vectors(earlier, swapped - still))
    if lost:
        table.merge(list(lost), {new: np.stack(list(lost.values()))})
    return list(lost), np.stack(list(lost.values())) if lost else moved.live[:0]


def _unchanged(table: LanceTable, moved: MovedNodes) -> Iterator[tuple[str, FloatArray]]:
    """The moved nodes whose live vector is as it was."""
    for name, vector in _vectors(table, moved.rows.keys()):
        if _same_bits(vector[None], moved.live[[moved.rows[name]]])[0]:
            yield name, vector


def _vectors(table: LanceTable, names: Collection[str]) -> Iterator[tuple[str, FloatArray]]:
    for batch in table.batches([table.id, table.vector], ROWS_PER_STEP) if names else ():
        pairs = zip(batch[table.id].to_pylist(), table.matrix(batch, table.vector), strict=True)
        yield from ((name, vector) for name, vector in pairs if name in names)


def _same_bits(found: FloatArray, expected: FloatArray) -> BoolArray:
    return np.asarray((_bits(found) == _bits(expected)).all(axis=1))


def drop_column(table: LanceTable, label: str) -> None:
    """Remove the copy ``label``."""
    columns = [copy_column(table, label)]
    retried(lambda: table.fresh().drop_columns(columns))


def _bits(rows: FloatArray) -> np.ndarray[Any, Any]:
    return np.ascontiguousarray(rows).view(np.uint32 if rows.dtype == np.float32 else np.uint64)


def _prefix(table: LanceTable) -> str:
    return f"{table.vector}__beside_"
