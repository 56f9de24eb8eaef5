"""Nodes that were mapped before they were added to a store: their vectors, and those that the model had given.

Nobody knows the ids of nodes while their texts are embedded. They are known again by the bits of their vectors.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import uuid4

import numpy as np

from nudge_rag.common.archive import CorruptArchiveError, encode_arrays, parse_npz, sha256_of
from nudge_rag.common.arrays import FloatArray, IntArray
from nudge_rag.journal.storage import writing_to
from nudge_rag.stores.history import BlobStorage

__all__ = ["FOLDER", "IngestedNodes"]

FOLDER = "ingested"
# Vectors are recorded before whoever embedded their texts adds them: so long they may still come.
SECONDS_TO_ADD = 86_400.0


class IngestedNodes:
    """The record of mapped vectors and their originals, read when it is first asked.

    Args:
        storage: of the history.
        names: of all blobs in it.

    Example:
        >>> from nudge_rag.stores.storages import ProcessStorage
        >>> storage = ProcessStorage()
        >>> IngestedNodes(storage).add(np.array([[1.0, 0.0]]), np.array([[0.6, 0.8]]))
        >>> again = IngestedNodes(storage, storage.names())
        >>> again.originals_of(np.array([[0.0, 1.0], [0.6, 0.8]]))
        (array([1]), array([[1., 0.]]))
    """

    def __init__(self, storage: BlobStorage, names: Iterable[str] = ()) -> None:
        self._storage = storage
        self._names = sorted(name for name in names if name.startswith(f"{FOLDER}/"))
        self._known: dict[bytes, FloatArray] | None = None

    def __bool__(self) -> bool:
        """Whether anything is recorded; nothing is read for that."""
        return bool(self._names)

    def look_again(self) -> None:
        """Take notice of what was recorded since: whoever adds documents records them first, and takes no lock.

        So vectors that were read from a store before this call are known.

        Raises:
            CorruptArchiveError: the record is damaged.
            JournalError: it cannot be read.
        """
        with writing_to(self._storage, "read"):
            found = self._storage.names(f"{FOLDER}/")
        new = sorted(set(found).difference(self._names))
        self._names += new
        if self._known is not None:
            self._known.update(self._read_pairs(new))

    def check(self) -> None:
        """Read the record.

        Raises:
            CorruptArchiveError: it is damaged.
            JournalError: it cannot be read.
        """
        self._load()

    def add(self, originals: FloatArray, mapped: FloatArray) -> None:
        """Record vectors (n, d) as the store will keep them, durably; without the lock, which ingestion does not take.

        Raises:
            JournalError: the history cannot be written to.
        """
        content = encode_arrays({"originals": originals, "mapped": mapped, "created": np.array([time.time()])})
        name = f"{FOLDER}/{uuid4().hex[:12]}-{sha256_of(content)[:16]}.npz"
        with writing_to(self._storage, "written to"):
            self._storage.write(name, content)
        self._names.append(name)
        self._known = None

    def originals_of(self, vectors: FloatArray) -> tuple[IntArray, FloatArray]:
        """Return which rows of ``vectors`` are recorded as mapped, and their originals.

        Raises:
            CorruptArchiveError: the record is damaged.
            JournalError: it cannot be read.
        """
        known = self._load()
        rows = [row for row, vector in enumerate(vectors) if vector.tobytes() in known] if known else []
        found = [known[vectors[row].tobytes()] for row in rows]
        return np.array(rows, dtype=np.int64), np.array(found, dtype=vectors.dtype).reshape(-1, vectors.shape[1])

    def forget(self, restored: FloatArray) -> None:
        """Delete the record of vectors that have been restored, and of those that nobody has added within a day.

        Args:
            restored: (n, d) mapped vectors that nodes held.

        Raises:
            CorruptArchiveError: the record is damaged.
            JournalError: the history cannot be written to.
        """
        done, kept = {vector.tobytes() for vector in restored}, []
        for name in self._names:
            arrays = self._read(name)
            # Records of earlier releases do not say when they were made.
            is_old = "created" not in arrays or time.time() - float(arrays["created"][0]) > SECONDS_TO_ADD
            if is_old or all(vector.tobytes() in done for vector in arrays["mapped"]):
                with writing_to(self._storage, "written to"):
                    self._storage.delete(name)
            else:
                kept.append(name)
        self._names, self._known = kept, None

    def _load(self) -> dict[bytes, FloatArray]:
        if self._known is None:
            self._known = self._read_pairs(self._names)
        return self._known

    def _read_pairs(self, names: Sequence[str]) -> dict[bytes, FloatArray]:
        """Originals by the bits of what a map made of them."""
        known: dict[bytes, FloatArray] = {}
        for name in names:
            arrays = self._read(name)
            pairs: Sequence[Any] = list(zip(arrays["mapped"], arrays["originals"], strict=True))
            known.update((mapped.tobytes(), original) for mapped, original in pairs)
        return known

    def _read(self, name: str) -> dict[str, Any]:
        place = f"{self._storage.location}/{name}"
        try:
            with writing_to(self._storage, "read"):
                content = self._storage.read(name)
        except KeyError:
            raise CorruptArchiveError(f"{place} is missing") from None
        if sha256_of(content)[:16] != name.rpartition("-")[2].removesuffix(".npz"):
            raise CorruptArchiveError(f"{place} does not match the checksum in its name")
        try:
            arrays = parse_npz(content)
            if arrays["mapped"].shape != arrays["originals"].shape or arrays["mapped"].ndim != 2:
                raise ValueError("its arrays are not of one shape")
            if "created" in arrays and arrays["created"].shape != (1,):
                raise ValueError("it does not say when it was made")
        except Exception as error:  # zipfile and numpy raise nearly anything
            raise CorruptArchiveError(f"{place} is not what nudge-rag writes: {error}") from error
        return arrays
