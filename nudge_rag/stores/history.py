"""Named blobs and one lock: how a store's history is written, whatever holds it.

A store that can hold its own history implements `HistoryStore`; a folder (`storages.FolderStorage`) serves all others.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, runtime_checkable

from nudge_rag.errors import StoreError

__all__ = [
    "BlobStorage",
    "CountedStorage",
    "FiledStorage",
    "HistoriesOfTables",
    "HistoryStore",
    "NeighboringStorage",
    "OrphanedStorage",
    "PlacedStorage",
    "TransactionalStore",
    "WitnessedStorage",
    "check_blob_name",
    "copy_advice",
    "is_blob_name",
    "local_path",
    "unwritable_history",
]

SEGMENT = r"[A-Za-z0-9][A-Za-z0-9._-]*"


class BlobStorage(Protocol):
    """Named blobs and one lock: the storage of a store's history.

    A name is segments of letters, digits, ``.``, ``_`` and ``-`` (the first a letter or digit), joined by ``/``.
    """

    @property
    def location(self) -> str:
        """Name the place of the blobs, in words for messages; no secret in it."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Write a blob, or replace it, atomically and durably."""
        ...

    def read(self, name: str) -> bytes:
        """Read the content of a blob.

        Raises:
            KeyError: there is none.
        """
        ...

    def names(self, prefix: str = "") -> list[str]:
        """Names of all blobs that begin with ``prefix``, sorted."""
        ...

    def delete(self, name: str) -> None:
        """Remove a blob; nothing happens if there is none."""
        ...

    def lock(self) -> AbstractContextManager[None]:
        """Exclude all other holders, of every process and machine that shares the storage.

        Raises:
            LockedError: another holder keeps it for too long.
        """
        ...


@runtime_checkable
class NeighboringStorage(Protocol):
    """A storage that a store leaves behind if it is copied, or renamed, inside its database alone."""

    def names(self, prefix: str = "") -> list[str]:
        """Names of all blobs that begin with ``prefix``, sorted."""
        ...

    def neighbors(self) -> list[tuple[BlobStorage, str]]:
        """Histories that the store may have left behind, each with a sentence on how to bring it to the store."""
        ...


@runtime_checkable
class OrphanedStorage(Protocol):
    """A storage in a database that keeps the histories of tables or collections that are gone."""

    def orphans(self) -> list[BlobStorage]:
        """Histories whose stores were dropped: this one may have been built anew in the place of one."""
        ...


@runtime_checkable
class WitnessedStorage(Protocol):
    """A storage of which the nodes' table tells that it once held something."""

    def is_emptied(self) -> bool:
        """Say whether nothing is left of what it once held."""
        ...


@runtime_checkable
class CountedStorage(Protocol):
    """A storage of which the nodes' table tells how many pushes were recorded in it."""

    def n_counted(self) -> int:
        """Number that `count` was called with last; 0 if it never was."""
        ...

    def count(self, n_pushes: int) -> None:
        """Keep a number of pushes with the nodes' table."""
        ...


@runtime_checkable
class PlacedStorage(Protocol):
    """A storage in a file or folder of this machine, which somebody may copy with the vectors that are in it."""

    def place(self) -> Path | None:
        """The file or folder; None if it is a server's, or in memory."""
        ...


@runtime_checkable
class FiledStorage(Protocol):
    """A storage beside a file, to whose store somebody may have pushed before he named the file.

    Attributes:
        in_memory: the history of such pushes.
    """

    in_memory: BlobStorage


@runtime_checkable
class HistoryStore(Protocol):
    """A store that holds its own history, with its vectors."""

    def history(self) -> BlobStorage:
        """Storage that creates nothing before the first write."""
        ...


@runtime_checkable
class TransactionalStore(Protocol):
    """A store whose history and vectors can be written in one transaction of the database."""

    def transaction(self) -> AbstractContextManager[None]:
        """Let everything that is written inside, vectors and history, become visible together or not at all."""
        ...


def check_blob_name(name: str) -> str:
    """Return ``name`` if it is fit for a blob.

    Raises:
        ValueError: it is not, for instance because it would lead out of a folder.

    Example:
        >>> check_blob_name("0001/manifest.json")
        '0001/manifest.json'
    """
    if not is_blob_name(name):
        raise ValueError(f"a blob's name is letters, digits, '.', '_' and '-' in segments joined by '/', got {name!r}")
    return name


def is_blob_name(name: object) -> bool:
    """Whether `check_blob_name` takes it.

    Example:
        >>> is_blob_name("0001/manifest.json"), is_blob_name("../secrets")
        (True, False)
    """
    return isinstance(name, str) and re.fullmatch(rf"{SEGMENT}(/{SEGMENT})*", name) is not None


def local_path(place: str | None) -> Path | None:
    """The path that ``place`` is, if it is an absolute one, and there."""
    path = None if place is None else Path(place)
    return path if path is not None and path.is_absolute() and path.exists() else None


def copy_advice(origin: str) -> str:
    """How the history of ``origin`` comes to a copy of it, whether the origin is still there or not."""
    return (
        f"If it is a copy of {origin}, or that under another name, call nudge_rag.take_over(store): its originals are"
        " copied"
    )


class HistoriesOfTables(ABC):
    """The histories of other tables, for one that lies in a table of the database beside them."""

    @abstractmethod
    def _others(self) -> list[tuple[BlobStorage, str | None]]:
        """Return the histories of other tables, and the names of these; None for those that are gone."""

    def neighbors(self) -> list[tuple[BlobStorage, str]]:
        """The histories of other tables, also of those that are gone: from one of them this table may be made."""
        return [
            (storage, copy_advice("a table that is gone" if table is None else f"the table {table}"))
            for storage, table in self._others()
        ]

    def orphans(self) -> list[BlobStorage]:
        """The histories of tables that are gone."""
        return [storage for storage, table in self._others() if table is None]


def unwritable_history(location: str, error: Exception) -> StoreError:
    """Return the error for a table of a database that was opened for reading alone."""
    return StoreError(
        f"{location}, which is to hold the history of pushes, cannot be written to: {error}; open the database for"
        " writing, or keep the history in a folder with versions=PATH"
    )
