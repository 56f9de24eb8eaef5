"""Vectors in Parquet files: a folder, a file or a list of files, on disk or in object storage."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.packages import import_package
from nudge_rag.stores.adapter import StoreAdapter
from nudge_rag.stores.base import Capabilities, SearchResult, Similarity
from nudge_rag.stores.checks import check_ids, check_label, check_queries
from nudge_rag.stores.copies import CopyNotes, NodesOfCopy, unknown_copy
from nudge_rag.stores.history import BlobStorage
from nudge_rag.stores.keys import store_key
from nudge_rag.stores.lake.executors import map_fragments
from nudge_rag.stores.lake.mapping import VectorMap
from nudge_rag.stores.lake.scanning import scan
from nudge_rag.stores.location import StoreLocation, hide_secrets
from nudge_rag.stores.parquet.counting import ROWS_PER_FRAGMENT, CountingFiles, find_columns
from nudge_rag.stores.parquet.files import OF_ARROW, resolve, uris_of
from nudge_rag.stores.parquet.fragments import (
    ChangedError,
    ParquetFragment,
    fetch_nodes,
    find_names,
)
from nudge_rag.stores.parquet.late_writes import find_late_writes, scan_differing
from nudge_rag.stores.parquet.replacing import rewrite_files
from nudge_rag.stores.parquet.rewriting import Changes, change_file, map_file
from nudge_rag.stores.parquet.snapshots import LIVE, SnapshotFolder, scope_of

__all__ = ["ParquetStore"]

SIMILARITIES: tuple[Similarity, ...] = ("cosine", "dot", "l2")
TRIES = 5
WITH_PATHS = ("file", "hdfs", "local", "memory", "viewfs")


class ParquetStore(StoreAdapter):
    """Adapter for Parquet files with a column of ids and a column of vectors, through ``pyarrow.dataset`` fragments.

    Ids are strings or integers, vectors lists of float16, float32 or float64, of a fixed size or not; rows without an
    id or a vector are no nodes. A search reads everything once and is exact. ``where`` is a ``pyarrow.compute``
    expression on the columns, those of Hive partitions (``lang=de/``) included.

    No file of the user's is ever written to or deleted. A write makes new files of those that it changes, in the folder
    ``<source>.nudge-rag``, and one step makes them count; `files` lists what counts, for other engines. A file that a
    pipeline writes anew counts again itself, and new files are seen at once.

    Args:
        source: a folder, a file or a list of files: paths, or URIs such as ``s3://bucket/docs``.
        id_column: its name.
        vector_column: its name.
        similarity: how the application ranks.
        filesystem: of ``pyarrow.fs`` or fsspec; None for that of the URI, or else this machine's.
        beside: the folder of rewritten files and of the history; needed to write to a list of files.
        executor: reads and rewrites the fragments; None for this process.

    Raises:
        TypeError: a source that is no path or list of paths.
        ValueError: no files, columns that are missing or of another type; an Iceberg or Delta table.
        MissingPackageError: pyarrow is not installed; names the pip command.

    Example:
        >>> import tempfile, pyarrow, pyarrow.parquet
        >>> folder = tempfile.mkdtemp()
        >>> nodes = pyarrow.table({"id": ["a", "b"], "embedding": [[1.0, 0.0], [0.0, 1.0]]})
        >>> pyarrow.parquet.write_table(nodes, f"{folder}/part-0.parquet")
        >>> ParquetStore(folder).search(np.array([[0.2, 1.0]]), 1).ids
        [['b']]
    """

    name = "parquet"

    def __init__(
        self,
        source: str | Path | Sequence[str | Path],
        *,
        id_column: str = "id",
        vector_column: str = "embedding",
        similarity: Similarity = "cosine",
        filesystem: Any = None,
        beside: str | Path | None = None,
        executor: Executor | None = None,
    ) -> None:
        import_package("pyarrow", "ParquetStore", "lake")
        if similarity not in SIMILARITIES:
            raise ValueError(f"similarity must be one of {', '.join(SIMILARITIES)}, got {similarity!r}")
        self.executor = executor
        with hide_secrets(*uris_of(source), *uris_of([beside])):
            files = resolve(source, filesystem)
            files.check_tables()
            root = files.place_beside(beside, filesystem)
            self._columns = find_columns(files, id_column, vector_column)
        self._place = f"{root or files.root or files.listed}/{scope_of(vector_column)}"
        folder = SnapshotFolder(files.filesystem, self._place) if root else None
        self._files = CountingFiles(files, folder, self._columns)
        self._capabilities = Capabilities(
            similarity,
            dtype=self._columns.dtype,
            persistent=True,
            side_by_side=folder is not None,
            atomic_switch=folder is not None,
        )

    @classmethod
    def from_url(cls, location: StoreLocation) -> ParquetStore:
        """The files that ``parquet://`` names."""
        chosen = location.chosen({"id": "id_column", "vector": "vector_column", "similarity": "similarity"})
        path, scheme = location.needed_path, location.options.get("filesystem")
        if scheme:
            # A bucket comes first, a path begins with a stroke.
            path = path if scheme in WITH_PATHS else path.lstrip("/")
            path = f"{scheme}://{quote(path) if scheme in ('file', *OF_ARROW) else path}"
        return cls(path, **chosen)

    @property
    def key(self) -> str:
        """From the place of the files and the column."""
        return store_key("parquet", self._place)

    @property
    def dimension(self) -> int | None:
        """Length of the vectors; None if there is none."""
        return self._columns.dimension

    def files(self) -> list[str]:
        """Paths of the files that count now: give them to other engines in place of the folder.

        They are those of the file system: in object storage the bucket comes first, without a scheme.

        Example:
            >>> import tempfile, pyarrow, pyarrow.parquet
            >>> folder = tempfile.mkdtemp()
            >>> nodes = pyarrow.table({"id": ["a"], "embedding": [[1.0, 0.0]]})
            >>> pyarrow.parquet.write_table(nodes, f"{folder}/part-0.parquet")
            >>> store = ParquetStore(folder)
            >>> store.replace(["a"], np.array([[0.6, 0.8]]))
            >>> pyarrow.dataset.dataset(store.files()).to_table().to_pylist()
            [{'id': 'a', 'embedding': [0.6, 0.8]}]
        """
        return [path for path, _ in self._files.list_counting().values()]

    def fragments(self, where: Any = None) -> list[ParquetFragment]:
        """Fragments of the files that count now: row groups of one file, a quarter of a million rows or fewer."""
        return self._files.fragments(where)

    def count(self) -> int:
        """Number of nodes."""
        total = 0
        for file in self._files.whole_files().values():
            for number, (rows, complete) in enumerate(self._files.groups(file)):
                parts = [] if complete else file.group(number).batches(ROWS_PER_FRAGMENT)
                total += rows if complete else sum(len(names) for names, _ in parts)
        return total

    def search(self, queries: FloatArray, k: int, *, where: Any = None) -> SearchResult:
        """The k best nodes of each query, exactly, in one pass over all vectors."""
        checked = check_queries(queries, k, dimension=self.dimension)
        return scan(self, checked, k, where=where)

    def matching(self, ids: Sequence[str], where: Any) -> set[str]:
        """Return those of ``ids`` that exist and pass ``where``."""
        names = frozenset(self._possible(check_ids(ids)))
        return {name for part in self._ask_all(find_names, names, where) for name in part} if names else set()

    def history(self) -> BlobStorage:
        """The store's history: in the folder beside the files."""
        return self._files.beside().history()

    def create_copy(self, label: str) -> ParquetStore:
        """Make a copy ``label`` of the live version: of the same files, until something is written to it."""
        folder = self._files.beside()
        check_label(label)
        with folder.lock():
            snapshots = folder.load()
            folder.save(snapshots.changed({**snapshots.views, label: snapshots.view(self._files.label)}))
        return self.open_copy(label)

    def open_copy(self, label: str) -> ParquetStore:
        """Return the adapter of the copy ``label``.

        Raises:
            ValueError: there is none.
        """
        self._require_copy(label)
        opened = object.__new__(ParquetStore)
        vars(opened).update(vars(self))
        opened._files = replace(self._files, label=label)
        opened._capabilities = replace(self.capabilities, side_by_side=False, atomic_switch=False)
        return opened

    def copy_labels(self) -> list[str]:
        """Labels of the copies."""
        return sorted(set(self._files.beside().load().views) - {LIVE})

    def switch(self, label: str) -> None:
        """Swap the live version and the copy ``label``, in one step."""
        with self._files.beside().lock():
            self._require_copy(label)
            self._swap(label)

    def catch_up_and_switch(self, label: str, moved: NodesOfCopy, notes: CopyNotes) -> int:
        """Bring what was written to the live version since into the copy ``label``, and swap the two, in one step.

        Files that a pipeline adds, writes anew or deletes are those of both versions anyway.

        Returns:
            How many nodes were caught up.
        """
        with self._files.beside().lock():
            copy = self.open_copy(label)
            late = find_late_writes(self._files, copy._files, moved, self._same_rows, self._fetch)
            if late:
                copy._change(
                    list(late), Changes({name: row for row, name in enumerate(late)}, np.stack([*late.values()]))
                )
            self._swap(label)
        return len(late)

    def _swap(self, label: str) -> None:
        snapshots = self._files.beside().load()
        swapped = {LIVE: snapshots.view(label), label: snapshots.view(LIVE)}
        self._files.beside().save(snapshots.changed({**snapshots.views, **swapped}))

    def drop_copy(self, label: str) -> None:
        """Remove the copy ``label``."""
        with self._files.beside().lock():
            self._require_copy(label)
            snapshots = self._files.beside().load()
            kept = {other: view for other, view in snapshots.views.items() if other != label}
            self._files.beside().save(snapshots.changed(kept))

    def map_to_copy(self, function: VectorMap, label: str, executor: Executor | None = None) -> ParquetStore:
        """Write a function of every vector to a copy ``label``, file by file on the executor.

        Raises:
            ValueError: vectors that do not fit.
            StoreError: a pipeline wrote to the files again and again meanwhile.
        """
        folder = self._files.beside()
        check_label(label)
        with folder.lock():
            rewrite_files(self._files, lambda _: None, map_file, function, label, executor or self.executor)
        return self.open_copy(label)

    def scan_beside(self, copy: ParquetStore, batch_size: int) -> Iterator[tuple[list[str], FloatArray, FloatArray]]:
        """Nodes of the files by which a copy differs from this version: ids, vectors here and there.

        Raises:
            StoreError: their nodes are not the same.
        """
        return scan_differing(self._files, copy._files, batch_size)

    def as_stored(self, vectors: FloatArray) -> FloatArray:
        """``vectors`` in the column's precision: float16 is read as float32."""
        rows = super().as_stored(vectors)
        if self._columns.number != "halffloat":
            return rows
        with np.errstate(over="ignore"):
            return rows.astype(np.float16).astype(np.float32)

    def _fetch(self, names: list[str]) -> dict[str, FloatArray]:
        parts = self._ask_all(fetch_nodes, frozenset(names)) if names else []
        self._require_once([name for answered, _ in parts for name in answered])
        return {name: row for answered, rows in parts for name, row in zip(answered, rows, strict=True)}

    def _ask_all(self, function: Callable[[ParquetFragment, Any], Any], question: Any, where: Any = None) -> list[Any]:
        """Call a function on every fragment, anew if files were changed in the middle of it."""
        for _ in range(TRIES - 1):
            with contextlib.suppress(ChangedError):
                return [part for _, part in map_fragments(function, self.fragments(where), question, self.executor)]
        return [part for _, part in map_fragments(function, self.fragments(where), question, self.executor)]

    def _batches(self, batch_size: int) -> Iterator[tuple[list[str], FloatArray]]:
        """All nodes of the files that counted at the start of the scan."""
        fragments = self.fragments()
        return (batch for fragment in fragments for batch in fragment.batches(batch_size))

    def _write(self, names: list[str], rows: FloatArray) -> None:
        """Rewrite the files that hold ``names``; then let them count, in one step."""
        with self._files.beside().lock():
            self._change(names, Changes({name: row for row, name in enumerate(names)}, rows))

    def _write_if(self, names: list[str], expected: FloatArray, rows: FloatArray) -> list[str]:
        """Compare and set, in one step: what a pipeline wrote anew since is not what is expected."""
        row_of = {name: row for row, name in enumerate(names)}
        with self._files.beside().lock():
            written = set(self._change(names, Changes(row_of, rows, expected)))
        return [name for name in names if name not in written]

    def _check_vectors(self, ids: Sequence[str], vectors: Any) -> tuple[list[str], FloatArray]:
        names, rows = super()._check_vectors(ids, vectors)
        stored = self.as_stored(rows)
        if not np.isfinite(stored).all():
            raise ValueError("vectors are too large for float16: they would be infinite")
        return names, stored

    def _change(self, names: list[str], changes: Changes) -> list[str]:
        """Rewrite the files that hold ``names``, and return the ids of the nodes that got their new vector."""
        if not names:
            return []
        wanted = frozenset(names)

        def affected(files: dict[str, ParquetFragment]) -> set[str]:
            parts = [(path, part) for path, file in files.items() for part in self._files.split(file)]
            found: dict[str, list[str]] = {path: [] for path in files}
            for number, present in map_fragments(find_names, [part for _, part in parts], wanted, self.executor):
                found[parts[number][0]] += present
            every = [name for present in found.values() for name in present]
            if changes.expected is None:
                self._require(names, set(every))
            self._require_once(every)
            return {path for path, present in found.items() if present}

        done = rewrite_files(self._files, affected, change_file, changes, self._files.label, self.executor)
        return [name for written in done for name in written]

    def _require_copy(self, label: str) -> None:
        if check_label(label) not in self.copy_labels():
            raise unknown_copy(label, self.copy_labels(), str(self._files.source.root or "a list of files"))
