"""`ParquetFragment`: some row groups of one file; what workers do with one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.errors import StoreError
from nudge_rag.stores.parquet.columns import NodeColumns
from nudge_rag.stores.parquet.filesystems import (
    FileState,
    forget,
    fsspec_of,
    is_read_at_once,
    look_at,
    opened,
    state_of,
)

__all__ = [
    "ChangedError",
    "ParquetFragment",
    "fetch_nodes",
    "find_names",
    "group_sizes",
    "is_complete",
    "naming",
    "told_of",
    "whole_file",
]

# Pages are read as they are needed, some megabytes at a time: a row group may be larger than memory.
BYTES_PER_READ = 4_000_000
ROWS_PER_READ = 65_536


class ChangedError(StoreError):
    """A file is not the one that was listed.

    Args:
        path: the file's.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"{self.path} was changed or removed while the store was read: read it again"


@contextmanager
def naming(path: str, check: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Name the file in errors of Arrow.

    Args:
        path: the file's.
        check: raises what is the reason if the file is another one by now.

    Raises:
        ValueError: it is no Parquet file, or is damaged.
        OSError: it cannot be read; of the same kind as Arrow's, since what a network has failed at is tried again.
        StoreError: it is not there any more.
    """
    import pyarrow

    try:
        yield
    except FileNotFoundError:
        raise ChangedError(path) from None
    except pyarrow.ArrowException as error:
        check()
        raise ValueError(f"{path} cannot be read as Parquet: {error}") from error
    except OSError as error:
        check()
        raise OSError(f"{path} cannot be read: {error}") from error


@contextmanager
def told_of(path: str) -> Iterator[None]:
    """Name the file in an error of what it holds."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def whole_file(given: Any, path: str, state: FileState) -> Any:
    """A fragment of Arrow of all of a file, which may stand for the one that is ``given``, in the same partition."""
    make = given.format.make_fragment
    with contextlib.suppress(TypeError):
        return make(path, given.filesystem, given.partition_expression, file_size=state.size)
    # An older pyarrow, which asks for the size of each file that it opens.
    return make(path, given.filesystem, given.partition_expression)


@dataclass(frozen=True, eq=False)
class ParquetFragment:
    """Some row groups of one file, as it was when the store was listed.

    Attributes:
        file: the ``pyarrow.dataset`` fragment of the file.
        state: of the file at that time.
        columns: the columns of ids and vectors.
        groups: numbers of the row groups.
        rows: number of rows in them.
        where: a ``pyarrow.compute`` expression that rows must meet; None for all.
        schema: the columns that it may name, those of partitions included.
        is_ours: whether it was written by us, under a name of its own: it may be deleted, and does not change.
    """

    file: Any
    state: FileState
    columns: NodeColumns
    groups: tuple[int, ...]
    rows: int
    where: Any = None
    schema: Any = None
    is_ours: bool = False

    @property
    def path(self) -> str:
        """The file's path."""
        return str(self.file.path)

    def batches(self, batch_size: int) -> Iterator[tuple[list[str], FloatArray]]:
        """Its nodes: ids and vectors.

        Raises:
            StoreError: the file was changed since the store was listed.
            ValueError: a vector of another length, or one that lacks a number.
        """
        passing = None if self.where is None else self.ids_that_pass()
        with self.open() as file:
            for batch in self.read(file, batch_size, self.groups, self.columns.names):
                chosen = None
                if passing is not None:
                    chosen = np.array([name in passing for name in self.columns.ids(batch).to_pylist()], dtype=np.bool_)
                with told_of(self.path):
                    names, vectors = self.columns.nodes(batch, chosen)
                if names:
                    yield names, vectors

    def ids_that_pass(self) -> set[str]:
        """Ids of the rows that meet the condition."""
        part = self.file.subset(row_group_ids=list(self.groups))
        try:
            batches = part.to_batches(self.schema, columns=[self.columns.id], filter=self.where, use_threads=False)
            return {name for batch in batches for name in self.columns.ids(batch).to_pylist()}
        except (OSError, ValueError):
            # A file of another size by now is read at wrong places.
            self._check_unchanged()
            raise

    def metadata(self) -> Any:
        """What the end of the file says of it.

        Raises:
            StoreError: it was changed, or removed, since the store was listed.
            ValueError: it is damaged.
        """
        import pyarrow.parquet

        with naming(self.path, self._check_unchanged):
            if fsspec_of(self.file.filesystem) is None:
                return self.file.metadata
            with opened(self.file.filesystem, self.path, self.state.size) as source:
                return pyarrow.parquet.read_metadata(source)

    @contextmanager
    def open(self) -> Iterator[Any]:
        """The file, as a ``pyarrow.parquet.ParquetFile``.

        Raises:
            StoreError: it was changed, or removed, since the store was listed.
        """
        import pyarrow.parquet

        is_whole = is_read_at_once(self.file.filesystem, self.state.size)
        if not is_whole and not self.is_ours:
            self._check_unchanged()
        with naming(self.path, self._check_unchanged):
            source = opened(self.file.filesystem, self.path, self.state.size)
        if is_whole and not self.is_ours:
            # What was read in one moment, and is what was listed after that as well, needs no other look.
            self._check_unchanged()
        with source:
            with naming(self.path, self._check_unchanged):
                file = pyarrow.parquet.ParquetFile(source, pre_buffer=False, buffer_size=BYTES_PER_READ)
            with file:
                yield file
        # What was written over in the middle of it may have been read as rows of before.
        if not is_whole and not self.is_ours:
            self._check_unchanged()

    def read(self, file: Any, batch_size: int, groups: Sequence[int], names: list[str] | None = None) -> Iterator[Any]:
        """Arrow batches of some row groups of the open file; all columns if none are named.

        Raises:
            StoreError: the file was changed since the store was listed.
            ValueError: it is damaged.
        """
        with naming(self.path, self._check_unchanged):
            yield from file.iter_batches(batch_size, list(groups), names, use_threads=False)

    def _check_unchanged(self) -> None:
        forget(self.file.filesystem)
        (info,) = look_at(self.file.filesystem, [self.path])
        if state_of(self.file.filesystem, info) != self.state:
            raise ChangedError(self.path)

    def group(self, number: int) -> ParquetFragment:
        """One of its row groups."""
        return replace(self, groups=(number,))


def find_names(fragment: ParquetFragment, names: frozenset[str]) -> list[str]:
    """Those of ``names`` that are nodes of the fragment and pass its condition, as often as they are."""
    found: list[str] = []
    columns = fragment.columns
    passing = None if fragment.where is None else fragment.ids_that_pass()
    with fragment.open() as file:
        for group in fragment.groups:
            present = _matches(file, fragment, group, names)
            if present and not is_complete(file.metadata.row_group(group), columns):
                kept, _ = fetch_nodes(fragment.group(group), names)
                present = kept
            found += present if passing is None else [name for name in present if name in passing]
    return found


def fetch_nodes(fragment: ParquetFragment, names: frozenset[str]) -> tuple[list[str], FloatArray]:
    """Ids and vectors of those of ``names`` that are in the fragment: vectors of other row groups are not read."""
    import pyarrow
    import pyarrow.compute

    columns = fragment.columns
    wanted = pyarrow.array(sorted(names), pyarrow.string())
    found: list[str] = []
    vectors: list[FloatArray] = []
    with fragment.open() as file:
        for group in fragment.groups:
            if not _matches(file, fragment, group, names):
                continue
            for batch in fragment.read(file, ROWS_PER_READ, [group], columns.names):
                among = pyarrow.compute.is_in(columns.ids(batch), value_set=wanted)
                with told_of(fragment.path):
                    part, rows = columns.nodes(batch, np.asarray(among.to_numpy(zero_copy_only=False), dtype=np.bool_))
                found += part
                if part:
                    vectors.append(rows.copy())
    return found, np.concatenate(vectors) if vectors else np.zeros((0, columns.dimension or 0), columns.dtype)


def _matches(file: Any, fragment: ParquetFragment, group: int, names: frozenset[str]) -> list[str]:
    """Those of ``names`` that the column of ids has, with a vector or without."""
    import pyarrow
    import pyarrow.compute

    wanted = pyarrow.array(sorted(names), pyarrow.string())
    found: list[str] = []
    for batch in fragment.read(file, ROWS_PER_READ, [group], [fragment.columns.id]):
        ids = fragment.columns.ids(batch)
        found += ids.filter(pyarrow.compute.is_in(ids, value_set=wanted)).to_pylist()
    return [name for name in found if name is not None]


def is_complete(group: Any, columns: NodeColumns) -> bool:
    """Whether the statistics of a row group say that every row has an id and a vector."""
    seen = 0
    for number in range(group.num_columns):
        column = group.column(number)
        top = str(column.path_in_schema).partition(".")[0]
        if top not in columns.names:
            continue
        statistics = column.statistics
        if statistics is None or not statistics.has_null_count or statistics.null_count:
            return False
        expected = group.num_rows * (columns.dimension or 0 if top == columns.vector else 1)
        if statistics.num_values != expected:
            return False
        seen += 1
    return seen == len(columns.names)


def group_sizes(metadata: Any, columns: NodeColumns) -> Sequence[tuple[int, bool]]:
    """Rows of each row group of a file, and whether all of them are nodes."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    return [(group.num_rows, is_complete(group, columns)) for group in groups]
