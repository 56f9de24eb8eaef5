"""A Parquet file written anew with other vectors: everything else in it stays as it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.files import sync_folder
from nudge_rag.stores.checks import check_replacement
from nudge_rag.stores.parquet.columns import NodeColumns
from nudge_rag.stores.parquet.filesystems import create_file
from nudge_rag.stores.parquet.fragments import ParquetFragment, told_of

__all__ = ["Changes", "Rewrite", "change_file", "map_file"]

ROWS_PER_STEP = 16_384
BYTES_PER_GROUP = 128_000_000


@dataclass(frozen=True, eq=False)
class Rewrite:
    """A file, and where it is written anew.

    Attributes:
        fragment: all of the file.
        target: a path on its file system where nothing is yet.
    """

    fragment: ParquetFragment
    target: str

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.fragment.rows


@dataclass(frozen=True, eq=False)
class Changes:
    """New vectors of some nodes.

    Attributes:
        row_of: the row of each node in the arrays.
        vectors: (n, d) new vectors.
        expected: (n, d) what a node must hold to get its new one; None if that does not matter.
    """

    row_of: dict[str, int]
    vectors: FloatArray = field(repr=False)
    expected: FloatArray | None = field(default=None, repr=False)

    def apply(self, names: list[str], vectors: FloatArray) -> tuple[FloatArray, list[str]]:
        """A batch with its new vectors, and the ids of the nodes that got one."""
        places = [place for place, name in enumerate(names) if name in self.row_of]
        rows = [self.row_of[names[place]] for place in places]
        if self.expected is not None and places:
            # Bit for bit, so that 0.0 is not -0.0.
            pairs = zip(vectors[places], self.expected[rows], strict=True)
            same = [mine.tobytes() == wanted.tobytes() for mine, wanted in pairs]
            places = [place for place, unchanged in zip(places, same, strict=True) if unchanged]
            rows = [row for row, unchanged in zip(rows, same, strict=True) if unchanged]
        moved = np.array(vectors)
        moved[places] = self.vectors[rows]
        return moved, [names[place] for place in places]


def change_file(task: Rewrite, changes: Changes) -> list[str]:
    """Write a file anew with some new vectors, and return the ids of the nodes that got one."""
    written: list[str] = []

    def change(names: list[str], vectors: FloatArray) -> FloatArray:
        moved, changed = changes.apply(names, vectors)
        written.extend(changed)
        return moved

    _rewrite(task, change)
    return written


def map_file(task: Rewrite, function: Callable[[FloatArray], FloatArray]) -> int:
    """Write a file anew with a function of every vector, and return the number of nodes.

    Raises:
        ValueError: the function gives another number of vectors, another dimension, or numbers that are not finite.
    """
    nodes = 0

    def change(names: list[str], vectors: FloatArray) -> FloatArray:
        nonlocal nodes
        nodes += len(names)
        rows = [str(row) for row in range(len(names))]
        columns = task.fragment.columns
        moved = function(vectors)
        _, checked = check_replacement(rows, moved, dimension=vectors.shape[1], dtype=columns.dtype)
        return checked

    _rewrite(task, change)
    return nodes


def _rewrite(task: Rewrite, change: Callable[[list[str], FloatArray], FloatArray]) -> None:
    columns = task.fragment.columns
    with task.fragment.open() as file, _writer(task, file) as writer:
        schema = file.schema_arrow
        place = schema.get_field_index(columns.vector)
        for batch in task.fragment.read(file, ROWS_PER_STEP, range(file.num_row_groups)):
            valid = columns.valid(batch)
            with told_of(task.fragment.path):
                names, vectors = columns.rows(batch, valid)
            # A row without an id is no node: its vector stays.
            nodes = [row for row, name in enumerate(names) if name is not None]
            if nodes:
                moved = np.array(vectors)
                moved[nodes] = change([str(names[row]) for row in nodes], vectors[nodes])
                column = columns.column(moved, valid, schema.field(place).type)
                batch = batch.set_column(place, schema.field(place), column)
            writer.write_batch(batch, row_group_size=_rows_per_group(columns))


@contextmanager
def _writer(task: Rewrite, file: Any) -> Iterator[Any]:
    """A writer of a file like ``file``; what it has written is on disk when the context ends."""
    import pyarrow.fs
    import pyarrow.parquet

    filesystem, target = task.fragment.file.filesystem, task.target
    with (
        create_file(filesystem, target) as sink,
        pyarrow.parquet.ParquetWriter(sink, file.schema_arrow, **_settings(file, task.fragment.columns)) as writer,
    ):
        yield writer
    if isinstance(filesystem, pyarrow.fs.LocalFileSystem):
        with Path(target).open("rb+") as written:
            os.fsync(written.fileno())
        sync_folder(Path(target).parent)


def _settings(file: Any, columns: NodeColumns) -> dict[str, Any]:
    """Compression and encoding as in the file's first row group; vectors are not worth a dictionary."""
    if not file.metadata.num_row_groups:
        return {}
    group = file.metadata.row_group(0)
    chunks = [group.column(number) for number in range(group.num_columns)]
    tops = {str(chunk.path_in_schema): str(chunk.path_in_schema).partition(".")[0] for chunk in chunks}
    split = [str(c.path_in_schema) for c in chunks if "BYTE_STREAM_SPLIT" in c.encodings]
    dictionary = [
        path
        for path, chunk in zip(tops, chunks, strict=True)
        if tops[path] != columns.vector and any("DICTIONARY" in encoding for encoding in chunk.encodings)
    ]
    return {
        "compression": {
            path: "NONE" if chunk.compression == "UNCOMPRESSED" else str(chunk.compression)
            for path, chunk in zip(tops, chunks, strict=True)
        },
        "use_dictionary": dictionary,
        "use_byte_stream_split": split,
    }


def _rows_per_group(columns: NodeColumns) -> int:
    return max(1_024, BYTES_PER_GROUP // max(1, 8 * (columns.dimension or 1)))
