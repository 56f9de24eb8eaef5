"""Companions of an in-memory index that has a file: its history, and the changes of other processes to the file."""

from __future__ import annotations

import json
import os
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from nudge_rag.common import files
from nudge_rag.common.files import FileState
from nudge_rag.common.text import preview
from nudge_rag.errors import StoreError
from nudge_rag.stores.history import BlobStorage, check_blob_name, local_path
from nudge_rag.stores.storages import FolderStorage, ProcessStorage

__all__ = [
    "FileChangedError",
    "FileChanges",
    "check_file",
    "file_guard",
    "file_of",
    "history_of",
    "merge_changes",
    "save_over",
    "until_unchanged",
]

T = TypeVar("T")
SUFFIX = ".nudge-rag"
_GUARDS: dict[Path, Any] = {}
# By the id of a framework's object: the file that it was opened with last in this process.
_FILES: dict[int, Path] = {}


def history_of(path: Path | None, owner: Any) -> BlobStorage:
    """Return the history of ``owner``: the folder ``<path>.nudge-rag``, or in this process if there is no file."""
    if path is None:
        return ProcessStorage.of(owner)
    return FileHistory(path, ProcessStorage.of(owner))


class FileHistory(FolderStorage):
    """The history of a file, in a folder next to it that is open to those to whom the file is.

    What was pushed before the file was known, and is over, is taken over from memory with the first lock.

    Args:
        file: the file.
        in_memory: the history of pushes to the same object that were made without the file.
    """

    def __init__(self, file: Path, in_memory: BlobStorage) -> None:
        super().__init__(file.with_name(file.name + SUFFIX))
        self._file_path, self.in_memory = file, in_memory

    def write(self, name: str, content: bytes) -> None:
        """Write a file of the folder, which is made with the first one."""
        check_blob_name(name)
        self._make()
        super().write(name, content)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock a file in the folder, waiting for it at most ten seconds.

        Raises:
            LockedError: another process or thread still holds it.
        """
        self._make()
        with super().lock():
            if not self.names():
                for name in self.in_memory.names():
                    self.write(name, self.in_memory.read(name))
                    self.in_memory.delete(name)
            yield

    def place(self) -> Path | None:
        """The folder."""
        return local_path(str(self.path))

    def neighbors(self) -> list[tuple[BlobStorage, str]]:
        """The histories of other files in this file's folder, which may have had their names."""
        found = sorted(self.path.parent.glob(f"*{SUFFIX}")) if self.path.parent.is_dir() else []
        advice = f"Move that folder to {self.path}, or copy it if the other file is in use as well"
        return [(FolderStorage(folder), advice) for folder in found if folder != self.path and folder.is_dir()]

    def _make(self) -> None:
        if not self.path.is_dir() and self._file_path.exists():
            mode = self._file_path.stat().st_mode & 0o666
            self.path.mkdir(mode=0o700, exist_ok=True)
            # Who may read the file may enter the folder.
            self.path.chmod(0o700 | mode | (mode & 0o444) >> 2)


def file_of(owner: Any, path: str | Path | None) -> Path | None:
    """The file that changes of ``owner`` are written through to; without a path, the one it was opened with before.

    So a path that is forgotten once leads to no second history.

    Args:
        owner: the framework's object.
        path: as `check_file` takes it.
    """
    file = check_file(path)
    if file is None:
        known = _FILES.get(id(owner))
        return known if known is not None and known.is_file() and not ProcessStorage.of(owner).names() else None
    if id(owner) not in _FILES:
        weakref.finalize(owner, _FILES.pop, id(owner), None)
    _FILES[id(owner)] = file
    return file


def check_file(path: str | Path | None) -> Path | None:
    """The path of a file that an index was saved to, whatever the working folder will be; links are followed.

    Raises:
        TypeError: it is no path.
        ValueError: it is a folder, or there is no such file.
    """
    if path is None:
        return None
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"persist_path must be a string or a path, got {type(path).__name__}")
    file = Path(path).resolve()
    if file.is_dir():
        raise ValueError(f"persist_path must name a file, {str(path)!r} is a folder")
    if not file.is_file():
        raise ValueError(
            f"persist_path names {str(path)!r}, and there is no such file: save the store there by its framework first"
        )
    return file


