"""Copies of an in-memory index, kept in memory or, if the index has a file, in files next to it.

Both are swapped in four steps: `prepare`, `make_live`, the caller's exchange of the contents in memory, and `settle`.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from nudge_rag.common import files
from nudge_rag.common.files import OLD, TEMPORARY, FileState
from nudge_rag.stores.checks import check_label
from nudge_rag.stores.copies import unknown_copy
from nudge_rag.stores.memory.files import FileChangedError

__all__ = ["Copies", "companion", "versions_of"]

T = TypeVar("T")
# A second file of a version: its node ids, if the first file does not hold them.
COMPANION = ".ids"
IN_MEMORY: dict[int, dict[str, Any]] = {}


class Copies(Protocol[T]):
    """The copies of one index, by label."""

    def labels(self) -> list[str]:
        """Labels of all copies."""
        ...

    def get(self, label: str) -> T:
        """Return the version ``label``.

        Raises:
            ValueError: there is none.
        """
        ...

    def path(self, label: str) -> Path | None:
        """The file of that version, if it has one."""
        ...

    def put(self, label: str, version: T) -> None:
        """Keep ``version`` under that label."""
        ...

    def prepare(self, label: str, incoming: T, outgoing: T) -> None:
        """Do the slow part of a switch; a switch that stops after it has changed nothing."""
        ...

    def make_live(self, label: str, expected: FileState | None) -> FileState | None:
        """Take the one step of a switch, if the file is as expected; the state that it has then.

        Raises:
            FileChangedError: another process has written to the file; nothing was switched.
        """
        ...

    def settle(self, label: str, outgoing: T) -> None:
        """Make the version that was live the version ``label``."""
        ...

    def drop(self, label: str) -> None:
        """Forget the version ``label``.

        Raises:
            ValueError: there is none.
        """
        ...


def versions_of(
    owner: Any, path: Path | None, save: Callable[[Any, Path], None], load: Callable[[Path], Any]
) -> Copies[Any]:
    """Return the copies of the contents of ``owner``: in files next to ``path``, or in memory if it is None."""
    return InMemory(owner) if path is None else InFiles(path, save, load)


class InMemory(Generic[T]):
    """Copies that end with ``owner``, and are the same for all who ask for those of it."""

    def __init__(self, owner: Any) -> None:
        if id(owner) not in IN_MEMORY:
            weakref.finalize(owner, IN_MEMORY.pop, id(owner), None)
        self._versions: dict[str, T] = IN_MEMORY.setdefault(id(owner), {})

    def labels(self) -> list[str]:
        """Labels of all copies."""
        return list(self._versions)

    def get(self, label: str) -> T:
        """The version ``label``."""
        return self._versions[_known(label, self.labels())]

    def path(self, label: str) -> None:
        """There is no file."""

    def put(self, label: str, version: T) -> None:
        """Keep ``version``."""
        self._versions[check_label(label)] = version

    def prepare(self, label: str, incoming: T, outgoing: T) -> None:
        """There is nothing to do."""

    def make_live(self, label: str, expected: FileState | None) -> FileState | None:
        """That is the caller's exchange."""
        return None

    def settle(self, label: str, outgoing: T) -> None:
        """Keep the version that was live."""
        self._versions[label] = outgoing

    def drop(self, label: str) -> None:
        """Forget the copy."""
        del self._versions[_known(label, self.labels())]


class InFiles(Generic[T]):
    """Copies in the files ``<path>.beside_<label>``.

    A switch writes what is live to ``<path>.switching_<label>``, then moves the file of the copy over ``path``. After a
    crash, the absence of that file shows that the switch had taken place.
    """

    def __init__(self, path: Path, save: Callable[[T, Path], None], load: Callable[[Path], T]) -> None:
        self._path, self._save, self._load = path, save, load

    def labels(self) -> list[str]:
        """Labels of all copies."""
        return sorted({label for label, _, end in self._files() if not end})

    def get(self, label: str) -> T:
        """The copy ``label``, read from its file."""
        return self._load(self.path(label))

    def path(self, label: str) -> Path:
        """The file of that copy."""
        place = self._place(_known(label, self.labels()))
        return place if place.exists() else self._outgoing(label)

    def put(self, label: str, version: T) -> None:
        """Write ``version``, a copy, to its file."""
        place = self._place(check_label(label))
        self._tidy()
        self._save(version, place)

    def prepare(self, label: str, incoming: T, outgoing: T) -> None:
        """Write both as they are now: their texts and metadata may have changed since they were copied."""
        self._tidy()
        self._save(outgoing, self._outgoing(label))
        self._save(incoming, self._place(label))

    def make_live(self, label: str, expected: FileState | None) -> FileState | None:
        """Move the version's file over the live one.

        Raises:
            FileChangedError: another process has written to that one; nothing was switched.
        """
        state = files.put_over(self._place(label), self._path, expected)
        if state is None:
            raise FileChangedError(f"another process has just written to {self._path}; nothing was switched")
        return state

    def settle(self, label: str, outgoing: T) -> None:
        """Move the file of the version that was live to the place of the other one."""
        self._tidy()

    def drop(self, label: str) -> None:
        """Delete the file."""
        self._tidy()
        place = self.path(label)
        place.unlink()
        companion(place).unlink(missing_ok=True)

    def _place(self, label: str) -> Path:
        return self._path.with_name(f"{self._path.name}.beside_{label}")

    def _outgoing(self, label: str) -> Path:
        return self._path.with_name(f"{self._path.name}.switching_{label}")

    def _tidy(self) -> None:
        """Complete switches that were cut off after their one step; delete leftovers of any cut off before."""
        for label, file, end in self._files():
            if file == self._outgoing(label):
                if self._place(label).exists():
                    file.unlink()
                else:
                    files.put_in_place(file, self._place(label))
            elif end.endswith((TEMPORARY, OLD)):
                file.unlink()
        for _, file, end in self._files():
            if end == COMPANION and not file.with_name(file.name.removesuffix(COMPANION)).exists():
                file.unlink()

    def _files(self) -> Iterator[tuple[str, Path, str]]:
        """Label, path, and the end of its name after the label."""
        if not self._path.parent.is_dir():
            return
        ends = f"((?:{re.escape(COMPANION)})?(?:{re.escape(TEMPORARY)}|{re.escape(OLD)})?)"
        pattern = re.compile(re.escape(self._path.name) + r"\.(?:beside|switching)_([A-Za-z0-9_]{1,24})" + ends)
        for file in list(self._path.parent.iterdir()):
            match = pattern.fullmatch(file.name)
            if match:
                yield match[1], file, match[2]


def companion(path: Path) -> Path:
    """Return the path of the second file of the version in ``path``."""
    return path.with_name(path.name + COMPANION)


def _known(label: str, labels: list[str]) -> str:
    if check_label(label) not in labels:
        raise unknown_copy(label, labels, "this store")
    return label
