"""The user's Parquet files: where they are, and which of them there are now."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nudge_rag.errors import StoreError
from nudge_rag.stores.location import hide, secrets_in
from nudge_rag.stores.parquet import tables
from nudge_rag.stores.parquet.filesystems import FileState, forget, fsspec_of, list_inside, look_at, state_of

__all__ = ["OF_ARROW", "SourceFiles", "resolve", "uris_of"]

# What is written beside files is in a folder with their name and this.
BESIDE = ".nudge-rag"
HIDDEN = ("_", ".")
# In whose paths a bucket comes first; by pyarrow, and by fsspec.
WITH_BUCKETS = re.compile(r"abfs|gcs|s3|py::fsspec\+.*\b(abfs|abfss|adl|az|gcs|gs|oss|r2|s3|s3a)\b.*")
ENDINGS = (".parquet", ".parq", ".pq")
# Whose URIs pyarrow reads; another package that it refuses one to might take a login in it for a name.
OF_ARROW = ("abfs", "abfss", "gcs", "gs", "hdfs", "s3", "viewfs")


@dataclass(frozen=True)
class SourceFiles:
    """A folder of Parquet files, one file, or a list of files.

    Attributes:
        filesystem: Arrow's.
        root: the folder or file; None for a list.
        listed: the files of a list.
        folders: the root, once it is known to be a folder, which need not be asked for again.
    """

    filesystem: Any
    root: str | None
    listed: tuple[str, ...] = ()
    folders: set[str] = field(default_factory=set, repr=False, compare=False)

    def now(self) -> dict[str, FileState]:
        """Path and state of each file, in the order of their paths; those of a list in its order.

        Raises:
            ValueError: there is none, or they belong to a table that is more than its files.
        """
        from pyarrow.fs import FileType

        forget(self.filesystem)
        found = look_at(self.filesystem, self.listed) if self.root is None else self._at_root(self.root)
        missing = [info.path for info in found if info.type != FileType.File]
        if missing or not found:
            where = missing[0] if missing else f"{self.root}: names of files end in {', '.join(ENDINGS)}"
            raise ValueError(f"there is no Parquet file at {where}")
        return {info.path: state_of(self.filesystem, info) for info in found}

    def _at_root(self, root: str) -> list[Any]:
        """What is known of each file of a folder, or of the one file that the root is."""
        from pyarrow.fs import FileType

        if root not in self.folders:
            (info,) = look_at(self.filesystem, [root])
            if info.type != FileType.Directory:
                return [info]
            self.folders.add(root)
        try:
            inside = list_inside(self.filesystem, root)
        except OSError:
            # It is gone, or a file by now.
            self.folders.discard(root)
            (info,) = look_at(self.filesystem, [root])
            if info.type == FileType.Directory:
                raise
            return [info]
        tables.check_folder([self._inside(info.path) for info in inside], root)
        inside = [info for info in inside if info.type == FileType.File and self._counts(info.path)]
        return sorted(inside, key=lambda info: str(info.path))

    def _counts(self, path: str) -> bool:
        return path.lower().endswith(ENDINGS) and self._is_data(path)

    def _is_data(self, path: str) -> bool:
        """Whether a path is of the data: what begins with _ or . is not, as for Arrow and Spark, nor what is ours."""
        return not any(part.startswith(HIDDEN) or part.endswith(BESIDE) for part in self._inside(path).split("/"))

    def place_beside(self, beside: str | Path | None, filesystem: Any = None) -> str | None:
        """The folder for what is written: the one that is given, or one beside the files; None if there is no such.

        Args:
            beside: on ``filesystem``, or a URI.
            filesystem: as it was given; None if none was.

        Raises:
            ValueError: one on another file system, or where what is in it would be taken for the user's.
        """
        if beside is None:
            has_none = self.root is None or ("/" not in self.root and WITH_BUCKETS.fullmatch(self.filesystem.type_name))
            return None if has_none else f"{self.root}{BESIDE}"
        place = _place_of(beside, self.filesystem, self.filesystem if filesystem is None else filesystem)
        if self.root is not None and f"{place}/".startswith(f"{self.root}/") and self._is_data(place):
            raise ValueError(
                f"beside={place} is in {self.root}, and its files would count as yours: begin its name with _ or ."
            )
        return place

    def check_tables(self) -> None:
        """Check that the files are all that there is to say about them: that no table marks rows of them as deleted.

        Raises:
            ValueError: they are in a table of Iceberg or Delta, and a list of its files is needed; or it has deletions.
        """
        if self.root is None:
            tables.check_files(self.filesystem, self.listed)
        else:
            tables.check_above(self.filesystem, self.root)

    def _inside(self, path: str) -> str:
        return path.removeprefix(str(self.root)).strip("/")


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


def _place_of(path: str | Path, filesystem: Any, given: Any) -> str:
    """A folder's path on the file system of the files: of a URI, or on the one that was given.

    Raises:
        ValueError: a URI of another file system.
    """
    if "://" not in str(path):
        return _unwrapped(given, str(path))[1]
    found, inside = _located(str(path), None)
    if found.type_name != filesystem.type_name:
        raise ValueError(
            f"beside must be on the file system of the files, {filesystem.type_name}, not {found.type_name}"
        )
    return inside


def uris_of(source: Any) -> list[str]:
    """Those of what a user gives as source that are URIs: they may hold a password."""
    given = [source] if isinstance(source, str | Path) else list(source) if isinstance(source, Sequence) else []
    return [str(one) for one in given if "://" in str(one)]


def _unwrapped(filesystem: Any, path: str) -> tuple[Any, str]:
    """Arrow's file system and a path in it, spelled in one way, whatever is wrapped around it: it names the history."""
    import pyarrow.fs

    fsspec = fsspec_of(filesystem) if isinstance(filesystem, pyarrow.fs.FileSystem) else filesystem
    if fsspec is not None:
        path = str(fsspec._strip_protocol(path))
        protocols = (fsspec.protocol,) if isinstance(fsspec.protocol, str) else tuple(fsspec.protocol)
        if "dir" in protocols and hasattr(fsspec, "fs"):
            return _unwrapped(fsspec.fs, f"{fsspec.path}/{path}")
        local = "file" in protocols
        filesystem = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(fsspec))
    elif isinstance(filesystem, pyarrow.fs.SubTreeFileSystem):
        return _unwrapped(filesystem.base_fs, f"{filesystem.base_path.rstrip('/')}/{path}")
    else:
        local = isinstance(filesystem, pyarrow.fs.LocalFileSystem)
        path = filesystem.normalize_path(path)
    if local:
        return pyarrow.fs.LocalFileSystem(), str(Path(path).resolve())
    return filesystem, path.rstrip("/")


