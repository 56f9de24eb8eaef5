"""Stores that are a dictionary in memory: node id to a list of floats."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nudge_rag.arrays import FloatArray
from nudge_rag.folders import put_in_place
from nudge_rag.ranking import rank_nodes
from nudge_rag.stores.base import Capabilities, SearchResult, Similarity, UnknownIdError
from nudge_rag.stores.checks import check_batch_size, check_ids, check_queries, check_replacement

__all__ = ["MappingStore", "path_key"]

Vectors = MutableMapping[str, list[float]]


class MappingStore:
    """An `EmbeddingStore` over any mapping of node id to list of floats. Exact; Python floats are kept bit for bit.

    ``where`` is a predicate on the node id.

    Args:
        table: the mapping, changed by `replace`.
        similarity: how nodes are ranked.
        name: the store's name.
        key: names this store among all; required for telling apart the saved originals of several stores.
        save: called after every `replace`; where it raises, the vectors in memory are put back first.

    Example:
        >>> store = MappingStore({"a": [1.0, 0.0], "b": [0.0, 1.0]})
        >>> store.search(np.array([[0.9, 0.1]]), 1).ids
        [['a']]
    """

    def __init__(
        self,
        table: Vectors,
        *,
        similarity: Similarity = "cosine",
        name: str = "mapping",
        key: str | None = None,
        save: Callable[[], None] | None = None,
    ) -> None:
        self._table = table
        self._name = name
        self._key = key or f"{name}-memory"
        self._save = save
        self._capabilities = Capabilities(similarity, dtype="float64", persistent=save is not None)

    @property
    def name(self) -> str:
        """The database's name."""
        return self._name

    @property
    def key(self) -> str:
        """A string that names this store among all stores."""
        return self._key

    @property
    def capabilities(self) -> Capabilities:
        """What the store can do."""
        return self._capabilities

    def count(self) -> int:
        """Number of nodes."""
        return len(self._table)

    def read(self, ids: Sequence[str]) -> FloatArray:
        """Vectors of ``ids``, (len(ids), d) float64, in the order asked."""
        names = check_ids(ids)
        unknown = [node_id for node_id in names if node_id not in self._table]
        if unknown:
            raise UnknownIdError(unknown, self.name)
        return self._rows(names)

    def scan(self, batch_size: int = 1000) -> Iterator[tuple[list[str], FloatArray]]:
        """All nodes, in insertion order."""
        step = check_batch_size(batch_size)
        names = list(self._table)
        return ((names[at : at + step], self._rows(names[at : at + step])) for at in range(0, len(names), step))

    def search(self, queries: FloatArray, k: int, *, where: Callable[[str], bool] | None = None) -> SearchResult:
        """The k best nodes of each query; ties go to the node inserted first."""
        checked = check_queries(queries, k, dimension=self._dimension())
        names = [node_id for node_id in self._table if where is None or where(node_id)]
        if not names:
            return SearchResult([[] for _ in checked], [np.zeros(0) for _ in checked])
        rows, scores = rank_nodes(checked.astype(np.float64), self._rows(names), k, self.capabilities.similarity)
        return SearchResult([[names[row] for row in line] for line in rows], list(scores.astype(np.float64)))

    def matching(self, ids: Sequence[str], where: Callable[[str], bool] | None) -> set[str]:
        """Those of ``ids`` that exist and pass ``where``."""
        return {node_id for node_id in check_ids(ids) if node_id in self._table and (where is None or where(node_id))}

    def as_stored(self, vectors: FloatArray) -> FloatArray:
        """``vectors`` as they will be read back: as float64."""
        return np.asarray(vectors, dtype=np.float64)

    def replace(self, ids: Sequence[str], vectors: FloatArray) -> None:
        """Overwrite vectors, as plain lists of floats: an array would break the frameworks' own persistence."""
        names, rows = check_replacement(ids, vectors, dimension=self._dimension(), dtype="float64")
        unknown = [node_id for node_id in names if node_id not in self._table]
        if unknown:
            raise UnknownIdError(unknown, self.name)
        before = {node_id: self._table[node_id] for node_id in names}
        self._table.update(zip(names, rows.tolist(), strict=True))
        if self._save is None:
            return
        try:
            self._save()
        except BaseException:
            self._table.update(before)
            raise

    def _dimension(self) -> int | None:
        return next((len(vector) for vector in self._table.values()), None)

    def _rows(self, names: Sequence[str]) -> FloatArray:
        if not names:
            return np.zeros((0, self._dimension() or 0))
        return np.array([self._table[node_id] for node_id in names], dtype=np.float64)


def path_key(name: str, path: Path) -> str:
    """A folder name that tells stores on disk apart by where they are."""
    resolved = path.resolve()
    slug = re.sub(r"[^A-Za-z0-9]+", "-", resolved.stem).strip("-")[:40]
    return f"{name}-{slug}-{hashlib.sha256(str(resolved).encode()).hexdigest()[:12]}"


def save_beside(path: Path, write: Callable[[str], Any]) -> None:
    """Let a framework write to a temporary file beside ``path``, then put it in place in one step.

    Raises:
        PermissionError: the file, or its folder, may not be written to.
    """
    for place in (path, path.parent):
        if place.exists() and not os.access(place, os.W_OK):
            raise PermissionError(errno.EACCES, "it may not be written to", str(place))
    temporary = path.with_name(path.name + ".nudge-tmp")
    try:
        write(str(temporary))
        if path.exists():
            shutil.copymode(path, temporary)
        put_in_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
