"""Files written so that a crash leaves the old content or the new one, and read without being led elsewhere."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nudge_rag.errors import CorruptArchiveError

__all__ = [
    "TEMPORARY",
    "default_cache_folder",
    "file_state",
    "put_in_place",
    "read_regular",
    "save_through",
    "sync_folder",
    "write_synced",
]

# Names of files that a process leaves that dies while a framework writes.
TEMPORARY = ".nudge-tmp"


def write_synced(path: Path, content: bytes) -> None:
    """Replace the file at ``path`` in one step, durably.

    A link in the way of the temporary file is removed, never followed.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with _open_new(temporary) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _open_new(path: Path) -> Any:
    """Open a file that is not there yet; what a dead process or somebody else left at its name is removed."""
    try:
        return path.open("xb")
    except FileExistsError:
        path.unlink()
        return path.open("xb")


def put_in_place(temporary: Path, path: Path) -> None:
    """Make ``temporary`` the file at ``path`` in one step, durably."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def save_through(path: Path, write: Callable[[str], Any], *, like: Path | None = None) -> None:
    """Let a framework write to a temporary file next to ``path``, then put it in place in one step.

    It gets the rights of ``like``, or else of what was there before.

    Raises:
        PermissionError: the file, or its folder, may not be written to.
    """
    for place in (path, path.parent):
        if place.exists() and not os.access(place, os.W_OK):
            raise PermissionError(errno.EACCES, "it may not be written to", str(place))
    temporary, model = path.with_name(path.name + TEMPORARY), like or path
    try:
        write(str(temporary))
        if model.exists():
            shutil.copymode(model, temporary)
        put_in_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_regular(path: Path) -> bytes:
    """Content of a regular file: a link would lead elsewhere, a pipe would never end.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        CorruptArchiveError: it is no regular file, or cannot be read.
    """
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise CorruptArchiveError(f"{path} is not a regular file")
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except (OSError, MemoryError) as error:
        raise CorruptArchiveError(f"{path} cannot be read: {error or 'it is too large'}") from error


def sync_folder(folder: Path) -> None:
    """Make a rename durable; Windows has no folder handles to sync."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def default_cache_folder() -> Path:
    """Return ``nudge-rag`` in the user's cache folder (``XDG_CACHE_HOME``, else ``~/.cache``)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nudge-rag"


def file_state(path: Path) -> tuple[int, int, int] | None:
    """What changes whenever somebody writes the file; None if there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
