"""Stores that are a dictionary in memory: node id to a list of floats."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.ranking import rank_nodes
from nudge_rag.stores.adapter import NODES_PER_STEP, StoreAdapter
from nudge_rag.stores.base import Capabilities, SearchResult, Similarity
from nudge_rag.stores.checks import check_ids, check_queries

__all__ = ["MappingStore", "Vectors"]

Vectors = MutableMapping[str, list[float]]


class MappingStore(StoreAdapter):
    """An `EmbeddingStore` over any mapping of node id to list of floats. Exact; Python floats are kept bit for bit.

    ``where`` is a predicate on the node id.

    Args:
        table: the mapping, changed by `replace`.
        similarity: how nodes are ranked.
        name: the store's name.
        key: names this store among all; required for telling apart the saved originals of several stores.
        save: called after every `replace`; if it raises, the vectors in memory are put back first.

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
        self.name = name
        self._key = key or f"{name}-memory"
        self._save = save
        self._capabilities = Capabilities(similarity, dtype="float64", persistent=save is not None)

    @property
    def key(self) -> str:
        """A string that names this store among all stores."""
        return self._key

    def count(self) -> int:
        """Number of nodes."""
        return len(self._mapping())

    @property
    def dimension(self) -> int | None:
        """Length of the vectors; None if there is none."""
        return _dimension(self._mapping())

    def _possible(self, ids: Iterable[str]) -> list[str]:
        """Return all: a dictionary holds any text."""
        return list(ids)

    def _fetch(self, names: list[str]) -> dict[str, list[float]]:
        table = self._mapping()
        return {name: table[name] for name in names if name in table}

    def _batches(self, batch_size: int) -> Iterator[tuple[list[str], FloatArray]]:
        table = self._mapping()
        names = list(table)
        return (
            (names[first : first + batch_size], _rows(table, names[first : first + batch_size]))
            for first in range(0, len(names), batch_size)
        )

    def search(self, queries: FloatArray, k: int, *, where: Callable[[str], bool] | None = None) -> SearchResult:
        """The k best nodes of each query; ties go to the node inserted first."""
        table = self._mapping()
        checked = check_queries(queries, k, dimension=_dimension(table))
        names = [node_id for node_id in list(table) if where is None or where(node_id)]
        if not names:
            return SearchResult([[] for _ in checked], [np.zeros(0) for _ in checked])
        rows, scores = rank_nodes(checked.astype(np.float64), _rows(table, names), k, self.capabilities.similarity)
        return SearchResult([[names[row] for row in line] for line in rows], list(scores.astype(np.float64)))

    def matching(self, ids: Sequence[str], where: Callable[[str], bool] | None) -> set[str]:
        """Return those of ``ids`` that exist and pass ``where``."""
        table = self._mapping()
        return {node_id for node_id in check_ids(ids) if node_id in table and (where is None or where(node_id))}

    def _write(self, names: list[str], rows: FloatArray) -> None:
        """Overwrite vectors, as plain lists of floats: an array would break the frameworks' own persistence."""
        table = self._mapping()
        self._require(names, table)
        with self._saved(table, names) as before:
            before.update((node_id, table[node_id]) for node_id in names)
            table.update(zip(names, rows.tolist(), strict=True))

    def _write_if(self, names: list[str], expected: FloatArray, rows: FloatArray) -> list[str]:
        """Compare and set in memory, chunk by chunk, and save once."""
        table, skipped = self._mapping(), list[str]()
        with self._saved(table, names) as before:
            for first in range(0, len(names), NODES_PER_STEP):
                chunk = slice(first, first + NODES_PER_STEP)
                unchanged = self._unchanged(names[chunk], expected[chunk])
                for name, row, same in zip(names[chunk], rows[chunk].tolist(), unchanged, strict=True):
                    if same and name in table:
                        before[name], table[name] = table[name], row
                    else:
                        skipped.append(name)
        return skipped

    @contextmanager
    def _saved(self, table: Vectors, names: list[str]) -> Iterator[dict[str, Any]]:
        """Save the table afterwards; if that fails, put back the vectors that were noted as those from before.

        Args:
            table: the live mapping.
            names: ids of the nodes of which some are written.
        """
        before: dict[str, Any] = {}
        try:
            yield before
            if self._save is not None and before:
                self._save()
        except BaseException:
            table.update(before)
            raise

    def _mapping(self) -> Vectors:
        """The live mapping, asked for once by each call: another one may take its place at any time."""
        return self._table


def _dimension(table: Vectors) -> int | None:
    return next((len(vector) for vector in table.values()), None)


def _rows(table: Vectors, names: Sequence[str]) -> FloatArray:
    if not names:
        return np.zeros((0, _dimension(table) or 0))
    return np.array([table[node_id] for node_id in names], dtype=np.float64)
