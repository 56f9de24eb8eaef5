"""What is asked of a file system of Arrow or fsspec, in as few requests as it takes: each costs some 30 ms in S3."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "FileState",
    "create_file",
    "delete_file",
    "forget",
    "fsspec_of",
    "is_read_at_once",
    "list_inside",
    "look_at",
    "opened",
    "read_content",
    "state_of",
]

NANOSECONDS = 1_000_000_000
WHOLE_SECONDS = ("abfs", "gcs", "s3")
# A file that is read whole, in one request: the parts that are needed of it would take several.
BYTES_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class FileState:
    """A file as it is now; whoever writes it changes that.

    Attributes:
        size: in bytes.
        modified: when it was last written, in nanoseconds.
    """

    size: int
    modified: int


def state_of(filesystem: Any, info: Any) -> FileState:
    """The state of a file, of which Arrow knows this.

    Object stores list times to the millisecond and tell them to the second if asked for one file, or know no others:
    theirs are cut to the second. A file system of fsspec may know a time that Arrow does not ask it for.
    """
    modified, fsspec = info.mtime_ns, fsspec_of(filesystem)
    if modified is None and fsspec is not None and info.is_file:
        with contextlib.suppress(NotImplementedError):
            modified = int(fsspec.modified(info.path).timestamp()) * NANOSECONDS
    if filesystem.type_name in WHOLE_SECONDS:
        modified = (modified or 0) // NANOSECONDS * NANOSECONDS
    return FileState(info.size or 0, modified or 0)


def look_at(filesystem: Any, paths: Sequence[str]) -> list[Any]:
    """Arrow's information on files or folders, also on those that are not there; of s3fs with their times."""
    fsspec = fsspec_of(filesystem)
    if fsspec is None:
        return list(filesystem.get_file_info(list(paths)))
    return [_look_at(fsspec, path) for path in paths]


def list_inside(filesystem: Any, folder: str, *, recursive: bool = True, may_be_missing: bool = False) -> list[Any]:
    """Arrow's information on what is in a folder; of s3fs with the times of files.

    Raises:
        OSError: it is not there, or no folder; an object store has no empty ones.
    """
    from pyarrow.fs import FileSelector

    fsspec = fsspec_of(filesystem)
    if fsspec is None:
        selector = FileSelector(folder, allow_not_found=may_be_missing, recursive=recursive)
        return list(filesystem.get_file_info(selector))
    if recursive and _finds_at_once(fsspec):
        found = list(fsspec.find(folder, withdirs=True, detail=True).values())
    else:
        found = list(_walk(fsspec, folder, recursive))
    # The folder itself may be among them, or be a file.
    inside = [_info_from(details["name"], details) for details in found if not _is_same(details["name"], folder)]
    if not inside and not may_be_missing and not fsspec.isdir(folder):
        raise FileNotFoundError(folder)
    return inside


def _finds_at_once(fsspec: Any) -> bool:
    """Whether a file system lists all that is in a folder by a way of its own, as s3fs does in one request."""
    from fsspec import AbstractFileSystem
    from fsspec.asyn import AsyncFileSystem

    kind = type(fsspec)
    if isinstance(fsspec, AsyncFileSystem):
        return kind._find is not AsyncFileSystem._find
    return bool(kind.find is not AbstractFileSystem.find)


def _walk(fsspec: Any, folder: str, recursive: bool) -> Iterator[Mapping[str, Any]]:
    """What is in a folder: find of fsspec takes one that cannot be listed for empty."""
    try:
        found = fsspec.ls(folder, detail=True)
    except FileNotFoundError:
        return
    for details in found:
        yield details
        if recursive and details["type"] == "directory" and not _is_same(details["name"], folder):
            yield from _walk(fsspec, details["name"], recursive)


def _is_same(path: str, other: str) -> bool:
    return path.strip("/") == other.strip("/")


def _look_at(fsspec: Any, path: str) -> Any:
    from pyarrow.fs import FileInfo, FileType

    try:
        return _info_from(path, fsspec.info(path))
    except FileNotFoundError:
        return FileInfo(path, FileType.NotFound)


def _info_from(path: str, details: Mapping[str, Any]) -> Any:
    """As pyarrow makes it, but with the time of s3fs, which it leaves out and `state_of` would ask for once more."""
    from pyarrow.fs import FileInfo, FileType

    kind = {"file": FileType.File, "directory": FileType.Directory}.get(details["type"], FileType.Unknown)
    modified, told = details.get("mtime"), details.get("LastModified")
    if modified is None and kind == FileType.File and isinstance(told, datetime.datetime):
        modified = float(int(told.timestamp()))
    return FileInfo(path, kind, size=None if kind == FileType.Directory else details["size"], mtime=modified)


def is_read_at_once(filesystem: Any, size: int) -> bool:
    """Whether all of a file is read in one request: a small one, and not on this machine, where a part costs less."""
    import pyarrow.fs

    return 0 < size <= BYTES_AT_ONCE and not isinstance(filesystem, pyarrow.fs.LocalFileSystem)


def read_content(filesystem: Any, path: str) -> bytes:
    """All of a file; an object store answers it in one request, with the content of one moment.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    fsspec = fsspec_of(filesystem)
    if fsspec is not None:
        # From the first byte on: s3fs asks for the size before it reads what has no bounds.
        try:
            return bytes(fsspec.cat_file(path, start=0))
        except FileNotFoundError:
            raise
        except OSError:
            # An empty object has no first byte.
            return bytes(fsspec.cat_file(path))
    with filesystem.open_input_file(path) as file:
        return bytes(file.read())


def opened(filesystem: Any, path: str, size: int) -> Any:
    """A file to read Parquet from; a small one is read at once, in one request.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    import pyarrow

    forget(filesystem)
    if is_read_at_once(filesystem, size):
        return pyarrow.BufferReader(read_content(filesystem, path))
    return filesystem.open_input_file(path)


def create_file(filesystem: Any, path: str) -> Any:
    """A stream into a new file, whose folder is made if there is need for one: in an object store there is none."""
    try:
        return filesystem.open_output_stream(path)
    except FileNotFoundError:
        filesystem.create_dir(path.rpartition("/")[0], recursive=True)
        return filesystem.open_output_stream(path)


def delete_file(filesystem: Any, path: str) -> None:
    """Delete a file.

    Raises:
        OSError: it is not there, which not all file systems tell, or cannot be deleted.
    """
    fsspec = fsspec_of(filesystem)
    if fsspec is not None:
        with contextlib.suppress(NotImplementedError):
            fsspec.rm_file(path)
            return
    filesystem.delete_file(path)


def forget(filesystem: Any) -> None:
    """Let a file system of fsspec look again: it remembers what it has listed, whatever others write."""
    fsspec = fsspec_of(filesystem)
    if fsspec is not None:
        fsspec.invalidate_cache()


def fsspec_of(filesystem: Any) -> Any:
    """The file system of fsspec in one of Arrow's; None if there is none in it."""
    import pyarrow.fs

    if not isinstance(filesystem, pyarrow.fs.PyFileSystem):
        return None
    return getattr(filesystem.handler, "fs", None)
