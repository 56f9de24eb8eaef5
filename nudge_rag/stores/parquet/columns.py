"""Columns of ids and vectors in Arrow batches: their types checked, and read as names and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from nudge_rag.common.arrays import BoolArray, FloatArray

__all__ = ["EMPTY", "NodeColumns"]

DTYPES = {"halffloat": np.float16, "float": np.float32, "double": np.float64}
# The type of a column that no row of a file has a value for, if its writer did not know another.
EMPTY = "null"


@dataclass(frozen=True)
class NodeColumns:
    """The columns of ids and of vectors.

    Attributes:
        id: the name of the column of ids.
        vector: the name of the column of vectors.
        number: Arrow's name of the type of their numbers: ``halffloat``, ``float`` or ``double``; ``null`` in a file
            without vectors.
        dimension: length of the vectors; None if that is not known yet.
    """

    id: str
    vector: str
    number: str
    dimension: int | None

    @classmethod
    def of(cls, schema: Any, id_column: str, vector_column: str) -> NodeColumns:
        """The columns of that name.

        Raises:
            ValueError: there are none, or they are of a type that holds no ids, or no vectors.
        """
        import pyarrow

        for column in (id_column, vector_column):
            if schema.names.count(column) != 1:
                told = f"more than one column {column!r}" if column in schema.names else f"no column {column!r}"
                raise ValueError(f"there is {told}, the columns are {', '.join(schema.names)}")
        ids = schema.field(id_column).type
        plain = ids.value_type if pyarrow.types.is_dictionary(ids) else ids
        if not (
            pyarrow.types.is_string(plain)
            or pyarrow.types.is_large_string(plain)
            or pyarrow.types.is_string_view(plain)
            or pyarrow.types.is_integer(plain)
            or pyarrow.types.is_null(plain)
        ):
            raise ValueError(f"column {id_column!r} must hold strings or integers, it holds {ids}: cast it to strings")
        kind = schema.field(vector_column).type
        kind = getattr(kind, "storage_type", kind)
        if pyarrow.types.is_null(kind):
            return cls(id_column, vector_column, EMPTY, None)
        fixed = pyarrow.types.is_fixed_size_list(kind)
        listed = fixed or pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind)
        if not listed or str(kind.value_type) not in DTYPES:
            raise ValueError(
                f"column {vector_column!r} must hold lists of float16, float32 or float64, of a fixed size or not; it"
                f" holds {kind}: write it as one of those"
            )
        return cls(id_column, vector_column, str(kind.value_type), kind.list_size if fixed else None)

    def check(self, schema: Any) -> None:
        """Check the columns of another file of the store.

        Raises:
            ValueError: they are missing, or hold numbers of another type, or vectors of another length.
        """
        found = NodeColumns.of(schema, self.id, self.vector)
        if found.number not in (self.number, EMPTY):
            told = f"holds {found.number}s, in other files {self.number}s: write all files with one type"
            raise ValueError(f"column {self.vector!r} {told}")
        if self.dimension is not None and found.dimension not in (None, self.dimension):
            told = f"holds vectors of {found.dimension} numbers, in other files of {self.dimension}"
            raise ValueError(f"column {self.vector!r} {told}")

    @property
    def names(self) -> list[str]:
        """The names of both."""
        return [self.id, self.vector]

    @property
    def dtype(self) -> str:
        """What vectors are read as: float16 is read as float32."""
        return "float64" if self.number == "double" else "float32"

    def ids(self, batch: Any) -> Any:
        """The ids of a batch, as an Arrow array of strings."""
        import pyarrow

        ids = batch.column(self.id)
        return ids if pyarrow.types.is_string(ids.type) else ids.cast(pyarrow.string())

    def present(self, batch: Any) -> BoolArray:
        """Say which rows are nodes: those that have an id and a vector."""
        import pyarrow.compute

        both = pyarrow.compute.and_(batch.column(self.id).is_valid(), batch.column(self.vector).is_valid())
        return np.asarray(both.to_numpy(zero_copy_only=False), dtype=np.bool_)

    def nodes(self, batch: Any, chosen: BoolArray | None = None) -> tuple[list[str], FloatArray]:
        """Ids and vectors of those rows of a batch that are nodes, or of those among them that are ``chosen``.

        Raises:
            ValueError: a vector of another length, or one that lacks a number, by the node's id.
        """
        complete = not batch.column(self.id).null_count and not batch.column(self.vector).null_count
        rows = None if complete and chosen is None else self.present(batch)
        if rows is not None and chosen is not None:
            rows = rows & chosen
        names, vectors = self._rows_of(batch, rows)
        return cast("list[str]", names), vectors

    def valid(self, batch: Any) -> BoolArray:
        """Say which rows have a vector."""
        found = batch.column(self.vector).is_valid().to_numpy(zero_copy_only=False)
        return np.asarray(found, dtype=np.bool_)

    def rows(self, batch: Any, chosen: BoolArray) -> tuple[list[str | None], FloatArray]:
        """Ids and vectors of the ``chosen`` rows, which have a vector; an id may be missing.

        Raises:
            ValueError: as for `nodes`.
        """
        return self._rows_of(batch, chosen)

    def _rows_of(self, batch: Any, chosen: BoolArray | None) -> tuple[list[str | None], FloatArray]:
        """Ids and vectors of the ``chosen`` rows, or of all; other columns are not looked at."""
        ids, vectors = self.ids(batch), batch.column(self.vector)
        if chosen is not None:
            mask = _mask(chosen)
            ids, vectors = ids.filter(mask), vectors.filter(mask)
        names: list[str | None] = ids.to_pylist()
        return names, self.matrix(vectors, names)

    def matrix(self, column: Any, names: Sequence[str | None]) -> FloatArray:
        """Vectors without a null, (n, d); they may share memory with ``column``."""
        import pyarrow
        import pyarrow.compute

        column = getattr(column, "storage", column)
        if not len(column):
            return np.zeros((0, self.dimension or 0), dtype=self.dtype)
        dimension = self.dimension
        if pyarrow.types.is_fixed_size_list(column.type):
            dimension = column.type.list_size
        else:
            lengths = pyarrow.compute.list_value_length(column).to_numpy(zero_copy_only=False)
            dimension = int(lengths[0]) if dimension is None else dimension
            wrong = lengths != dimension
            if wrong.any():
                row = int(wrong.argmax())
                told = f"the vector of node {names[row]!r} has {lengths[row]} numbers, others have {dimension}"
                raise ValueError(f"column {self.vector!r}: {told}")
        # Not values: those of a slice are the ones of the whole array.
        numbers = column.flatten()
        if numbers.null_count:
            row = int(numbers.is_null().to_numpy(zero_copy_only=False).argmax()) // (dimension or 1)
            raise ValueError(f"column {self.vector!r}: the vector of node {names[row]!r} lacks a number")
        flat = numbers.to_numpy(zero_copy_only=True)
        return np.asarray(flat.reshape(len(column), dimension or 0), dtype=self.dtype)

    def column(self, vectors: FloatArray, valid: BoolArray, kind: Any) -> Any:
        """An Arrow array of a column's type: ``vectors`` in the rows that are ``valid``, null in the others."""
        import pyarrow

        storage = getattr(kind, "storage_type", kind)
        numbers = pyarrow.array(np.ascontiguousarray(vectors, dtype=DTYPES[self.number]).ravel())
        width = vectors.shape[1]
        if pyarrow.types.is_fixed_size_list(storage):
            filled = np.repeat(valid, width)
            spread = np.zeros(len(filled), dtype=DTYPES[self.number])
            spread[filled] = numbers.to_numpy()
            made = pyarrow.FixedSizeListArray.from_arrays(
                pyarrow.array(spread), type=storage, mask=None if valid.all() else _mask(~valid)
            )
        else:
            offsets = np.concatenate([[0], np.cumsum(np.where(valid, width, 0))])
            large = pyarrow.types.is_large_list(storage)
            lists = pyarrow.LargeListArray if large else pyarrow.ListArray
            starts = pyarrow.array(offsets, pyarrow.int64() if large else pyarrow.int32())
            made = lists.from_arrays(starts, numbers, type=storage, mask=None if valid.all() else _mask(~valid))
        return made if storage is kind else pyarrow.ExtensionArray.from_storage(kind, made)


def _mask(rows: BoolArray) -> Any:
    import pyarrow

    return pyarrow.array(rows)
