"""Whole columns of a LanceDB table written anew with ``pylance``, fragment by fragment, and made live in one commit.

A merge of all rows would do the same through LanceDB alone, and takes memory that grows with the table.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from nudge_rag.common.arrays import BoolArray, FloatArray
from nudge_rag.common.memory import give_back_memory
from nudge_rag.stores.lance.table import CONFLICTS, LanceTable

__all__ = ["ConflictError", "add_made_column", "can_rewrite", "swap_whole_columns"]

ROWS_PER_STEP = 2_000
BATCHES_BETWEEN_RELEASES = 10
# The names of columns while they are written; the files of the swap hold no other.
NEW_LIVE, NEW_COPY = "__nudge_rag_live", "__nudge_rag_copy"
# Lance's number for a column that a file holds and no schema shows any more.
GONE = -2


class ConflictError(Exception):
    """Another writer's commit came first; nothing was changed."""


def can_rewrite() -> bool:
    """Whether ``pylance`` is installed, in a version that tells indexes which columns were written anew."""
    try:
        import lance
    except ImportError:
        return False
    update = getattr(lance.LanceOperation, "Update", None)
    known = {field.name for field in fields(update)} if is_dataclass(update) else set()
    return "fields_modified" in known and hasattr(lance.LanceDataset, "lance_schema")


def add_made_column(table: LanceTable, new: str, make: Callable[[list[str], FloatArray], FloatArray]) -> int:
    """Add a column of vectors that are made of the live ones, in one commit; gives the number of nodes.

    Raises:
        ConflictError: another writer's commit came first.
    """
    import lance
    import pyarrow

    kind = pyarrow.list_(pyarrow.float32() if table.dtype == "float32" else pyarrow.float64())

    released = _Released()
    total = 0

    def fill(batch: Any) -> Any:
        nonlocal total
        released.count()
        held, live = _nodes(table, batch)
        total += len(live)
        made = np.zeros((batch.num_rows, table.dimension), dtype=table.dtype)
        made[held] = make(batch[table.id].filter(pyarrow.array(held)).to_pylist(), live)
        return pyarrow.record_batch([_as_lists(made, kind, held)], names=[new])

    udf = lance.batch_udf(output_schema=pyarrow.schema([(new, kind)]))(fill)
    dataset = table.fresh().to_lance()
    _committed(
        lambda: dataset.add_columns(udf, read_columns=[table.id, table.vector], batch_size=ROWS_PER_STEP),
    )
    return total


def swap_whole_columns(table: LanceTable, new: str) -> None:
    """Swap the live column and the column ``new`` in all rows, in one commit; a row that has only one keeps it.

    The columns keep their numbers, so that a writer with a handle from before goes on writing to the live one.

    Raises:
        ConflictError: another writer's commit to one of the rows came first.
    """
    import lance
    import pyarrow

    dataset = table.fresh().to_lance()
    kinds = {name: dataset.schema.field(name).type for name in (table.vector, new)}
    numbers = _numbers(dataset.lance_schema)
    schema = pyarrow.schema([(NEW_LIVE, kinds[table.vector]), (NEW_COPY, kinds[new])])

    released = _Released()

    def swap(batch: Any) -> Any:
        released.count()
        present = batch[table.vector].is_valid().to_numpy(zero_copy_only=False)
        held = present & batch[new].is_valid().to_numpy(zero_copy_only=False)
        live = np.zeros((batch.num_rows, table.dimension), dtype=table.dtype)
        live[present] = table.matrix(batch.filter(pyarrow.array(present)), table.vector)
        swapped = live.copy()
        swapped[held] = table.matrix(batch.filter(pyarrow.array(held)), new)
        return pyarrow.record_batch(
            [table.as_column(table.vector, swapped, present), _as_lists(live, kinds[new], held)], schema=schema
        )

    changed = []
    for fragment in dataset.get_fragments():
        written, wider = fragment.merge_columns(swap, columns=[table.vector, new], batch_size=ROWS_PER_STEP)
        renamed = _numbers(wider)
        target = dict(zip(renamed[NEW_LIVE] + renamed[NEW_COPY], numbers[table.vector] + numbers[new], strict=True))
        changed.append(_with_numbers(lance, written, target))
    operation = lance.LanceOperation.Update(
        removed_fragment_ids=[],
        updated_fragments=changed,
        new_fragments=[],
        fields_modified=numbers[table.vector] + numbers[new],
    )
    _committed(lambda: lance.LanceDataset.commit(dataset, operation, read_version=dataset.version))


def _nodes(table: LanceTable, batch: Any) -> tuple[BoolArray, FloatArray]:
    """Which rows of a batch are nodes, and the live vectors of those."""
    import pyarrow.compute

    both = pyarrow.compute.and_(batch[table.id].is_valid(), batch[table.vector].is_valid())
    return both.to_numpy(zero_copy_only=False), table.matrix(batch.filter(both), table.vector)


class _Released:
    """Gives memory back once in so many batches."""

    def __init__(self) -> None:
        self._batches = 0

    def count(self) -> None:
        self._batches += 1
        if self._batches % BATCHES_BETWEEN_RELEASES == 0:
            give_back_memory()


def _with_numbers(lance: Any, written: Any, target: dict[int, int]) -> Any:
    """The record of a fragment in which files that were written now hold the columns that others held before."""
    record = written.to_json()
    for file in record["files"]:
        replaced = set(target.values())
        file["fields"] = [target.get(number, GONE if number in replaced else number) for number in file["fields"]]
    return lance.fragment.FragmentMetadata.from_json(json.dumps(record))


def _numbers(schema: Any) -> dict[str, list[int]]:
    """The numbers of each column and of its parts."""
    return {field.name(): [field.id(), *(part.id() for part in field.children())] for field in schema.fields()}


def _as_lists(vectors: FloatArray, kind: Any, held: Any = None) -> Any:
    """Vectors (n, d) as Arrow lists; empty (null) in rows that are not ``held``."""
    import pyarrow

    n_rows, dimension = vectors.shape
    if held is None or bool(held.all()):
        offsets = pyarrow.array(np.arange(n_rows + 1, dtype=np.int32) * dimension)
        return pyarrow.ListArray.from_arrays(offsets, pyarrow.array(vectors.ravel()), type=kind)
    rows = [vector if is_held else None for vector, is_held in zip(vectors, held, strict=True)]
    return pyarrow.array(rows, kind)


def _committed(commit: Callable[[], Any]) -> Any:
    try:
        return commit()
    except (OSError, RuntimeError) as error:
        if any(sign in str(error) for sign in (*CONFLICTS, "conflict", "concurrent")):
            raise ConflictError(str(error)) from error
        raise
