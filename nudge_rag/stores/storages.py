"""Where histories are kept if not in a database: files in a folder, or the memory of this process."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, ClassVar

from nudge_rag.common import files, lock
from nudge_rag.errors import CorruptArchiveError, JournalAccessError, JournalError, LockedError
from nudge_rag.stores.history import check_blob_name, is_blob_name

__all__ = ["FolderStorage", "ProcessStorage"]

LOCK_FILE = "lock"
UNFINISHED = ".tmp"


class FolderStorage:
    """Blobs as files in a folder, made with the first write; the lock is the operating system's.

    Args:
        path: the folder; files in it that are not named as a blob are left alone.

    Example:
        >>> import tempfile
        >>> storage = FolderStorage(Path(tempfile.mkdtemp()) / "history")
        >>> storage.names()
        []
        >>> storage.write("0001/manifest.json", b"{}")
        >>> storage.names(), storage.read("0001/manifest.json")
        (['0001/manifest.json'], b'{}')
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def location(self) -> str:
        """The folder, as it was given."""
        return f"the folder {self.path}"

    def write(self, name: str, content: bytes) -> None:
        """Write a file and sync it before it takes the place of an older one."""
        target = self._file(name)
        if not target.parent.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
            files.sync_folder(target.parent.parent)
        try:
            files.write_synced(target, content)
        except BaseException:
            with contextlib.suppress(OSError):
                target.parent.rmdir()  # only if it is empty
            raise

    def read(self, name: str) -> bytes:
        """Content of a file.

        Raises:
            KeyError: there is no such file.
            CorruptArchiveError: it is a link or a pipe, lies behind a link, or cannot be read.
        """
        target = self._file(name)
        if target.is_dir() and not target.is_symlink():
            raise KeyError(name)
        try:
            return files.read_regular(target)
        except FileNotFoundError:
            raise KeyError(name) from None

    def names(self, prefix: str = "") -> list[str]:
        """Names of all files, sorted; an empty folder is named as well, since its name is taken.

        Raises:
            JournalAccessError: the system lets a folder not be listed, whose files would pass for missing.
            JournalError: there is something else in the folder's place, or it cannot be listed for another reason.
        """
        try:
            return sorted(name for name in self._names() if name.startswith(prefix))
        except OSError as error:
            kind = JournalAccessError if isinstance(error, PermissionError) else JournalError
            raise kind(f"the journal cannot be read ({error}), in {self.location}") from error

    def delete(self, name: str) -> None:
        """Remove a file, or an empty folder, and its folder if that is empty then."""
        target = self._file(name)
        if target.is_dir() and not target.is_symlink():
            target.rmdir()
        else:
            target.unlink(missing_ok=True)
        if target.parent != self.path:
            with contextlib.suppress(OSError):
                target.parent.rmdir()

    def lock(self) -> AbstractContextManager[None]:
        """Lock a file in the folder, waiting for it at most ten seconds.

        Raises:
            LockedError: another holder keeps it for too long.
        """
        return lock.locked(self.path, f"a push or rollback on {self.path.name}")

    def _names(self) -> Iterator[str]:
        for place, folders, entries in os.walk(self.path, onerror=_raise_unless_missing):
            inside = Path(place).relative_to(self.path)
            for folder in list(folders):
                if (Path(place) / folder).is_symlink():
                    folders.remove(folder)
                    entries.append(folder)
            kept = [entry for entry in entries if not entry.endswith(UNFINISHED)]
            if not kept and not folders:
                kept, inside = [inside.name], inside.parent
            for entry in kept:
                name = (inside / entry).as_posix()
                if name != LOCK_FILE and is_blob_name(name):
                    yield name

    def _file(self, name: str) -> Path:
        path = self.path
        for segment in check_blob_name(name).split("/"):
            if path != self.path and path.is_symlink():
                raise CorruptArchiveError(f"{path} is a link: it would lead out of {self.location}")
            path = path / segment
        return path


def _raise_unless_missing(error: OSError) -> None:
    """Raise what `os.walk` passes over, unless a folder is not there, or no longer."""
    if not isinstance(error, FileNotFoundError):
        raise error


class ProcessStorage:
    """Blobs in the memory of this process, for a store that is nowhere else.

    Attributes:
        is_told: whether somebody was warned that they end with the process.

    Example:
        >>> storage = ProcessStorage()
        >>> storage.write("0001/manifest.json", b"{}")
        >>> storage.names("0001/")
        ['0001/manifest.json']
    """

    _of_objects: ClassVar[dict[int, ProcessStorage]] = {}

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}
        self._lock = threading.Lock()
        self.is_told = False

    @classmethod
    def of(cls, owner: Any) -> ProcessStorage:
        """The one storage of an object, which ends with it."""
        if id(owner) not in cls._of_objects:
            weakref.finalize(owner, cls._of_objects.pop, id(owner), None)
        return cls._of_objects.setdefault(id(owner), cls())

    @property
    def location(self) -> str:
        """That it is not on disk."""
        return "the memory of this process"

    def write(self, name: str, content: bytes) -> None:
        """Keep a copy of ``content``."""
        self._blobs[check_blob_name(name)] = bytes(content)

    def read(self, name: str) -> bytes:
        """Read the content of a blob.

        Raises:
            KeyError: there is none.
        """
        return self._blobs[check_blob_name(name)]

    def names(self, prefix: str = "") -> list[str]:
        """Names of all blobs, sorted."""
        return sorted(name for name in list(self._blobs) if name.startswith(prefix))

    def delete(self, name: str) -> None:
        """Forget a blob."""
        self._blobs.pop(check_blob_name(name), None)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Exclude other threads, waiting for them at most ten seconds.

        Raises:
            LockedError: another holder keeps it for too long.
        """
        if not self._lock.acquire(timeout=lock.SECONDS_TO_WAIT):
            raise LockedError("a push or rollback is under way in another thread: nothing was written; try again later")
        try:
            yield
        finally:
            self._lock.release()
