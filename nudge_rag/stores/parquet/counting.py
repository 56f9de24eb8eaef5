"""Which files count in a version of a store: the user's, or those of ours that stand for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nudge_rag.stores.parquet.columns import EMPTY, NodeColumns
from nudge_rag.stores.parquet.files import SourceFiles
from nudge_rag.stores.parquet.filesystems import FileState, list_inside, look_at, opened, state_of
from nudge_rag.stores.parquet.fragments import ParquetFragment, group_sizes, naming, told_of, whole_file
from nudge_rag.stores.parquet.snapshots import LIVE, SnapshotFolder, Snapshots

__all__ = ["ROWS_PER_FRAGMENT", "CountingFiles", "find_columns"]

# A worker that dies loses this much work, and a cluster has no fewer pieces to share.
ROWS_PER_FRAGMENT = 250_000


@dataclass(frozen=True, eq=False)
class CountingFiles:
    """The files that count in one version of a store, and the fragments of them.

    Attributes:
        source: the user's files.
        folder: where files of ours lie that stand for some of them; None if there can be none.
        columns: the columns of ids and vectors.
        label: of the version.
        sizes: by file and state the rows of each row group, and whether all of them are nodes; versions share it.
        datasets: the last one of Arrow, by its paths and the state of the first, whose end says the columns.
    """

    source: SourceFiles
    folder: SnapshotFolder | None
    columns: NodeColumns
    label: str = LIVE
    sizes: dict[tuple[str, FileState], Sequence[tuple[int, bool]]] = field(default_factory=dict)
    datasets: dict[tuple[tuple[str, ...], FileState], Any] = field(default_factory=dict)

    def beside(self) -> SnapshotFolder:
        """The folder of what is written.

        Raises:
            ValueError: there is none.
        """
        if self.folder is None:
            what = "a list of files has no folder" if self.source.root is None else "a whole bucket has nothing"
            raise ValueError(f"{what} beside it: give beside=, a folder for what is written")
        return self.folder

    def fragments(self, where: Any = None) -> list[ParquetFragment]:
        """Fragments of the files that count now: row groups of one file, `ROWS_PER_FRAGMENT` rows or fewer."""
        return [part for file in self.whole_files(where).values() for part in self.split(file)]

    def list_counting(self) -> dict[str, tuple[str, FileState]]:
        """Of each of the user's files, the path and state of the one that counts: it, or ours that was made from it."""
        return self._list_counting(self.source.now())

    def _list_counting(self, states: dict[str, FileState]) -> dict[str, tuple[str, FileState]]:
        found = {path: (path, state) for path, state in states.items()}
        snapshots = Snapshots() if self.folder is None else self.folder.load()
        while self.folder is not None:
            view = snapshots.view(self.label)
            known = {path: view[self.key_of(path)] for path in states if self.key_of(path) in view}
            ours = {known[path].file: path for path in known if known[path].of == states[path]}
            there = self._look_at_ours(list(ours))
            before = snapshots
            # One that was deleted counts no more, unless others count by now, in whose place it was deleted.
            if len(there) == len(ours) or (snapshots := self.folder.load()) == before:
                found |= {ours[info.path]: (info.path, state_of(self.source.filesystem, info)) for info in there}
                break
        return found

    def _look_at_ours(self, paths: list[str]) -> list[Any]:
        """What is known of those files of ours that are there: of several, by one list."""
        wanted = set(paths)
        if len(wanted) > 1 and self.folder is not None and self.folder.local is None:
            found = list_inside(self.source.filesystem, self.folder.rewritten, may_be_missing=True)
        else:
            found = look_at(self.source.filesystem, paths)
        return [info for info in found if info.is_file and info.path in wanted]

    def whole_files(self, where: Any = None, states: dict[str, FileState] | None = None) -> dict[str, ParquetFragment]:
        """Of each of the user's files, the fragment of all of the file that counts.

        Args:
            where: what their rows must meet.
            states: the user's files, if they have just been listed.
        """
        states = self.source.now() if states is None else states
        counting = self._list_counting(states)
        dataset = self._dataset(states)
        found = {}
        for given in dataset.get_fragments():
            path, state = counting[given.path]
            file = whole_file(given, path, state)
            is_ours = path != given.path
            fragment = ParquetFragment(
                file, state, self.columns, groups=(), rows=0, where=where, schema=dataset.schema, is_ours=is_ours
            )
            groups = self.groups(fragment)
            found[given.path] = replace(
                fragment, groups=tuple(range(len(groups))), rows=sum(rows for rows, _ in groups)
            )
        return {path: found[path] for path in counting}

    def _dataset(self, states: dict[str, FileState]) -> Any:
        """The user's files as one dataset of Arrow, which knows their partitions."""
        known = tuple(states), next(iter(states.values()))
        if known not in self.datasets:
            made = self._new_dataset(list(states))
            self.datasets.clear()
            self.datasets[known] = made
            return made
        return self.datasets[known]

    def _new_dataset(self, paths: list[str]) -> Any:
        import pyarrow.dataset

        options = pyarrow.dataset.FileSystemFactoryOptions(
            partitioning=pyarrow.dataset.HivePartitioning.discover(), partition_base_dir=self.source.root
        )
        form = pyarrow.dataset.ParquetFileFormat()
        factory = pyarrow.dataset.FileSystemDatasetFactory(self.source.filesystem, paths, form, options)
        with naming(paths[0]):
            of_file, *others = factory.inspect_schemas()
        # A column may be in the files and in the names of their folders, in different types: the files' is what counts.
        names = set(of_file.names)
        fields = [field for schema in others for field in schema if field.name not in names]
        return factory.finish(pyarrow.schema([*of_file, *fields]))

    def groups(self, file: ParquetFragment) -> Sequence[tuple[int, bool]]:
        """Rows of each row group, and whether all of them are nodes; the end of a file is read once."""
        known = file.path, file.state
        if known not in self.sizes:
            metadata = file.metadata()
            schema = metadata.schema.to_arrow_schema()
            with told_of(file.path):
                self.columns.check(schema)
            self.sizes[known] = group_sizes(metadata, self.columns)
        return self.sizes[known]

    def split(self, file: ParquetFragment) -> Iterator[ParquetFragment]:
        """Cut a file into fragments of so many rows that a worker reads."""
        groups: list[int] = []
        rows = 0
        for number, (size, _) in enumerate(self.groups(file)):
            if groups and rows + size > ROWS_PER_FRAGMENT:
                yield replace(file, groups=tuple(groups), rows=rows)
                groups, rows = [], 0
            groups.append(number)
            rows += size
        if groups:
            yield replace(file, groups=tuple(groups), rows=rows)

    def key_of(self, path: str) -> str:
        """What one of the user's files is called in the list of those that ours stand for."""
        return path if self.source.root is None else self.name_of(path)

    def name_of(self, path: str) -> str:
        """A name for a file that stands for one of the user's; partitions stay part of it."""
        if self.source.root is None:
            return f"{self.source.listed.index(path):06d}-{path.rpartition('/')[2]}"
        inside = path.removeprefix(self.source.root).strip("/")
        return inside or path.rpartition("/")[2]


def find_columns(source: SourceFiles, id_column: str, vector_column: str) -> NodeColumns:
    """Find the columns in the files, with the dimension that the first vector has if the type does not say it.

    Raises:
        ValueError: there is no file, or one lacks a column, or has another type there.
    """
    import pyarrow.parquet

    filesystem = source.filesystem
    columns: NodeColumns | None = None
    for path, state in source.now().items():
        with naming(path), opened(filesystem, path, state.size) as stream:
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