def _located(path: str, filesystem: Any) -> tuple[Any, str]:
    import pyarrow
    import pyarrow.fs

    if filesystem is not None:
        return _unwrapped(filesystem, path)
    if "://" not in path:
        return pyarrow.fs.LocalFileSystem(), str(Path(path).resolve())
    scheme = path.partition("://")[0]
    try:
        found, inside = _of_arrow(path)
        return found, inside.rstrip("/")
    except pyarrow.ArrowInvalid as error:
        if scheme in OF_ARROW:
            told = f"{error} (a space in one is %20, a percent sign %25)"
            raise ValueError(f"this is no URI of {scheme}:// for pyarrow: {told}") from error
    except NotImplementedError:
        pass
    try:
        import fsspec

        found, inside = fsspec.core.url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise StoreError(f"neither pyarrow nor an installed package of fsspec opens {scheme}:// ({error})") from error
    if ":" in path.partition("://")[2].rpartition("@")[0] and hide(inside, secrets_in(path)) != inside:
        raise ValueError(f"a login in a URI of {scheme}:// would be part of every path: give filesystem= instead")
    return _unwrapped(found, inside)


def _of_arrow(uri: str) -> tuple[Any, str]:
    """Arrow's file system of a URI, and the path; one of S3 writes a small file in one request if pyarrow knows how."""
    import pyarrow
    import pyarrow.fs

    if uri.startswith("s3://") and "allow_delayed_open" not in uri and "#" not in uri:
        with contextlib.suppress(pyarrow.ArrowInvalid):
            found, path = pyarrow.fs.FileSystem.from_uri(f"{uri}{'&' if '?' in uri else '?'}allow_delayed_open=true")
            return found, str(path)
    found, path = pyarrow.fs.FileSystem.from_uri(uri)
    return found, str(path)
