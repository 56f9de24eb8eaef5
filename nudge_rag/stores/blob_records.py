"""Blobs in databases of records: each blob is one head, replaced in one call, and the parts that the head names."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from nudge_rag.errors import CorruptArchiveError
from nudge_rag.stores.history import check_blob_name, is_blob_name
from nudge_rag.stores.leases import Lease, process_lock

__all__ = ["HEAD", "LEASE", "PART", "PARTS_PER_CALL", "BlobRecord", "RecordStorage", "is_head", "part_ids"]

BYTES_PER_CALL, PARTS_PER_CALL = 4_000_000, 1_000
TRIES_TO_READ = 5
HEAD, PART, LEASE = "head", "part", "lease"
LEASE_ID = "lease"


@dataclass(frozen=True)
class BlobRecord:
    """A record in the database.

    Attributes:
        id: names it among all records of the storage.
        kind: ``head``, ``part`` or ``lease``.
        name: of the blob.
        version: of the blob's content; a head has the one that counts.
        content: text: of a part, base64; of a head, the number of parts and the checksum.
    """

    id: str
    kind: str
    name: str
    version: str
    content: str


class RecordStorage(ABC):
    """Blobs as records; subclasses say how their database writes, reads and lists them.

    Args:
        lock_key: names the lock among all locks of this process.
        part_size: characters of a part's content, at most.
        local_lock: excludes other processes, if the database is in a folder of this machine; None for a lease.
    """

    def __init__(
        self, lock_key: str, part_size: int, local_lock: Callable[[], AbstractContextManager[None]] | None = None
    ) -> None:
        self._lock_key, self._part_size, self._local_lock = lock_key, part_size, local_lock
        self._lease = Lease(_RecordOfLease(self), lock_key)

    @property
    @abstractmethod
    def location(self) -> str:
        """Name the place of the blobs, in words for messages."""

    @abstractmethod
    def put(self, records: Sequence[BlobRecord]) -> None:
        """Write or replace records, each in one step; their container is made if it is not there."""

    @abstractmethod
    def get(self, ids: Sequence[str]) -> list[BlobRecord]:
        """Those of the records that exist, in any order."""

    @abstractmethod
    def remove(self, ids: Sequence[str]) -> None:
        """Delete those of the records that exist."""

    @abstractmethod
    def listed(self, kind: str) -> list[BlobRecord]:
        """All records of a kind; their content may be left out."""

    def write(self, name: str, content: bytes) -> None:
        """Write the parts under a new version, then the head that names them, then delete the older parts."""
        check_blob_name(name)
        self._lease.check()
        version = secrets.token_hex(8)
        text = base64.b64encode(content).decode()
        size = self._part_size
        texts = [text[first : first + size] for first in range(0, len(text), size)]
        per_call = max(1, BYTES_PER_CALL // size)
        before = self._head(name)
        for first in range(0, len(texts), per_call):
            numbered = enumerate(texts[first : first + per_call], start=first)
            self.put([BlobRecord(_part_id(name, version, n), PART, name, version, part) for n, part in numbered])
        told = f"{len(texts)} {hashlib.sha256(content).hexdigest()}"
        if texts:
            # Its parts may have taken long, and a new holder deletes those that no head names.
            self._lease.check()
        self.put([BlobRecord(_head_id(name), HEAD, name, version, told)])
        if before is not None:
            self._remove_parts(before)

    def read(self, name: str) -> bytes:
        """Content of a blob.

        Raises:
            KeyError: there is no such blob.
            CorruptArchiveError: parts of it are missing or damaged.
        """
        check_blob_name(name)
        for _ in range(TRIES_TO_READ):  # it may be replaced between the calls
            head = self._head(name)
            if head is None:
                raise KeyError(name)
            content = self._content(head)
            if content is not None:
                return content
        raise CorruptArchiveError(f"{name!r} in {self.location} is damaged: parts of it are missing or were changed")

    def names(self, prefix: str = "") -> list[str]:
        """Names of all blobs that begin with ``prefix``, sorted."""
        return sorted(head.name for head in self._heads() if head.name.startswith(prefix))

    def delete(self, name: str) -> None:
        """Remove a blob; nothing happens if there is none."""
        check_blob_name(name)
        self._lease.check()
        head = self._head(name)
        if head is not None:
            self.remove([head.id])
            self._remove_parts(head)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Exclude all other holders: by the operating system if the database is a folder here, else by a lease."""
        if self._local_lock is None:
            with self._lease.hold():
                self._delete_unfinished()
                yield
            return
        with process_lock(self._lock_key), self._local_lock():
            self._delete_unfinished()
            yield

    def _delete_unfinished(self) -> None:
        """Delete parts that no head names: their writer died."""
        unnamed = self._unnamed_parts()
        # Who has taken the lock over may be in the middle of writing a blob.
        self._lease.check()
        self.remove(unnamed)

    def _unnamed_parts(self) -> list[str]:
        """Ids of the parts that no head names."""
        versions = {(head.name, head.version) for head in self._heads()}
        return [part.id for part in self.listed(PART) if (part.name, part.version) not in versions]

    def _remove_parts(self, head: BlobRecord) -> None:
        for number, ids in enumerate(part_ids(head, PARTS_PER_CALL)):
            if number:  # a damaged head may name a hundred thousand: those that are there are removed
                version = (head.name, head.version)
                self.remove([part.id for part in self.listed(PART) if (part.name, part.version) == version])
                return
            self.remove(ids)

    def _head(self, name: str) -> BlobRecord | None:
        return next((head for head in self.get([_head_id(name)]) if is_head(head) and head.name == name), None)

    def _heads(self) -> list[BlobRecord]:
        """All heads; what somebody else has put there under other names is none."""
        return [record for record in self.listed(HEAD) if is_head(record)]

    def _content(self, head: BlobRecord) -> bytes | None:
        """The content that a head names; None if it is not all there."""
        contents: list[str] = []
        for asked in part_ids(head, max(1, BYTES_PER_CALL // self._part_size)):
            found = {part.id: part.content for part in self.get(asked)}
            if not found.keys() >= set(asked):  # a damaged head may name a hundred thousand
                return None
            contents += [found[part_id] for part_id in asked]
        try:
            content = base64.b64decode("".join(contents), validate=True)
        except ValueError:
            return None
        return content if hashlib.sha256(content).hexdigest() == head.content.partition(" ")[2] else None


class _RecordOfLease:
    """The lease of a storage, in a record of its own."""

    def __init__(self, storage: RecordStorage) -> None:
        self._storage = storage

    def read(self) -> str | None:
        """Read the text of the record, or None if there is none."""
        return next((record.content for record in self._storage.get([LEASE_ID])), None)

    def write(self, text: str) -> None:
        """Replace the record."""
        self._storage.put([BlobRecord(LEASE_ID, LEASE, "", "", text)])

    def remove(self) -> None:
        """Delete the record."""
        self._storage.remove([LEASE_ID])


def _head_id(name: str) -> str:
    return f"head {name}"


def is_head(record: BlobRecord) -> bool:
    """Whether a record is the head of a blob, under the id that the blob's has."""
    return record.kind == HEAD and record.id == _head_id(record.name) and is_blob_name(record.name)


def _part_id(name: str, version: str, number: int) -> str:
    return f"part {name} {version} {number}"


def part_ids(head: BlobRecord, per_call: int) -> Iterator[list[str]]:
    """Ids of the parts that a head names, so many at a time."""
    told = head.content.partition(" ")[0]
    count = int(told) if re.fullmatch("[0-9]{1,5}", told) else 0
    for first in range(0, count, per_call):
        yield [_part_id(head.name, head.version, number) for number in range(first, min(first + per_call, count))]
