"""What this library keeps beside Parquet files: rewritten files, the list of those that count, and the history."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakSet

from nudge_rag.common import files, lock
from nudge_rag.errors import CorruptArchiveError, LockedError
from nudge_rag.stores.history import BlobStorage
from nudge_rag.stores.leases import process_lock
from nudge_rag.stores.parquet.filesystems import FileState, delete_file, forget, list_inside
from nudge_rag.stores.parquet.records import FileRecords, read_record, write_record
from nudge_rag.stores.storages import FolderStorage

__all__ = ["LIVE", "SnapshotFolder", "Snapshots", "View"]

LIVE = ""
FORMAT = 1
STATE, REWRITTEN, HISTORY, LOCKING = "state.json", "snapshots", "history", "lock"


@dataclass(frozen=True)
class Replacement:
    """A file of ours that stands for one of the user's.

    Attributes:
        file: its path.
        of: the state of the user's file that it was made from: as soon as that is another one, it counts again.
    """

    file: str
    of: FileState


View = Mapping[str, Replacement]


@dataclass(frozen=True)
class Snapshots:
    """Which files stand for which of the user's, in the live version and in each copy.

    Attributes:
        views: by label, `LIVE` for the live version: the replacement of each of the user's files that has one, by name.
        last: files that counted until the last change: who reads them now is not disturbed.
    """

    views: Mapping[str, View] = field(default_factory=dict)
    last: frozenset[str] = frozenset()

    def view(self, label: str) -> View:
        """The replacements of a version."""
        return self.views.get(label, {})

    def changed(self, views: Mapping[str, View]) -> Snapshots:
        """With other versions."""
        return Snapshots(views, frozenset(self.files))

    @property
    def files(self) -> set[str]:
        """Our files that count."""
        return {replacement.file for view in self.views.values() for replacement in view.values()}


class SnapshotFolder:
    """A folder beside the user's files.

    ``state.json`` says which of our files stand for which of the user's: to replace it is the one step of every write
    and of every switch. A process that dies before it leaves the old versions, one that dies after it the new ones.

    Args:
        filesystem: Arrow's.
        path: the folder.
    """

    def __init__(self, filesystem: Any, path: str) -> None:
        import pyarrow.fs

        self.filesystem, self.path = filesystem, path
        self.local = Path(path) if isinstance(filesystem, pyarrow.fs.LocalFileSystem) else None
        self._locking = None if self.local else FileRecords(filesystem, f"{path}/{LOCKING}")
        self._names: dict[str, str] = {}
        self._histories: WeakSet[FileRecords] = WeakSet()

    def __reduce__(self) -> tuple[type[SnapshotFolder], tuple[Any, str]]:
        """In another process it holds no lock."""
        return SnapshotFolder, (self.filesystem, self.path)

    def load(self) -> Snapshots:
        """Read what counts now.

        Raises:
            CorruptArchiveError: the file that says so is damaged.
        """
        content = read_record(self.filesystem, f"{self.path}/{STATE}")
        if content is None:
            return Snapshots()
        try:
            stored = json.loads(content)
            if stored["format"] != FORMAT:
                raise ValueError(f"its format is {stored['format']!r}, this version reads {FORMAT}")
            views = {str(label): self._view_of(entries) for label, entries in stored["views"].items()}
            return Snapshots(views, frozenset(self._ours(path) for path in stored["last"]))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CorruptArchiveError(f"{self.path}/{STATE} is damaged: {error}") from error

    def save(self, snapshots: Snapshots) -> None:
        """Make other files count, in one step; then delete those of ours that nobody reads any more.

        Raises:
            LockedError: this process was stopped for so long that another has taken its lock, or that of the history.
        """
        views = {
            label: {
                name: {"file": self._inside(one.file), "size": one.of.size, "modified": one.of.modified}
                for name, one in view.items()
            }
            for label, view in snapshots.views.items()
        }
        last = sorted(self._inside(path) for path in snapshots.last)
        if self._locking is not None:
            self._locking.check()
        # A push that was stopped before it got this lock has lost that of the history.
        for history in list(self._histories):
            history.check()
        content = json.dumps({"format": FORMAT, "views": views, "last": last}).encode()
        if self.local is not None:
            files.write_synced(self.local / STATE, content)
        else:
            write_record(self.filesystem, f"{self.path}/{STATE}", content)
        self._delete_others(snapshots)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Exclude all other writers: by the operating system on this machine, else by a lease.

        Raises:
            LockedError: another holds it for too long.
        """
        if self.local is None or self._locking is not None:
            with self._locking.hold():  # type: ignore[union-attr]
                yield
            return
        with process_lock(f"parquet {self.local}"), lock.locked(self.local, f"a write to {self.local.name}"):
            yield

    def history(self) -> BlobStorage:
        """Storage of the history."""
        place = f"{self.path}/{HISTORY}"
        if self.local is not None:
            return FolderStorage(place)
        records = FileRecords(self.filesystem, place, self._names)
        self._histories.add(records)
        return records

    @property
    def rewritten(self) -> str:
        """The folder of the folders of rewritten files."""
        return f"{self.path}/{REWRITTEN}"

    def new_folder(self) -> str:
        """A folder for rewritten files that is not there yet."""
        return f"{self.rewritten}/{secrets.token_hex(8)}"

    def _view_of(self, entries: Any) -> dict[str, Replacement]:
        return {
            str(name): Replacement(self._ours(entry["file"]), FileState(int(entry["size"]), int(entry["modified"])))
            for name, entry in entries.items()
        }

    def _inside(self, path: str) -> str:
        """A path of ours within the folder, so that the folder may be moved with the data."""
        return path.removeprefix(f"{self.path}/")

    def _ours(self, path: Any) -> str:
        """The path of a file of ours."""
        parts = str(path).split("/")
        if parts[0] != REWRITTEN or len(parts) < 3 or not all(parts) or {".", ".."} & set(parts):
            raise ValueError(f"{path!r} is not a file in its folder of rewritten files")
        return f"{self.path}/{path}"

    def _delete_others(self, snapshots: Snapshots) -> None:
        from pyarrow.fs import FileType

        kept = snapshots.files | snapshots.last
        forget(self.filesystem)
        found = list_inside(self.filesystem, self.rewritten, may_be_missing=True)
        if self._locking is not None:
            try:
                # After the list: who has taken the lock over may have written files that are in it.
                self._locking.check()
            except LockedError:
                return
        for info in found:
            inside = info.path.endswith("/") or any(path.startswith(f"{info.path}/") for path in kept)
            # What cannot be deleted now is found by the next write.
            with contextlib.suppress(OSError):
                if info.type == FileType.File and info.path not in kept:
                    delete_file(self.filesystem, info.path)
                elif info.type == FileType.Directory and not inside:
                    self.filesystem.delete_dir(info.path)


def scope_of(vector_column: str) -> str:
    """A folder's name that tells the columns of vectors of the same files apart.

    Example:
        >>> scope_of("embedding")
        'embedding'
    """
    if re.fullmatch(r"[A-Za-z0-9_]{1,60}", vector_column):
        return vector_column
    return f"column-{hashlib.sha256(vector_column.encode()).hexdigest()[:16]}"