def file_guard(path: Path | None) -> AbstractContextManager[Any]:
    """Return the lock of this process on a file, which a thread may take again; without a file, there is none.

    In the middle of a write or switch, file and memory differ: a thread that compared them would take the difference
    for the change of another process.
    """
    if path is None:
        return nullcontext()
    guard: AbstractContextManager[Any] = _GUARDS.setdefault(path.resolve(), threading.RLock())
    return guard


class FileChangedError(StoreError):
    """Another process has written to the file since it was read: nothing was written."""


def save_over(path: Path, write: Callable[[str], Any], expected: FileState | None) -> FileState | None:
    """Write a file over the one that was read last, whose state is ``expected``; the state that it has then.

    Raises:
        FileChangedError: another process has written to it since.
    """
    state = files.save_through(path, write, put=lambda temporary, place: files.put_over(temporary, place, expected))
    if state is None:
        raise FileChangedError(f"another process has just written to {path}; nothing was written")
    return state


def until_unchanged(action: Callable[[], T]) -> T:
    """Do something to a file, anew whenever another process was faster.

    Raises:
        FileChangedError: others write to it without a pause.
    """
    deadline = time.monotonic() + files.SECONDS_TO_WAIT
    while time.monotonic() < deadline:
        try:
            return action()
        except FileChangedError:
            continue
    return action()


@dataclass(frozen=True)
class FileChanges:
    """What a process must do to have in memory what others have written to the file.

    Attributes:
        taken: ids of nodes to take from the file.
        dropped: ids of nodes that others have deleted.
        kept: ids of nodes that only this process has changed, added or deleted, and not saved.
    """

    taken: list[str]
    dropped: list[str]
    kept: list[str]


def merge_changes(
    path: Path,
    ours: Mapping[str, Any],
    theirs: Mapping[str, Any],
    base: Mapping[str, Any] | None,
    held: Collection[str] = (),
) -> FileChanges:
    """Compare what is in memory with what is in the file, node by node.

    Args:
        path: the file, for messages.
        ours: nodes in memory.
        theirs: nodes in the file.
        base: nodes of the file when the two were compared the last time; None if they never were.
        held: ids of nodes that were in memory when the store was opened; those that are not any more were deleted.

    Raises:
        StoreError: a node is different in both, or in memory alone, and who is right cannot be told.

    Example:
        >>> merge_changes(Path("x.json"), {"a": 1, "b": 2}, {"a": 9, "c": 3}, {"a": 1, "b": 2})
        FileChanges(taken=['a', 'c'], dropped=['b'], kept=[])
    """
    taken: list[str] = []
    dropped: list[str] = []
    kept: list[str] = []
    conflicts: list[str] = []
    unsaved: list[str] = []
    for node_id in {**ours, **theirs}:
        mine, other = ours.get(node_id), theirs.get(node_id)
        if mine == other:
            continue
        if base is None and other is None:
            unsaved.append(node_id)
            continue
        before = None if base is None else base.get(node_id)
        if (base is None and mine is None and node_id in held) or (mine != before and other == before):
            kept.append(node_id)
        elif mine == before:
            (dropped if other is None else taken).append(node_id)
        elif _as_saved(mine) != _as_saved(other):
            conflicts.append(node_id)
    if conflicts and base is None:
        raise StoreError(
            f"{len(conflicts)} node(s) are not the same in {path} and in memory, and whose are newer cannot be told:"
            f" {preview(conflicts)}; load the store anew, or save it by its framework; nothing was written"
        )
    if conflicts:
        raise StoreError(
            f"another process has changed {len(conflicts)} node(s) of {path} that were changed in memory too:"
            f" {preview(conflicts)}; load the store anew; nothing was written"
        )
    if unsaved:
        raise StoreError(
            f"{len(unsaved)} node(s) are in memory and not in {path}: {preview(unsaved)}. Another process has deleted"
            " them, or they were never saved: load the store anew, or save it by its framework; nothing was written"
        )
    return FileChanges(taken, dropped, kept)


def _as_saved(entry: Any) -> Any:
    """What a file keeps of an entry: a tuple is a list, and NaN is itself."""
    try:
        return json.dumps(entry, sort_keys=True)
    except (TypeError, ValueError):
        return entry
