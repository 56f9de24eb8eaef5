"""The user's Parquet files: where they are, which of them there are now, and tables that are more than their files."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nudge_rag.errors import StoreError

__all__ = ["FileState", "SourceFiles", "resolve"]

ENDINGS = (".parquet", ".parq", ".pq")
OPTIMIZE = "REORG TABLE ... APPLY (PURGE) in Spark, or DeltaTable(path).optimize.compact(),"


@dataclass(frozen=True)
class FileState:
    """A file as it is now; whoever writes it changes that.

    Attributes:
        size: in bytes.
        modified: when it was last written, in nanoseconds.
    """

    size: int
    modified: int


@dataclass(frozen=True)
class SourceFiles:
    """A folder of Parquet files, one file, or a list of files.

    Attributes:
        filesystem: Arrow's.
        root: the folder or file; None for a list.
        listed: the files of a list.
    """

    filesystem: Any
    root: str | None
    listed: tuple[str, ...] = ()

    def now(self) -> dict[str, FileState]:
        """Path and state of each file, in the order of their paths; those of a list in its order.

        Raises:
            ValueError: there is none, or they belong to a table that is more than its files.
        """
        from pyarrow.fs import FileSelector, FileType

        if self.root is None:
            found = self.filesystem.get_file_info(list(self.listed))
        else:
            found = [self.filesystem.get_file_info(self.root)]
            if found[0].type == FileType.Directory:
                inside = self.filesystem.get_file_info(FileSelector(self.root, recursive=True))
                self._check_folder([info.path for info in inside])
                inside = [info for info in inside if info.type == FileType.File and self._counts(info.path)]
                found = sorted(inside, key=lambda info: str(info.path))
        missing = [info.path for info in found if info.type != FileType.File]
        if missing or not found:
            raise ValueError(f"there is no Parquet file at {missing[0] if missing else self.root}")
        return {info.path: FileState(info.size, info.mtime_ns or 0) for info in found}

    def _counts(self, path: str) -> bool:
        """Whether a file is of the data: what begins with _ or . is not, as for Arrow and Spark."""
        inside = path.removeprefix(str(self.root)).strip("/").split("/")
        return path.lower().endswith(ENDINGS) and not any(part.startswith(("_", ".")) for part in inside)

    def _check_folder(self, paths: Sequence[str]) -> None:
        inside = [path.removeprefix(str(self.root)).strip("/") for path in paths]
        if any(re.fullmatch(r"metadata/[^/]*\.metadata\.json", path) for path in inside):
            raise ValueError(
                f"{self.root} is an Iceberg table: its metadata says which files count, and which rows of them are"
                " deleted. Give the list [task.file.file_path for task in table.scan().plan_files()]; if a task has"
                " delete_files, run rewrite_data_files first, which applies them"
            )
        if "_delta_log" in inside:
            raise ValueError(
                f"{self.root} is a Delta table: its log says which files count. Give the list"
                f" DeltaTable(path).file_uris(); if the table has deletion vectors, run {OPTIMIZE} first"
            )

    def check_deletions(self) -> None:
        """Check that no file of a list belongs to a Delta table whose log marks rows of it as deleted.

        Raises:
            ValueError: one does.
        """
        for folder in sorted({_delta_folder(path, self.filesystem) for path in self.listed} - {None}, key=str):
            if _has_deletion_vectors(self.filesystem, str(folder)):
                raise ValueError(
                    f"the Delta table {folder} has deletion vectors: rows of its files no longer count. Run {OPTIMIZE}"
                    " first, and give the files that it has then"
                )


def resolve(source: str | Path | Sequence[str | Path], filesystem: Any = None) -> SourceFiles:
    """The files that ``source`` names, on the file system that it names or that is given.

    Args:
        source: a folder, a file or a list of files: paths, or URIs such as ``s3://bucket/docs``.
        filesystem: of pyarrow.fs or fsspec; None for that of the URI, or else this machine's.

    Raises:
        TypeError: anything else.
        StoreError: no package knows the URI.
    """
    one = isinstance(source, str | Path)
    if not one and not (isinstance(source, Sequence) and source and all(isinstance(s, str | Path) for s in source)):
        raise TypeError(f"source must be a path, or a list of paths of files, got {source!r}")
    given = [str(source)] if isinstance(source, str | Path) else [str(path) for path in source]
    found = [_located(path, filesystem) for path in given]
    paths = tuple(path for _, path in found)
    return SourceFiles(found[0][0], paths[0]) if one else SourceFiles(found[0][0], None, paths)


def _located(path: str, filesystem: Any) -> tuple[Any, str]:
    import pyarrow
    import pyarrow.fs

    if filesystem is not None:
        if not isinstance(filesystem, pyarrow.fs.FileSystem):
            filesystem = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(filesystem))
        return filesystem, path.rstrip("/")
    if "://" not in path:
        return pyarrow.fs.LocalFileSystem(), str(Path(path).resolve())
    try:
        found, inside = pyarrow.fs.FileSystem.from_uri(path)
        return found, inside.rstrip("/")
    except (pyarrow.ArrowInvalid, NotImplementedError):
        pass
    try:
        import fsspec

        found, inside = fsspec.core.url_to_fs(path)
    except (ImportError, ValueError) as error:
        scheme = path.partition("://")[0]
        raise StoreError(f"neither pyarrow nor an installed package of fsspec opens {scheme}:// ({error})") from error
    return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(found)), inside.rstrip("/")


def _delta_folder(path: str, filesystem: Any) -> str | None:
    """The folder of the Delta table to which a file belongs, None if there is none."""
    from pyarrow.fs import FileType

    parts = path.split("/")
    for length in range(len(parts) - 1, 0, -1):
        folder = "/".join(parts[:length])
        if folder and filesystem.get_file_info(f"{folder}/_delta_log").type == FileType.Directory:
            return folder
    return None


def _has_deletion_vectors(filesystem: Any, folder: str) -> bool:
    """Whether a Delta table's log names a deletion vector: in a commit, or in a checkpoint."""
    import pyarrow.parquet
    from pyarrow.fs import FileSelector

    for info in filesystem.get_file_info(FileSelector(f"{folder}/_delta_log", recursive=True)):
        if info.path.endswith(".json"):
            with filesystem.open_input_stream(info.path) as stream:
                lines = stream.read().decode().splitlines()
            if any((json.loads(line).get("add") or {}).get("deletionVector") for line in lines if line.strip()):
                return True
        elif info.path.endswith(".parquet"):
            table = pyarrow.parquet.read_table(info.path, filesystem=filesystem)
            added = table["add"].to_pylist() if "add" in table.column_names else []
            if any((entry or {}).get("deletionVector") for entry in added):
                return True
    return False
