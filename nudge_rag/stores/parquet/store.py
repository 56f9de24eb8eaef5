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
from nudge_rag.stores.base import Capabilities, SearchResult, Similarity, StoreError
from nudge_rag.stores.checks import check_ids, check_label, check_queries
from nudge_rag.stores.copies import CopyNotes, MovedNodes, NodesOfCopy, unknown_copy
from nudge_rag.stores.history import BlobStorage
from nudge_rag.stores.keys import store_key
from nudge_rag.stores.lake.executors import map_fragments
from nudge_rag.stores.lake.mapping import VectorMap
from nudge_rag.stores.lake.scanning import scan
from nudge_rag.stores.location import StoreLocation, hide_secrets
from nudge_rag.stores.parquet.columns import EMPTY, NodeColumns
from nudge_rag.stores.parquet.files import OF_ARROW, FileState, resolve, state_of, uris_of
from nudge_rag.stores.parquet.fragments import (
    ChangedError,
    ParquetFragment,
    fetch_nodes,
    find_names,
    group_sizes,
    naming,
    told_of,
)
from nudge_rag.stores.parquet.rewriting import Changes, Rewrite, change_file, map_file
from nudge_rag.stores.parquet.snapshots import LIVE, Replacement, SnapshotFolder, Snapshots, scope_of

__all__ = ["ParquetStore"]

