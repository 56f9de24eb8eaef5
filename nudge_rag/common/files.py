"""Files written so that a crash leaves the old content or the new one, and read without being led elsewhere."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from nudge_rag.errors import CorruptArchiveError, StoreError

__all__ = [
    "OLD",
    "TEMPORARY",
    "FileState",
    "default_cache_folder",
    "file_state",
    "load_whole",
    "put_in_place",
    "put_over",
    "read_regular",
    "save_through",
    "sync_folder",
    "write_synced",
]

# Names of files that a process leaves that dies while a framework writes.
TEMPORARY = ".nudge-tmp"
# The second name of a file while another takes its place.
OLD = ".nudge-old"
# Somebody who writes to a file in place has changed it within these seconds; after them, what cannot be read stays so.
SECONDS_TO_WRITE = 2.0
SECONDS_TO_WAIT = 10.0
BETWEEN_LOOKS = 0.01
T = TypeVar("T")
# What changes whenever somebody writes to a file: the time of the last change, the size, and its number.
FileState = tuple[int, int, int]


def write_synced(path: Path, content: bytes) -> None:
    """Replace the file at ``path`` in one step, durably.

    A link in the way of the temporary file is removed, never followed.
    """
    temporary = path.with_name(path.name + ".tmp")
    if temporary.is_dir() and not temporary.is_symlink():
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
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


def put_over(temporary: Path, path: Path, expected: FileState | None) -> FileState | None:
    """Make ``temporary`` the file at ``path`` if the one that is there is as ``expected``.

    Somebody who writes to a file in place, as the frameworks do, may have opened it just before it is replaced, and his
    contents would be gone with it. The old file therefore keeps a second name until the new one is there: if it has
    changed by then, it is put back.

    Args:
        temporary: the new file, which stays if nothing was replaced.
        path: the file to replace.
        expected: its state when it was read last; None if there was none.

    Returns:
        The state of the new file; None if somebody has written to the old one, which is in place again.
    """
    old = path.with_name(path.name + OLD)
    state = file_state(temporary)
    if expected is None or not _link(path, old):
        if file_state(path) != expected:
            return None
        put_in_place(temporary, path)
        return state
    try:
        if file_state(old) != expected:
            return None
        put_in_place(temporary, path)
        if file_state(old) == expected:
            return state
        old.replace(path)
        sync_folder(path.parent)
        return None
    finally:
        old.unlink(missing_ok=True)


def _link(path: Path, old: Path) -> bool:
    """Give a file a second name; whether there is such a file, and the file system knows second names."""
    old.unlink(missing_ok=True)
    try:
        old.hardlink_to(path)
    except OSError:
        return False
    return True


def save_through(
    path: Path,
    write: Callable[[str], Any],
    *,
    like: Path | None = None,
    put: Callable[[Path, Path], T] | None = None,
) -> T | None:
    """Let a framework write to a temporary file next to ``path``, then put it in place in one step.

    It gets the rights of ``like``, or else of what was there before.

    Args:
        path: the file.
        write: writes to the file that it is given.
        like: the file whose rights it gets.
        put: puts it in place, of two paths; default `put_in_place`.

    Returns:
        What ``put`` returned.

    Raises:
        PermissionError: the file, or its folder, may not be written to.
    """
    for place in (path, path.parent):
        if place.exists() and not os.access(place, os.W_OK):
            raise PermissionError(errno.EACCES, "it may not be written to", str(place))
    temporary, model = path.with_name(path.name + TEMPORARY), like or path
    try:
        # A link that somebody has planted there would be followed.
        _open_new(temporary).close()
        write(str(temporary))
        if model.exists():
            shutil.copymode(model, temporary)
        if put is not None:
            return put(temporary, path)
        put_in_place(temporary, path)
        return None
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


def load_whole(path: Path, load: Callable[[Path], T]) -> tuple[T, FileState | None]:
    """Load a file into which somebody may be writing: what is read of half a file is read again.

    Args:
        path: the file.
        load: reads it; raises whatever it likes for one that is not whole.

    Returns:
        What ``load`` returned, and the state of the file that it read.

    Raises:
        Exception: that of ``load``, for a file that nobody has written to for two seconds.
        StoreError: others write to it all the time.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a"
        >>> size = path.write_bytes(b"whole")
        >>> load_whole(path, Path.read_bytes)[0]
        b'whole'
    """
    deadline = time.monotonic() + SECONDS_TO_WAIT
    while time.monotonic() < deadline:
        state = file_state(path)
        try:
            loaded = load(path)
        except Exception:
            now = file_state(path)
            if now == state and (now is None or abs(time.time() - now[0] / 1e9) > SECONDS_TO_WRITE):
                raise
        else:
            if file_state(path) == state:
                return loaded, state
        time.sleep(BETWEEN_LOOKS)
    raise StoreError(
        f"{path} was written to by others for {SECONDS_TO_WAIT:g} seconds without a pause: it was not read"
    )


def file_state(path: Path) -> FileState | None:
    """What changes whenever somebody writes the file; None if there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
