"""Nodes that a push moved and that were not in the store when it was undone or replaced.

A pipeline that deletes a row and inserts it again brings the nudge back: it is told by this record, and undone then.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from nudge_rag.common.archive import encode_arrays, parse_npz
from nudge_rag.common.arrays import FloatArray
from nudge_rag.errors import CorruptArchiveError
from nudge_rag.journal.derived import find_made
from nudge_rag.journal.versions import writing_to
from nudge_rag.stores.access import same_vectors
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.stores.history import BlobStorage

__all__ = ["AwayNodes"]

BLOB = "away.npz"


@dataclass
class AwayNodes:
    """By node id: the vector that it had when it was last seen, and its original."""

    storage: BlobStorage
    vectors: dict[str, tuple[FloatArray, FloatArray]] = field(default_factory=dict)

    @classmethod
    def read(cls, storage: BlobStorage, names: Iterable[str]) -> AwayNodes:
        """Those that are recorded in ``storage``, which holds blobs of these names.

        Raises:
            CorruptArchiveError: the record is damaged.
        """
        away = cls(storage)
        if BLOB not in names:
            return away
        place = f"{storage.location}/{BLOB}"
        try:
            with writing_to(storage, "read"):
                arrays = parse_npz(storage.read(BLOB))
            ids = json.loads(arrays["ids"].tobytes().decode("utf-8", "surrogatepass"))
            if not all(isinstance(node_id, str) for node_id in ids):
                raise ValueError("node ids are strings")
            rows = zip(ids, arrays["nudged"], arrays["originals"], strict=True)
            away.vectors = {node_id: (nudged, original) for node_id, nudged, original in rows}
        except CorruptArchiveError:
            raise
        except Exception as error:  # zipfile and numpy raise nearly anything
            raise CorruptArchiveError(f"{place} is not what nudge-rag writes: {error}") from error
        return away

    def is_back(self, store: EmbeddingStore, node_id: str, vector: FloatArray) -> bool:
        """Say whether ``vector``, which a node holds, is the nudge by which it is waited for, but for its last bits."""
        nudged = self.vectors.get(node_id, (None,))[0]
        if nudged is None or nudged.shape != vector.shape:
            return False
        if same_vectors(store, vector, nudged):
            return True
        return bool(find_made(store, vector[None], nudged[None].astype(vector.dtype, copy=False))[0])

    def add(self, rows: Iterable[tuple[str, FloatArray, FloatArray]]) -> None:
        """Record nodes (id, nudged vector, original) that are away from now on.

        Raises:
            JournalError: the journal cannot be written to.
        """
        fresh = {node_id: (nudged, original) for node_id, nudged, original in rows}
        if fresh:
            self.vectors |= fresh
            self._write()

    def drop(self, ids: Iterable[str]) -> None:
        """Forget nodes: they are back, or nobody waits for them any more.

        Raises:
            JournalError: the journal cannot be written to.
        """
        gone = [node_id for node_id in ids if self.vectors.pop(node_id, None) is not None]
        if gone:
            self._write()

    def _write(self) -> None:
        with writing_to(self.storage, "written to"):
            if not self.vectors:
                self.storage.delete(BLOB)
                return
            ids = json.dumps(list(self.vectors), ensure_ascii=False).encode("utf-8", "surrogatepass")
            nudged, originals = (np.array([pair[part] for pair in self.vectors.values()]) for part in (0, 1))
            arrays = {"ids": np.frombuffer(ids, dtype=np.uint8), "nudged": nudged, "originals": originals}
            self.storage.write(BLOB, encode_arrays(arrays))