SIMILARITIES: tuple[Similarity, ...] = ("cosine", "dot", "l2")
# A worker that dies loses this much work, and a cluster has no fewer pieces to share.
ROWS_PER_FRAGMENT = 250_000
TRIES = 5
NODES_PER_STEP = 5_000
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
        self._label = LIVE
        self._sizes: dict[tuple[str, FileState], Sequence[tuple[int, bool]]] = {}
        with hide_secrets(*uris_of(source), *uris_of([beside])):
            self._source = resolve(source, filesystem)
            self._source.check_tables()
            root = self._source.place_beside(beside, filesystem)
            self._columns = self._columns_of(id_column, vector_column)
        self._place = f"{root or self._source.root or self._source.listed}/{scope_of(vector_column)}"
        self._folder = SnapshotFolder(self._source.filesystem, self._place) if root else None
        self._capabilities = Capabilities(
            similarity,
            dtype=self._columns.dtype,
            persistent=True,
            side_by_side=self._folder is not None,
            atomic_switch=self._folder is not None,
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
        return [path for path, _ in self._counting().values()]

    def fragments(self, where: Any = None) -> list[ParquetFragment]:
        """Fragments of the files that count now: row groups of one file, a quarter of a million rows or fewer."""
        return [part for file in self._files(where) for part in self._split(file)]

    def count(self) -> int:
        """Number of nodes."""
        total = 0
        for file in self._files():
            for number, (rows, complete) in enumerate(self._groups(file)):
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
        return self._beside().history()

    def create_copy(self, label: str) -> ParquetStore:
        """Make a copy ``label`` of the live version: of the same files, until something is written to it."""
        folder = self._beside()
        check_label(label)
        with folder.lock():
            snapshots = folder.load()
            folder.save(snapshots.changed({**snapshots.views, label: snapshots.view(self._label)}))
        return self.open_copy(label)

    def open_copy(self, label: str) -> ParquetStore:
        """Return the adapter of the copy ``label``.

        Raises:
            ValueError: there is none.
        """
        self._require_copy(label)
        opened = object.__new__(ParquetStore)
        vars(opened).update(vars(self))
        opened._label = label
        opened._capabilities = replace(self.capabilities, side_by_side=False, atomic_switch=False)
        return opened

    def copy_labels(self) -> list[str]:
        """Labels of the copies."""
        return sorted(set(self._beside().load().views) - {LIVE})

    def switch(self, label: str) -> None:
        """Swap the live version and the copy ``label``, in one step."""
        with self._beside().lock():
            self._require_copy(label)
            self._swap(label)

    def catch_up_and_switch(self, label: str, moved: NodesOfCopy, notes: CopyNotes) -> int:
        """Bring what was written to the live version since into the copy ``label``, and swap the two, in one step.

        Files that a pipeline adds, writes anew or deletes are those of both versions anyway.

        Returns:
            How many nodes were caught up.
        """
        with self._beside().lock():
            copy = self.open_copy(label)
            late = self._late_writes(copy, moved)
            if late:
                copy._change(
                    list(late), Changes({name: row for row, name in enumerate(late)}, np.stack([*late.values()]))
                )
            self._swap(label)
        return len(late)

    def _late_writes(self, copy: ParquetStore, moved: NodesOfCopy) -> dict[str, FloatArray]:
        """Nodes that the copy does not hold as it should, and what it should hold."""
        late: dict[str, FloatArray] = {}
        seen: set[str] = set()
        for names, mine, theirs in self.scan_beside(copy, NODES_PER_STEP):
            if isinstance(moved, MovedNodes):
                seen.update(name for name in names if name in moved.rows)
            wanted = moved.wanted(names, mine, self._same_rows, theirs)
            late.update((names[row], wanted[row]) for row in np.flatnonzero(~self._same_rows(theirs, wanted)))
        # Of a file that a pipeline has written anew, both versions are that file.
        for names, mine in self._shared_nodes(copy, moved, seen):
            wanted = moved.wanted(names, mine, self._same_rows, mine)
            late.update((names[row], wanted[row]) for row in np.flatnonzero(~self._same_rows(mine, wanted)))
        return late

    def _shared_nodes(
        self, copy: ParquetStore, moved: NodesOfCopy, seen: set[str]
    ) -> Iterator[tuple[list[str], FloatArray]]:
        """Nodes of files that a copy shares with this version, by which the two may have to differ."""
        if isinstance(moved, MovedNodes):
            shared = self._fetch([name for name in moved.ids if name not in seen])
            if shared:
                yield list(shared), np.stack([*shared.values()])
            return
        here, there = self._fragment_of_each(), copy._fragment_of_each()
        for path in [path for path in here if path in there and here[path].path == there[path].path]:
            yield from here[path].batches(NODES_PER_STEP)

    def _swap(self, label: str) -> None:
        snapshots = self._beside().load()
        swapped = {LIVE: snapshots.view(label), label: snapshots.view(LIVE)}
        self._beside().save(snapshots.changed({**snapshots.views, **swapped}))

    def drop_copy(self, label: str) -> None:
        """Remove the copy ``label``."""
        with self._beside().lock():
            self._require_copy(label)
            snapshots = self._beside().load()
            kept = {other: view for other, view in snapshots.views.items() if other != label}
            self._beside().save(snapshots.changed(kept))

    def map_to_copy(self, function: VectorMap, label: str, executor: Executor | None = None) -> ParquetStore:
        """Write a function of every vector to a copy ``label``, file by file on the executor.

        Raises:
            ValueError: vectors that do not fit.
            StoreError: a pipeline wrote to the files again and again meanwhile.
        """
        folder = self._beside()
        check_label(label)
        with folder.lock():
            self._rewrite(lambda _: None, map_file, function, label, executor or self.executor)
        return self.open_copy(label)

    def scan_beside(self, copy: ParquetStore, batch_size: int) -> Iterator[tuple[list[str], FloatArray, FloatArray]]:
        """Nodes of the files by which a copy differs from this version: ids, vectors here and there.

        Raises:
            StoreError: their nodes are not the same.
        """
        here, there = self._fragment_of_each(), copy._fragment_of_each()
        for path in [path for path in here if path not in there or here[path].path != there[path].path]:
            pairs = zip(here[path].batches(batch_size), there[path].batches(batch_size), strict=True)
            for (names, mine), (others, theirs) in pairs:
                if names != others:
                    raise StoreError(f"{there[path].path} does not hold the nodes of {here[path].path}")
                yield names, mine, theirs

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
        with self._beside().lock():
            self._change(names, Changes({name: row for row, name in enumerate(names)}, rows))

    def _write_if(self, names: list[str], expected: FloatArray, rows: FloatArray) -> list[str]:
        """Compare and set, in one step: what a pipeline wrote anew since is not what is expected."""
        row_of = {name: row for row, name in enumerate(names)}
        with self._beside().lock():
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
            parts = [(path, part) for path, file in files.items() for part in self._split(file)]
            found: dict[str, list[str]] = {path: [] for path in files}
            for number, present in map_fragments(find_names, [part for _, part in parts], wanted, self.executor):
                found[parts[number][0]] += present
            every = [name for present in found.values() for name in present]
            if changes.expected is None:
                self._require(names, set(every))
            self._require_once(every)
            return {path for path, present in found.items() if present}

        done = self._rewrite(affected, change_file, changes, self._label, self.executor)
        return [name for written in done for name in written]

    def _rewrite(
        self,
        affected: Callable[[dict[str, ParquetFragment]], set[str] | None],
        function: Callable[[Rewrite, Any], Any],
        question: Any,
        label: str,
        executor: Executor | None,
    ) -> list[Any]:
        """Rewrite files of this version, and let the new ones count in the version ``label``.

        Args:
            affected: says which of the files, by the paths of the user's; None for all.
            function: writes one anew.
            question: what it is told.
            label: of the version in which they count.
            executor: calls it.

        Returns:
            The function's results.
        """
        for _ in range(TRIES):
            with contextlib.suppress(ChangedError):
                results = self._try_to_rewrite(affected, function, question, label, executor)
                if results is not None:
                    return results
        raise StoreError(f"others write to the files of {self._source.root} again and again: nothing was written")

    def _try_to_rewrite(
        self,
        affected: Callable[[dict[str, ParquetFragment]], set[str] | None],
        function: Callable[[Rewrite, Any], Any],
        question: Any,
        label: str,
        executor: Executor | None,
    ) -> list[Any] | None:
        """As `_rewrite`; None if somebody else wrote to one of the files meanwhile."""
        folder = self._beside()
        states, files = self._source.now(), self._fragment_of_each()
        chosen = affected(files)
        paths = [path for path in files if chosen is None or path in chosen]
        new = folder.new_folder()
        targets = [f"{new}/{self._name_of(path)}" for path in paths]
        tasks = [Rewrite(files[path], target) for path, target in zip(paths, targets, strict=True)]
        results = [result for _, result in sorted(map_fragments(function, tasks, question, executor))]
        now = self._source.now()
        if any(now.get(path) != states.get(path) for path in paths):
            return None
        snapshots = folder.load()
        made = {
            self._key_of(path): Replacement(target, states[path])
            for path, target, result in zip(paths, targets, results, strict=True)
            if result or chosen is None
        }
        base = {} if chosen is None else snapshots.view(label)
        folder.save(snapshots.changed({**snapshots.views, label: {**base, **made}}))
        return results

    def _key_of(self, path: str) -> str:
        """What one of the user's files is called in the list of those that ours stand for."""
        return path if self._source.root is None else self._name_of(path)

    def _name_of(self, path: str) -> str:
        """A name for a file that stands for one of the user's; partitions stay part of it."""
        if self._source.root is None:
            return f"{self._source.listed.index(path):06d}-{path.rpartition('/')[2]}"
        inside = path.removeprefix(self._source.root).strip("/")
        return inside or path.rpartition("/")[2]

    def _beside(self) -> SnapshotFolder:
        if self._folder is None:
            what = "a list of files has no folder" if self._source.root is None else "a whole bucket has nothing"
            raise ValueError(f"{what} beside it: give beside=, a folder for what is written")
        return self._folder

    def _require_copy(self, label: str) -> None:
        if check_label(label) not in self.copy_labels():
            raise unknown_copy(label, self.copy_labels(), str(self._source.root or "a list of files"))

    def _counting(self) -> dict[str, tuple[str, FileState]]:
        """Of each of the user's files, the path and state of the one that counts: it, or ours that was made from it."""
        states = self._source.now()
        found = {path: (path, state) for path, state in states.items()}
        snapshots = Snapshots() if self._folder is None else self._folder.load()
        while self._folder is not None:
            view = snapshots.view(self._label)
            known = {path: view[self._key_of(path)] for path in states if self._key_of(path) in view}
            ours = {known[path].file: path for path in known if known[path].of == states[path]}
            there = [info for info in self._source.filesystem.get_file_info(list(ours)) if info.is_file] if ours else []
            before = snapshots
            # One that was deleted counts no more, unless others count by now, in whose place it was deleted.
            if len(there) == len(ours) or (snapshots := self._folder.load()) == before:
                found |= {ours[info.path]: (info.path, state_of(self._source.filesystem, info)) for info in there}
                break
        return found

    def _fragment_of_each(self, where: Any = None) -> dict[str, ParquetFragment]:
        """Of each of the user's files, the fragment of all of the file that counts."""
        counting = self._counting()
        dataset = self._dataset(list(counting))
        found = {}
        for given in dataset.get_fragments():
            path, state = counting[given.path]
            file = given.format.make_fragment(path, given.filesystem, given.partition_expression)
            fragment = ParquetFragment(file, state, self._columns, (), 0, where, dataset.schema)
            groups = self._groups(fragment)
            found[given.path] = replace(
                fragment, groups=tuple(range(len(groups))), rows=sum(rows for rows, _ in groups)
            )
        return {path: found[path] for path in counting}

    def _dataset(self, paths: list[str]) -> Any:
        """Files as one dataset of Arrow, which knows their partitions."""
        import pyarrow.dataset

        options = pyarrow.dataset.FileSystemFactoryOptions(
            partitioning=pyarrow.dataset.HivePartitioning.discover(), partition_base_dir=self._source.root
        )
        form = pyarrow.dataset.ParquetFileFormat()
        factory = pyarrow.dataset.FileSystemDatasetFactory(self._source.filesystem, paths, form, options)
        with naming(paths[0]):
            of_file, *others = factory.inspect_schemas()
        # A column may be in the files and in the names of their folders, in different types: the files' is what counts.
        names = set(of_file.names)
        fields = [field for schema in others for field in schema if field.name not in names]
        return factory.finish(pyarrow.schema([*of_file, *fields]))

    def _files(self, where: Any = None) -> list[ParquetFragment]:
        return list(self._fragment_of_each(where).values())

    def _groups(self, file: ParquetFragment) -> Sequence[tuple[int, bool]]:
        """Rows of each row group, and whether all of them are nodes; the end of a file is read once."""
        known = file.path, file.state
        if known not in self._sizes:
            with naming(file.path):
                metadata = file.file.metadata
                schema = metadata.schema.to_arrow_schema()
            with told_of(file.path):
                self._columns.check(schema)
            self._sizes[known] = group_sizes(metadata, self._columns)
        return self._sizes[known]

    def _split(self, file: ParquetFragment) -> Iterator[ParquetFragment]:
        groups: list[int] = []
        rows = 0
        for number, (size, _) in enumerate(self._groups(file)):
            if groups and rows + size > ROWS_PER_FRAGMENT:
                yield replace(file, groups=tuple(groups), rows=rows)
                groups, rows = [], 0
            groups.append(number)
            rows += size
        if groups:
            yield replace(file, groups=tuple(groups), rows=rows)

    def _columns_of(self, id_column: str, vector_column: str) -> NodeColumns:
        """The columns, with the dimension that the first vector has if the type does not say it."""
        import pyarrow.parquet

        filesystem = self._source.filesystem
        columns: NodeColumns | None = None
        for path in self._source.now():
            with naming(path), filesystem.open_input_file(path) as stream:
                file = pyarrow.parquet.ParquetFile(stream, pre_buffer=False)
                with told_of(path):
                    found = NodeColumns.of(file.schema_arrow, id_column, vector_column)
                if found.number == EMPTY and columns is not None:
                    continue
                if columns is None or columns.number == EMPTY:
                    columns = found
                for batch in file.iter_batches(1, columns=found.names) if columns.dimension is None else ():
                    with told_of(path):
                        _, vectors = columns.nodes(batch)
                    if len(vectors):
                        return replace(columns, dimension=vectors.shape[1])
            if columns.dimension is not None:
                return columns
        if columns is None:
            raise ValueError("there is no Parquet file")
        return columns
