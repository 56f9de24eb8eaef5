"""Stamps on nudged vectors, kept in the file of an index: they tell of a history that is gone, or lies elsewhere.

A stamp is a hash of the vector that a push wrote, and the mark of that push: a node that was embedded again, or rolled
back, has it no longer.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import re
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from nudge_rag.common.arrays import FloatArray

__all__ = ["StampedStore", "Stamps", "append_stamps", "is_stamps", "numbered", "push_of", "read_stamps", "stamp_of"]

# Of a vector, and the mark of a push: the name of its version, and what tells it from another of that name.
STAMP = "[0-9a-f]{16}(:[0-9]{1,9}(-[0-9a-f]{8})?)?"
# At the end of a file of an index, after the length of the stamps, of 8 bytes.
MAGIC = b"NUDGERAG"
END = len(MAGIC) + 8


@runtime_checkable
class StampedStore(Protocol):
    """A store whose history is a folder beside its file, which somebody may delete, or leave behind."""

    def stamp_nudges(self, ids: Sequence[str], vectors: FloatArray, history: str, push: str) -> None:
        """Note that these nodes hold a nudge if they hold these vectors; the next write keeps that in the file.

        Args:
            ids: of the nodes.
            vectors: (len(ids), d) what a push writes.
            history: the place of its record.
            push: its mark.
        """
        ...

    def all_stamps(self) -> Stamps:
        """Return the stamps of all nodes, whatever these hold by now."""
        ...

    def find_stamped(self) -> Stamps:
        """Return the stamps of nodes that still hold the vector of theirs."""
        ...

    def find_outdated(self) -> set[str]:
        """Return ids of nodes that hold another vector in the file, which memory is too old to take over."""
        ...

    def drop_stamps(self, ids: Collection[str] | None = None) -> None:
        """Forget the stamps of these nodes, or of all, in the file too."""
        ...


@dataclass
class Stamps:
    """Stamps of nodes.

    Attributes:
        history: the place of the record of their push.
        nodes: node id to its stamps: of what it holds, and of what it is about to hold. Each is a hash, and the mark of
            the push behind a colon; files of earlier releases have the hash alone.
    """

    history: str = ""
    nodes: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def from_plain(cls, plain: Any) -> Stamps:
        """Return what `plain` gave; of anything else, none.

        Example:
            >>> Stamps.from_plain(Stamps("here", {"a": ("12", "34")}).plain())
            Stamps(history='here', nodes={'a': ('12', '34')})
            >>> Stamps.from_plain(["a"])
            Stamps(history='', nodes={})
        """
        nodes = plain.get("nodes") if isinstance(plain, Mapping) else None
        if not isinstance(nodes, Mapping):
            return cls()
        known = {str(node_id): tuple(stamps.split()) for node_id, stamps in nodes.items() if isinstance(stamps, str)}
        return cls(str(plain.get("history", "")), known)

    @classmethod
    def from_json(cls, text: Any) -> Stamps:
        """Return what `plain` gave, from its JSON; of anything else, none."""
        try:
            return cls.from_plain(json.loads(text)) if isinstance(text, str | bytes) else cls()
        except (ValueError, RecursionError):
            return cls()

    @staticmethod
    def kept_for(owner: Any) -> Stamps | None:
        """Return the stamps that `keep_for` kept for an object of a framework in this process, if it was called."""
        return _kept.get(id(owner))

    def keep_for(self, owner: Any) -> None:
        """Keep these stamps for an object of a framework, without a change to it, for as long as it is there."""
        if id(owner) not in _kept:
            weakref.finalize(owner, _kept.pop, id(owner), None)
        _kept[id(owner)] = self

    def plain(self) -> dict[str, Any]:
        """Return it in the types of JSON."""
        return {"history": self.history, "nodes": {node_id: " ".join(stamps) for node_id, stamps in self.nodes.items()}}

    def add(self, ids: Sequence[str], vectors: FloatArray, history: str, push: str) -> None:
        """Add a stamp to each of these nodes; of one vector, the newest push counts."""
        self.history = history
        for node_id, vector in zip(ids, vectors, strict=True):
            hashed = stamp_of(vector)
            others = (stamp for stamp in self.nodes.get(node_id, ()) if _hash_in(stamp) != hashed)
            self.nodes[node_id] = (*others, f"{hashed}:{push}")

    def without(self, ids: Collection[str]) -> Stamps:
        """Return the stamps of all other nodes."""
        return Stamps(self.history, {node_id: kept for node_id, kept in self.nodes.items() if node_id not in ids})

    def held(self, vectors: Mapping[str, Any]) -> Stamps:
        """Return the stamps that nodes hold the vector of.

        Args:
            vectors: node id to vector.
        """
        kept: dict[str, tuple[str, ...]] = {}
        for node_id, stamps in self.nodes.items():
            # Anybody may have put something else than a vector into a file.
            with contextlib.suppress(TypeError, ValueError):
                hashed = stamp_of(vectors[node_id]) if node_id in vectors else ""
                held = tuple(stamp for stamp in stamps if _hash_in(stamp) == hashed)
                if held:
                    kept[node_id] = held
        return Stamps(self.history, kept)

    def settled(self, ids: Iterable[str], vectors: Mapping[str, Any]) -> Stamps:
        """Return the same, but for nodes that were written: of these, the stamps of what they hold now.

        Args:
            ids: of nodes; the vectors of all others are not looked at.
            vectors: node id to vector.

        Example:
            >>> known = Stamps("here", {"a": (stamp_of([1.0]), stamp_of([2.0])), "b": ("12",)})
            >>> known.settled(["a"], {"a": [2.0]}).nodes == {"a": (stamp_of([2.0]),), "b": ("12",)}
            True
        """
        written = Stamps(self.history, {node_id: self.nodes[node_id] for node_id in ids if node_id in self.nodes})
        if not written.nodes:
            return self
        held = written.held(vectors).nodes
        nodes = {node_id: stamps for node_id, stamps in self.nodes.items() if node_id not in written.nodes}
        return Stamps(self.history, nodes | held)

    def __or__(self, other: Stamps) -> Stamps:
        """Return the stamps of both, and the history of ``other`` if it has any."""
        nodes = dict(self.nodes)
        for node_id, stamps in other.nodes.items():
            nodes[node_id] = tuple(dict.fromkeys((*nodes.get(node_id, ()), *stamps)))
        return Stamps(other.history if other.nodes else self.history, nodes)


_kept: dict[int, Stamps] = {}


def stamp_of(vector: Any) -> str:
    """Return a hash of a vector, the same for float32 numbers and for these as float64.

    Example:
        >>> stamp_of([0.5, 1.0]) == stamp_of(np.array([0.5, 1.0], dtype=np.float32))
        True
    """
    return hashlib.sha256(np.ascontiguousarray(vector, dtype="<f8").tobytes()).hexdigest()[:16]


def push_of(stamp: str) -> str:
    """Return the mark of the push that a stamp is of; empty if an earlier release wrote it.

    Example:
        >>> push_of("af5570f5a1810b7a:0003-1c2d3e4f"), push_of("af5570f5a1810b7a")
        ('0003-1c2d3e4f', '')
    """
    return stamp.partition(":")[2]


def _hash_in(stamp: str) -> str:
    return stamp.partition(":")[0]


def is_stamps(value: Any) -> bool:
    """Whether it is how stamps of one node are written.

    Example:
        >>> is_stamps(stamp_of([1.0])), is_stamps(f"{stamp_of([1.0])}:0003-1c2d3e4f"), is_stamps("a note")
        (True, True, False)
    """
    return isinstance(value, str) and re.fullmatch(f"{STAMP}( {STAMP})*", value) is not None


def numbered(name: str) -> Iterator[str]:
    """Names to choose one from that nobody else has.

    Example:
        >>> names = numbered("mine")
        >>> next(names), next(names)
        ('mine', 'mine_1')
    """
    return (name if number == 0 else f"{name}_{number}" for number in itertools.count())


def append_stamps(path: str | Path, stamps: Stamps) -> None:
    """Write stamps to the end of a file whose format ends before it."""
    if stamps.nodes:
        content = json.dumps(stamps.plain()).encode()
        with Path(path).open("ab") as file:
            file.write(content + len(content).to_bytes(8, "little") + MAGIC)


def read_stamps(path: Path) -> Stamps:
    """Read what `append_stamps` wrote; none of any other file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - END))
            end = file.read()
            length = int.from_bytes(end[:8], "little")
            if len(end) < END or not end.endswith(MAGIC) or length > size - END:
                return Stamps()
            file.seek(size - END - length)
            return Stamps.from_json(file.read(length))
    except OSError:
        return Stamps()
