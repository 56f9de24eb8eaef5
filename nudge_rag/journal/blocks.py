"""The record of a push of all nodes, block by block: never more than a few thousand of its vectors are in memory.

Blobs: ``<number>/block-<block>-<checksum>.npz``, each with ids and vectors of its nodes, and, once all of them are
there, ``<number>/index-<checksum>.npz``, which says in which block a node is.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nudge_rag.common.archive import CorruptArchiveError, encode_arrays, parse_npz, sha256_of
from nudge_rag.journal.coding import Vectors, decode, encode
from nudge_rag.journal.storage import writing_to
from nudge_rag.stores.history import BlobStorage

__all__ = ["Block", "BlockRecord", "IdIndex", "nodes_per_block"]

# Of one array of a block: 8 MB of float32.
NUMBERS_PER_BLOCK = 2_000_000
BLOCK, INDEX = "block", "index"
CHECKSUM_DIGITS = 16
# Blocks that are kept in memory: nodes are mostly asked for in the order in which they were written.
BLOCKS_KEPT = 2

Array = np.ndarray[Any, np.dtype[Any]]


def nodes_per_block(dimension: int) -> int:
    """Number of nodes in a block.

    Example:
        >>> nodes_per_block(384), nodes_per_block(3072)
        (5208, 651)
    """
    return max(1, NUMBERS_PER_BLOCK // max(1, dimension))


@dataclass(frozen=True)
class Block:
    """Some nodes of a push.

    Attributes:
        ids: of the nodes.
        vectors: of these nodes.
    """

    ids: tuple[str, ...]
    vectors: Vectors


class IdIndex:
    """Where ids are, by 64 bits of each: 16 bytes a node, whatever the length of the ids.

    Two of ten million ids have the same 64 bits once in 400,000 times; whoever asks compares the ids that are there.

    Args:
        hashes: of ids, in the order of their places.

    Example:
        >>> index = IdIndex(hash_ids(["a", "b", "c"]))
        >>> index.places(["c", "x", "a"]).tolist()
        [2, -1, 0]
    """

    def __init__(self, hashes: Array) -> None:
        self._order = np.argsort(hashes, kind="stable").astype(np.int64)
        self._sorted = hashes[self._order]

    def __len__(self) -> int:
        return len(self._sorted)

    def places(self, ids: Sequence[str]) -> Array:
        """Place of each id, the last one if it is there twice; -1 for one that is not there."""
        return self.places_by_hash(hash_ids(ids))

    def places_by_hash(self, asked: Array) -> Array:
        """As `places`, of ids that are hashed."""
        if not len(self._sorted):
            return np.full(len(asked), -1, dtype=np.int64)
        at = np.maximum(np.searchsorted(self._sorted, asked, side="right") - 1, 0)
        return np.where(self._sorted[at] == asked, self._order[at], -1)


def hash_ids(ids: Sequence[str]) -> Array:
    """64 bits of each id."""
    digests = b"".join(
        hashlib.blake2b(node_id.encode("utf-8", "surrogatepass"), digest_size=8).digest() for node_id in ids
    )
    return np.frombuffer(digests, dtype=np.uint64)


class BlockRecord:
    """The blocks of one version.

    Args:
        storage: the storage of the history.
        version: name of the version.
        dimension: of the vectors.
        count: number of blocks, if the record is complete; None for one whose push has not finished. There may be
            more: of nodes that were added later, in whose midst a process died.
    """

    def __init__(self, storage: BlobStorage, version: str, dimension: int, count: int | None = None) -> None:
        self._storage, self._version, self._dimension, self._count = storage, version, dimension, count
        self._names: list[str] | None = None
        self._hashes: list[Array] | None = None
        self._kept: OrderedDict[int, Block] = OrderedDict()
        self._index: IdIndex | None = None
        self._starts: Array = np.zeros(1, dtype=np.int64)

    @staticmethod
    def owns(blob: str) -> bool:
        """Whether a blob of a version, named without it, is one of a block record."""
        return re.fullmatch(rf"({BLOCK}-\d{{5,}}|{INDEX})-[0-9a-f]{{{CHECKSUM_DIGITS}}}\.npz", blob) is not None

    def __len__(self) -> int:
        """Return the number of blocks.

        Raises:
            CorruptArchiveError: some are missing, or are there twice.
        """
        return len(self._listed())

    def __iter__(self) -> Iterator[Block]:
        """All blocks, one after the other, without nodes that a later one records anew.

        Raises:
            CorruptArchiveError: one is missing or damaged.
        """
        for number in range(len(self)):
            block = self._read(number)
            rows = np.flatnonzero(self._places(block.ids) == self._starts[number] + np.arange(len(block.ids)))
            if len(rows) < len(block.ids):
                vectors = Vectors(*(part[rows] for part in _parts(block.vectors)))
                block = Block(tuple(block.ids[row] for row in rows), vectors)
            yield block

    def add(self, ids: Sequence[str], vectors: Vectors) -> None:
        """Record one more block, durably."""
        number, hashes = len(self), self._hashes_of_blocks()
        fields, arrays = encode(ids, vectors)
        described = json.dumps({"ids": list(ids), "number": number, **fields}, ensure_ascii=False)
        arrays["described"] = np.frombuffer(described.encode("utf-8", "surrogatepass"), dtype=np.uint8)
        name = self._write(f"{BLOCK}-{number:05d}", arrays)
        self._names = [*self._listed(), name]
        self._hashes = [*hashes, hash_ids(ids)]
        self._index = None

    def finish(self) -> tuple[int, int]:
        """Record in which block each node is; numbers of blocks and nodes."""
        parts = self._hashes_of_blocks()
        sizes = np.array([len(part) for part in parts], dtype=np.int64)
        hashes = np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint64)
        before = self._indexes()
        name = self._write(INDEX, {"hashes": hashes, "sizes": sizes})
        with writing_to(self._storage, "written to"):
            for other in before:
                if other != name:
                    self._storage.delete(f"{self._version}/{other}")
        self._count, self._index = len(parts), None
        return len(parts), int((self._places_by_hash(hashes) == np.arange(len(hashes))).sum())

    def drop(self) -> None:
        """Delete everything, as of a process that died."""
        with writing_to(self._storage, "written to"):
            for name in self._blobs():
                self._storage.delete(f"{self._version}/{name}")
        self._names, self._index, self._count, self._hashes = None, None, None, None
        self._kept.clear()

    def find(self, ids: Sequence[str]) -> tuple[Array, Block]:
        """Return which of ``ids`` are recorded, as rows, and their vectors in the same order.

        Raises:
            CorruptArchiveError: a block is missing or damaged.
        """
        places = self._places(ids)
        known = np.flatnonzero(places >= 0)
        numbers = np.searchsorted(self._starts, places[known], side="right") - 1
        found_rows: list[int] = []
        parts: list[Vectors] = []
        for number in np.unique(numbers).tolist():
            block = self._read(number)
            asked = known[numbers == number]
            inside = places[asked] - self._starts[number]
            true = [at for at, row in enumerate(inside) if block.ids[row] == ids[asked[at]]]
            found_rows += asked[true].tolist()
            parts.append(Vectors(*(part[inside[true]] for part in _parts(block.vectors))))
        rows = np.array(found_rows, dtype=np.int64)
        return rows, Block(tuple(ids[row] for row in found_rows), _joined(parts, self._dimension))

    def knows(self, ids: Sequence[str]) -> Array:
        """Say for each id whether it is recorded; by 64 bits of it, without reading a block."""
        return np.asarray(self._places(ids) >= 0)

    def _places(self, ids: Sequence[str]) -> Array:
        """Place of each id among the nodes of all blocks; -1 for one that is not there."""
        return self._places_by_hash(hash_ids(ids))

    def _places_by_hash(self, asked: Array) -> Array:
        if self._index is None:
            parts = self._hashes_of_blocks()
            self._starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
            self._index = IdIndex(np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint64))
        return self._index.places_by_hash(asked)

    def _hashes_of_blocks(self) -> list[Array]:
        """The hashed ids of each block: of the index, or of the blocks themselves if it was not written yet."""
        if self._hashes is None:
            found: list[Array] = []
            for name in self._indexes():
                arrays = self._checked(name)
                hashes, sizes = arrays.get("hashes"), arrays.get("sizes")
                if hashes is None or sizes is None or int(sizes.sum()) != len(hashes) or len(sizes) > len(self):
                    raise CorruptArchiveError(f"{self._place(name)} is not the index of these blocks")
                if len(sizes) > len(found):
                    found = np.split(hashes, np.cumsum(sizes)[:-1])
            self._hashes = found + [hash_ids(self._read(number).ids) for number in range(len(found), len(self))]
        return self._hashes

    def _indexes(self) -> list[str]:
        return [name for name in self._blobs() if name.startswith(f"{INDEX}-")]

    def _listed(self) -> list[str]:
        """Names of the blocks, in order."""
        if self._names is None:
            blocks = sorted(name for name in self._blobs() if name.startswith(f"{BLOCK}-"))
            numbers = [int(name.split("-")[1]) for name in blocks]
            count = max(self._count or 0, len(blocks))
            if numbers != list(range(count)):
                raise CorruptArchiveError(
                    f"{self._place('')} is not the record of a push: it has {len(blocks)} blocks of nodes, expected"
                    f" {count}"
                )
            self._names = blocks
        return self._names

    def _blobs(self) -> list[str]:
        start = f"{self._version}/"
        with writing_to(self._storage, "read"):
            names = [name.removeprefix(start) for name in self._storage.names(start)]
        return [name for name in names if self.owns(name)]

    def _read(self, number: int) -> Block:
        if number not in self._kept:
            name = self._listed()[number]
            arrays = self._checked(name)
            try:
                described = json.loads(arrays.pop("described").tobytes().decode("utf-8", "surrogatepass"))
                ids = _checked_ids(described, number)
                block = Block(ids, decode(ids, self._dimension, described, arrays))
            except (KeyError, ValueError, TypeError, MemoryError) as error:
                raise CorruptArchiveError(f"{self._place(name)} is not a block of nodes: {error}") from error
            self._kept[number] = block
            while len(self._kept) > BLOCKS_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(number)
        return self._kept[number]

    def _write(self, name: str, arrays: Mapping[str, Array]) -> str:
        content = encode_arrays(arrays)
        named = f"{name}-{sha256_of(content)[:CHECKSUM_DIGITS]}.npz"
        with writing_to(self._storage, "written to"):
            self._storage.write(f"{self._version}/{named}", content)
        return named

    def _checked(self, name: str) -> dict[str, Array]:
        place = self._place(name)
        try:
            with writing_to(self._storage, "read"):
                content = self._storage.read(f"{self._version}/{name}")
        except KeyError:
            raise CorruptArchiveError(f"{place} is missing") from None
        if sha256_of(content)[:CHECKSUM_DIGITS] != name.rpartition("-")[2].removesuffix(".npz"):
            raise CorruptArchiveError(f"{place} does not match the checksum in its name")
        try:
            return parse_npz(content)
        except Exception as error:  # zipfile and numpy raise nearly anything
            raise CorruptArchiveError(f"{place} is not what nudge-rag writes: {error}") from error

    def _place(self, name: str) -> str:
        return f"{self._storage.location}/{self._version}/{name}".rstrip("/")


def _checked_ids(described: Any, number: int) -> tuple[str, ...]:
    ids = described["ids"]
    if described["number"] != number:
        raise ValueError(f"it is block {described['number']!r}")
    if not isinstance(ids, list) or not all(isinstance(node_id, str) for node_id in ids):
        raise ValueError("node ids are strings")
    if len(set(ids)) != len(ids):
        raise ValueError("a node id is there twice")
    return tuple(ids)


def _parts(vectors: Vectors) -> tuple[Any, Any, Any]:
    return vectors.originals, vectors.before, vectors.after


def _joined(parts: Sequence[Vectors], dimension: int) -> Vectors:
    if not parts:
        nothing = np.zeros((0, dimension))
        return Vectors(nothing, nothing, nothing)
    return Vectors(*(np.concatenate(same) for same in zip(*(_parts(part) for part in parts), strict=True)))
