"""Companions of an in-memory index that has a file: its history, and the changes of other processes to the file."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from nudge_rag.common import files
from nudge_rag.common.files import FileState
from nudge_rag.common.text import preview
from nudge_rag.errors import StoreError
from nudge_rag.stores.history import BlobStorage, FolderStorage, ProcessStorage, check_blob_name, local_path

__all__ = [
    "FileChangedError",
    "FileChanges",
    "check_file",
    "file_guard",
    "history_of",
    "merge_changes",
    "save_over",
    "until_unchanged",
]

T = TypeVar("T")
SUFFIX = ".nudge-rag"
_GUARDS: dict[Path, Any] = {}


def history_of(path: Path | None, owner: Any) -> BlobStorage:
    """Return the history of ``owner``: the folder ``<path>.nudge-rag``, or in this process if there is no file.

    A link leads to the history of the file that it stands for.
    """
    if path is None:
        return ProcessStorage.of(owner)
    return FileHistory(path.resolve())


class FileHistory(FolderStorage):
    """The history of a file, in a folder next to it that is open to those to whom the file is.

    Args:
        file: the file.
    """

    def __init__(self, file: Path) -> None:
        super().__init__(file.with_name(file.name + SUFFIX))
        self._file_path = file

    def write(self, name: str, content: bytes) -> None:
        """Write a file of the folder, which is made with the first one."""
        check_blob_name(name)
        self._make()
        super().write(name, content)

    def lock(self) -> AbstractContextManager[None]:
        """Lock a file in the folder, waiting for it at most ten seconds.

        Raises:
            LockedError: another process or thread still holds it.
        """
        self._make()
        return super().lock()

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


def check_file(path: str | Path | None) -> Path | None:
    """The path of a file that an index is, or is to be, written to.

    Raises:
        ValueError: it is a folder.
    """
    if path is None:
        return None
    if Path(path).is_dir():
        raise ValueError(f"persist_path must name a file, {str(path)!r} is a folder")
    return Path(path)


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
    """

    taken: list[str]
    dropped: list[str]


def merge_changes(
    path: Path, ours: Mapping[str, Any], theirs: Mapping[str, Any], base: Mapping[str, Any] | None
) -> FileChanges:
    """Compare what is in memory with what is in the file, node by node.

    Args:
        path: the file, for messages.
        ours: nodes in memory.
        theirs: nodes in the file.
        base: nodes when the two were the same the last time; None if that is not known.

    Raises:
        StoreError: a node that is different in both, and who is right cannot be told.

    Example:
        >>> merge_changes(Path("x.json"), {"a": 1, "b": 2}, {"a": 9, "c": 3}, {"a": 1, "b": 2})
        FileChanges(taken=['a', 'c'], dropped=['b'])
    """
    taken: list[str] = []
    dropped: list[str] = []
    conflicts: list[str] = []
    for node_id in {**ours, **theirs}:
        mine, other = ours.get(node_id), theirs.get(node_id)
        if mine == other or (base is None and other is None):
            continue
        before = None if base is None else base.get(node_id)
        if mine == before:
            (dropped if other is None else taken).append(node_id)
        elif other != before:
            conflicts.append(node_id)
    if conflicts:
        raise StoreError(
            f"another process has changed {len(conflicts)} node(s) of {path} that were changed in memory too:"
            f" {preview(conflicts)}; load the store anew; nothing was written"
        )
    return FileChanges(taken, dropped)
