"""A second column of vectors in a LanceDB table, and a swap of their contents in one commit.

Renaming the columns would be one commit as well, but a writer with a handle from before would go on writing to the old
column, under its new name (LanceDB 0.40), and its rows would be missing from the live version.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from typing import Any

import numpy as np

from nudge_rag.common.arrays import BoolArray, FloatArray
from nudge_rag.common.memory import giving_back
from nudge_rag.stores.checks import check_label
from nudge_rag.stores.copies import DerivedNodes, MovedNodes, NodesOfCopy, unknown_copy
from nudge_rag.stores.lance.rewriting import ConflictError, add_made_column, can_rewrite, swap_whole_columns
from nudge_rag.stores.lance.table import LanceTable, quoted, retried

__all__ = [
    "catch_up_and_swap",
    "catch_up_column",
    "copy_column",
    "copy_labels",
    "create_column",
    "derive_column",
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


def derive_column(table: LanceTable, label: str, make: Callable[[list[str], FloatArray], FloatArray]) -> int:
    """Make the vectors of a copy of those that are live, some rows a commit; gives the number of nodes."""
    new = _prefix(table) + check_label(label)
    if label in copy_labels(table):
        drop_column(table, label)
    if can_rewrite():
        for _ in range(QUICK_TRIES):
            with suppress(ConflictError):
                return add_made_column(table, new, make)
    return _add_and_merge(table, new, make)


def _add_and_merge(table: LanceTable, new: str, make: Callable[[list[str], FloatArray], FloatArray]) -> int:
    """Add an empty column and fill it, some thousand rows a commit, with LanceDB alone."""
    import pyarrow

    number = pyarrow.float32() if table.dtype == "float32" else pyarrow.float64()
    empty = pyarrow.field(new, pyarrow.list_(number))
    retried(lambda: table.fresh().add_columns(empty))
    total = 0
    for batch in giving_back(table.batches([table.id, table.vector], ROWS_PER_STEP), every=1):
        names = batch[table.id].to_pylist()
        table.merge(names, {new: make(names, table.matrix(batch, table.vector))})
        total += len(names)
    return total


def swap_columns(table: LanceTable, label: str) -> None:
    """Swap live vector and copy in every row in which they differ, in one commit; a row that has only one keeps it."""
    _swap_rows(table, copy_column(table, label))


def _swap_rows(table: LanceTable, new: str) -> int | None:
    """Swap the two columns in all rows that differ, streamed into one commit.

    Returns:
        The table's version that it made; None if no row differs.
    """
    import pyarrow

    columns = [table.id, table.vector, new]
    schema = pyarrow.schema([table.fresh().schema.field(name) for name in columns])

    def swapped() -> Iterator[Any]:
        for batch in table.batches(columns, ROWS_PER_STEP, f"{quoted(new)} IS NOT NULL"):
            live, copy = table.matrix(batch, table.vector), table.matrix(batch, new)
            rows = np.flatnonzero((_bits(live) != _bits(copy)).any(axis=1))
            if len(rows):
                yield pyarrow.record_batch(
                    [
                        batch[table.id].take(pyarrow.array(rows)),
                        *(table.as_column(name, part[rows]) for name, part in ((table.vector, copy), (new, live))),
                    ],
                    schema=schema,
                )

    return table.merge_all(schema, swapped) if next(swapped(), None) is not None else None


def catch_up_column(table: LanceTable, label: str, moved: NodesOfCopy) -> int:
    """Bring what was written since into the copy, in rounds until hardly anything changes; readers see none of it.

    Returns:
        How many nodes were caught up.
    """
    new, total = copy_column(table, label), 0
    for _ in range(ROUNDS):
        n_changed = 0
        ids: list[str] = []
        vectors: list[FloatArray] = []
        for batch in giving_back(table.batches([table.id, table.vector, new], ROWS_PER_STEP)):
            names, live = batch[table.id].to_pylist(), table.matrix(batch, table.vector)
            held = batch[new].is_valid().to_numpy(zero_copy_only=False)
            copied = np.full_like(live, np.nan)
            copied[held] = table.matrix(batch.filter(batch[new].is_valid()), new)
            wanted = moved.wanted(names, live, _same_bits, copied)
            stale = ~held
            stale[held] = ~_same_bits(copied[held], wanted[held])
            ids += [names[row] for row in np.flatnonzero(stale)]
            vectors.append(wanted[stale])
            if len(ids) >= ROWS_PER_STEP:
                table.merge(ids, {new: np.concatenate(vectors)})
                n_changed += len(ids)
                ids, vectors = [], []
        if ids:
            table.merge(ids, {new: np.concatenate(vectors)})
        n_changed += len(ids)
        total += n_changed
        if n_changed <= FEW:
            break
    return total


def catch_up_and_swap(table: LanceTable, label: str, moved: DerivedNodes) -> tuple[int, dict[str, FloatArray]]:
    """Bring what was written since into the copy, and swap live vector and copy in all rows, in one commit.

    Returns:
        How many nodes were caught up; and, by id, the vectors of other writers that the swap has overwritten.
    """
    n_caught_up = 0
    if can_rewrite():
        for _ in range(ROUNDS):
            n_caught_up += catch_up_column(table, label, moved)
            with suppress(ConflictError):
                swap_whole_columns(table, copy_column(table, label))
                return n_caught_up, {}
    n_caught_up += catch_up_column(table, label, moved)
    return n_caught_up, _swap_by_merge(table, label)


def _swap_by_merge(table: LanceTable, label: str) -> dict[str, FloatArray]:
    """Swap by one merge: the version before its own says which vectors of other writers it has overwritten."""
    looked_at = int(table.fresh().version)
    made = _swap_rows(table, copy_column(table, label))
    if made is None or made == looked_at + 1:
        return {}
    before, between = table.as_of(looked_at), table.as_of(made - 1)
    lost: dict[str, FloatArray] = {}
    for batch in between.batches([table.id, table.vector], ROWS_PER_STEP):
        names, vectors = batch[table.id].to_pylist(), table.matrix(batch, table.vector)
        known = dict(_vectors(before, set(names)))
        lost |= {
            name: vector
            for name, vector in zip(names, vectors, strict=True)
            if name in known and not _same_bits(vector[None], known[name][None])[0]
        }
    return lost


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
