"""Records as files on any file system that puts whole files in place, such as an object store."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from nudge_rag.stores.blob_records import (
    HEAD,
    LEASE,
    PART,
    PARTS_PER_CALL,
    BlobRecord,
    RecordStorage,
    is_head,
    part_ids,
)
from nudge_rag.stores.parquet.filesystems import create_file, delete_file, forget, list_inside, read_content

__all__ = ["FileRecords", "read_record", "write_record"]

PART_SIZE = 64_000_000
READS = 10


class FileRecords(RecordStorage):
    """Blobs as files on any file system that puts whole files in place, such as an object store; locked by a lease.

    Args:
        filesystem: Arrow's.
        folder: its folder.
        names: the names of blobs by the paths of their heads, which stay the same; who shares it reads each once.
    """

    def __init__(self, filesystem: Any, folder: str, names: dict[str, str] | None = None) -> None:
        super().__init__(f"parquet {folder}", PART_SIZE)
        self._filesystem, self._folder = filesystem, folder
        self._names = {} if names is None else names

    @property
    def location(self) -> str:
        """The folder."""
        return self._folder

    def put(self, records: Sequence[BlobRecord]) -> None:
        """Write or replace records."""
        for record in records:
            write_record(self._filesystem, self._place(record.id), json.dumps(vars(record)).encode())

    def get(self, ids: Sequence[str]) -> list[BlobRecord]:
        """Those of the records that exist."""
        return self._read([self._place(record_id) for record_id in ids])

    def remove(self, ids: Sequence[str]) -> None:
        """Delete those of the records that exist."""
        for record_id in ids:
            with contextlib.suppress(FileNotFoundError):
                delete_file(self._filesystem, self._place(record_id))

    def listed(self, kind: str) -> list[BlobRecord]:
        """All records of a kind."""
        return self._read(self._paths()[kind])

    def names(self, prefix: str = "") -> list[str]:
        """Names of all blobs that begin with ``prefix``, sorted; of blobs that are known, the heads are not read."""
        paths = self._paths()[HEAD]
        for path in paths:
            if path not in self._names:
                for head in self._read([path]):
                    if is_head(head) and self._place(head.id) == path:
                        self._names[path] = head.name
        known = [self._names[path] for path in paths if path in self._names]
        return sorted(name for name in known if name.startswith(prefix))

    @contextmanager
    def hold(self) -> Iterator[None]:
        """As `lock`, of a folder that holds no blobs."""
        with self._lease.hold():
            yield

    def check(self) -> None:
        """Raise LockedError if this process has lost what it held."""
        self._lease.check()

    def _unnamed_parts(self) -> list[str]:
        """Parts that no head names, if there are more parts than heads: not to read all of them each time."""
        paths = self._paths()
        if len(paths[PART]) <= len(paths[HEAD]):
            return []
        heads = [head for head in self._read(paths[HEAD]) if is_head(head)]
        named = {self._place(part_id) for head in heads for ids in part_ids(head, PARTS_PER_CALL) for part_id in ids}
        versions = {(head.name, head.version) for head in heads}
        others = self._read([path for path in paths[PART] if path not in named])
        return [part.id for part in others if (part.name, part.version) not in versions]

    def _paths(self) -> dict[str, list[str]]:
        """The paths of records by their kind."""
        forget(self._filesystem)
        found = list_inside(self._filesystem, self._folder, recursive=False, may_be_missing=True)
        return {kind: [i.path for i in found if i.base_name.startswith(f"{kind}-")] for kind in (HEAD, PART, LEASE)}

    def _read(self, paths: Sequence[str]) -> list[BlobRecord]:
        contents = [read_record(self._filesystem, path) for path in paths]
        return [BlobRecord(**json.loads(content)) for content in contents if content]

    def _place(self, record_id: str) -> str:
        kind = record_id.partition(" ")[0]
        return f"{self._folder}/{kind}-{hashlib.sha256(record_id.encode()).hexdigest()[:32]}.json"


def read_record(filesystem: Any, path: str) -> bytes | None:
    """Content of a file, None if there is none; of one that is replaced while it is read, the new content.

    fsspec asks an object store for the content that it saw when it opened the file, and says that it is busy if there
    is another one by now.
    """
    for left in range(READS, 0, -1):
        forget(filesystem)
        try:
            return read_content(filesystem, path)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno != errno.EBUSY or left == 1:
                raise
    return None


def write_record(filesystem: Any, path: str, content: bytes) -> None:
    """Write a file, in place of what is there: in one step, if the file system is as such are expected to be."""
    with create_file(filesystem, path) as stream:
        stream.write(content)
