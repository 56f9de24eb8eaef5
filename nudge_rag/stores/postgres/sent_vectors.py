"""Send vectors with a statement: in pgvector's binary format through psycopg, as text through other drivers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from nudge_rag.common.arrays import FloatArray

__all__ = ["VectorArray", "send_vectors"]


@dataclass(frozen=True)
class VectorArray:
    """Vectors as PostgreSQL's binary format of a ``vector[]`` has them.

    Attributes:
        rows: (n, d) vectors.
        oid: of the type ``vector``, which each database numbers anew.
    """

    rows: FloatArray
    oid: int

    def to_bytes(self) -> bytes:
        """One dimension without nulls, and of each vector its length in bytes, d, two unused bytes and numbers.

        Example:
            >>> VectorArray(np.array([[1.0, 2.0]], dtype=np.float32), 7).to_bytes().hex(" ", 4)
            '00000001 00000000 00000007 00000001 00000001 0000000c 00020000 3f800000 40000000'
        """
        n_rows, dimension = self.rows.shape
        kind = [("bytes", ">i4"), ("dimension", ">i2"), ("unused", ">i2"), ("numbers", ">f4", (dimension,))]
        elements = np.zeros(n_rows, dtype=kind)
        elements["bytes"], elements["dimension"], elements["numbers"] = 4 + 4 * dimension, dimension, self.rows
        return np.array([1, 0, self.oid, n_rows, 1], dtype=">u4").tobytes() + elements.tobytes()

    def to_text(self) -> str:
        """The same as text."""
        return "{" + ",".join(f'"{row.tolist()}"' for row in self.rows) + "}"


# By the types that a connection of psycopg's can send: the number of the type ``vector`` there.
_oids: WeakKeyDictionary[Any, int] = WeakKeyDictionary()


def send_vectors(cursor: Any, rows: FloatArray) -> tuple[str, Any]:
    """Return the type of an array parameter that holds ``rows`` (n, d), and its value for ``cursor``.

    Its elements become vectors by a cast. psycopg sends four bytes a number, which nobody has to write or to parse;
    later cursors of the connection can send the value too.
    """
    from psycopg.adapt import AdaptersMap

    found = [getattr(one, "adapters", None) for one in (cursor.connection, cursor)]
    adapters = [one for one in found if isinstance(one, AdaptersMap)]
    if not adapters:
        return "text[]", [str(row.tolist()) for row in rows]
    if adapters[0] not in _oids:
        _learn(adapters[0])
        ((oid,),) = cursor.execute("SELECT 'vector'::regtype::oid::bigint").fetchall()
        _oids[adapters[0]] = int(oid)
    for one in adapters[1:]:  # a cursor from before its connection learned it
        _learn(one)
    return "vector[]", VectorArray(rows, _oids[adapters[0]])


def _learn(adapters: Any) -> None:
    for dumper in _dumpers():  # of the two, the last one is used unless a cursor wants text
        adapters.register_dumper(VectorArray, dumper)


@cache
def _dumpers() -> tuple[type[Any], type[Any]]:
    """How psycopg writes a `VectorArray`; of which type it is, the statement's own cast says."""
    from psycopg.adapt import Dumper
    from psycopg.pq import Format

    class AsText(Dumper):
        """For cursors that put values into the statement."""

        def dump(self, obj: VectorArray) -> bytes:
            return obj.to_text().encode()

    class AsBytes(Dumper):
        format = Format.BINARY

        def dump(self, obj: VectorArray) -> bytes:
            return obj.to_bytes()

    return AsText, AsBytes
