"""Chroma collections, embedded or on a server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nudge_rag.common.arrays import Float64Array, FloatArray
from nudge_rag.stores.base import Capabilities, SearchResult, Similarity, UnknownIdError
from nudge_rag.stores.checks import check_batch_size, check_ids, check_queries, check_replacement, chunks
from nudge_rag.stores.chroma.copies import ChromaCopies, origin_of, recovered
from nudge_rag.stores.chroma.rounding import read_back, space_of, written_to_read_back
from nudge_rag.stores.copies import CopiesMixin

if TYPE_CHECKING:
    from chromadb import Collection

__all__ = ["ChromaFilter", "ChromaStore"]

SIMILARITY: dict[str, Similarity] = {"cosine": "cosine", "ip": "dot", "l2": "l2"}
# SQLite, under the embedded client, takes so many variables in one statement; servers take their own batch size.
IDS_PER_CALL = 1_000
QUERIES_PER_CALL = 256


@dataclass(frozen=True)
class ChromaFilter:
    """A filter by metadata, by text, and by id, all of which a node must pass.

    Attributes:
        where: Chroma's metadata filter, such as ``{"year": {"$gte": 2020}}``.
        where_document: Chroma's text filter, such as ``{"$contains": "python"}``.
        ids: the only ids to consider.
    """

    where: Mapping[str, Any] | None = None
    where_document: Mapping[str, Any] | None = None
    ids: Sequence[str] | None = None


class ChromaStore(CopiesMixin):
    """Adapter for a ``chromadb.Collection``. Stores float32; its search is approximate (HNSW).

    Scores are larger-is-better: 1 - distance for cosine and inner product, minus the squared distance for l2.

    Other versions of it are collections beside it; a switch renames them, and for some milliseconds there is none of
    the collection's name: ``switch(accept_gap=True)``. Whoever has opened a collection goes on reading the version that
    he opened; the one that the adapter was given follows the switch.

    Args:
        collection: the collection, from any client.

    Raises:
        TypeError: anything but a collection.
    """

    def __init__(self, collection: Collection) -> None:
        if not all(hasattr(collection, part) for part in ("configuration", "query", "update", "id")):
            raise TypeError(f"expected a chromadb Collection, got {type(collection).__name__}")
        self.collection = collection
        self._beside: ChromaCopies = ChromaCopies(collection)
        if not collection.count():  # made anew between the steps of a switch?
            self._beside.wait_for_a_switch()
        space = space_of(collection)
        if space not in SIMILARITY:
            raise ValueError(f"Chroma space {space!r} is not one of {', '.join(SIMILARITY)}")
        self._known_dimension: int | None = None
        self._key = f"chroma-{origin_of(collection)}"
        self._capabilities = Capabilities(SIMILARITY[space], exact_search=False, persistent=True, side_by_side=True)

    @classmethod
    def open(cls, path: str | Path, collection: str) -> ChromaStore:
        """The collection of that name in a persistent Chroma folder; where a switch of it died, that is put right."""
        try:
            import chromadb
        except ImportError as error:
            raise ImportError("ChromaStore.open needs Chroma: pip install 'nudge-rag[chroma]'") from error
        return cls(recovered(chromadb.PersistentClient(path=str(path)), collection))

    @property
    def name(self) -> str:
        """The database's name."""
        return "chroma"

    @property
    def key(self) -> str:
        """The UUID of the collection, or of the one that it is a version of; one made anew is another store."""
        return self._key

    @property
    def capabilities(self) -> Capabilities:
        """What the store can do."""
        return self._capabilities

    def count(self) -> int:
        """Number of nodes."""
        return self.collection.count()

    def read(self, ids: Sequence[str]) -> FloatArray:
        """Vectors of ``ids``, (len(ids), d) float32, in the order asked (Chroma answers in its own)."""
        names = check_ids(ids)
        found: dict[str, FloatArray] = {}
        for chunk in chunks(list(dict.fromkeys(names)), IDS_PER_CALL):
            answer = self.collection.get(ids=chunk, include=["embeddings"])
            found.update(zip(answer["ids"], np.asarray(answer["embeddings"], dtype=np.float32), strict=True))
        unknown = [node_id for node_id in names if node_id not in found]
        if unknown:
            raise UnknownIdError(unknown, self.name)
        if not names:
            return np.zeros((0, self._dimension() or 0), dtype=np.float32)
        return np.stack([found[node_id] for node_id in names])

    def scan(self, batch_size: int = 1000) -> Iterator[tuple[list[str], FloatArray]]:
        """All nodes, page by page."""
        return self._pages(check_batch_size(batch_size))

    def _pages(self, batch_size: int) -> Iterator[tuple[list[str], FloatArray]]:
        offset = 0
        while True:
            page = self.collection.get(include=["embeddings"], limit=batch_size, offset=offset)
            if not page["ids"]:
                return
            yield page["ids"], np.asarray(page["embeddings"], dtype=np.float32)
            offset += len(page["ids"])

    def search(
        self, queries: FloatArray, k: int, *, where: Mapping[str, Any] | ChromaFilter | None = None
    ) -> SearchResult:
        """The k best nodes of each query, as far as Chroma's index finds them."""
        checked = check_queries(queries, k, dimension=self._dimension()).astype(np.float32)
        ids: list[list[str]] = []
        scores: list[Float64Array] = []
        if self._dimension() is None:
            return SearchResult([[] for _ in checked], [np.zeros(0) for _ in checked])
        offset = 0.0 if self.capabilities.similarity == "l2" else 1.0
        for first in range(0, len(checked), QUERIES_PER_CALL):
            answer = self.collection.query(
                query_embeddings=checked[first : first + QUERIES_PER_CALL],
                n_results=k,
                include=["distances"],
                **_arguments(where),
            )
            ids.extend(answer["ids"])
            scores.extend(offset - np.asarray(line, dtype=np.float64) for line in answer["distances"] or [])
        return SearchResult(ids, scores)

    def matching(self, ids: Sequence[str], where: Mapping[str, Any] | ChromaFilter | None) -> set[str]:
        """Those of ``ids`` that exist and pass ``where``."""
        arguments = _arguments(where)
        names = set(check_ids(ids)) & set(arguments.pop("ids", ids))
        found: set[str] = set()
        for chunk in chunks(sorted(names), IDS_PER_CALL):
            found.update(self.collection.get(ids=chunk, include=[], **arguments)["ids"])
        return found

    def replace(self, ids: Sequence[str], vectors: FloatArray) -> None:
        """Overwrite vectors. Chroma ignores an update to an id it lacks, so every id is looked up first."""
        names, rows = check_replacement(ids, vectors, dimension=self._dimension(), dtype="float32")
        present = self.matching(names, None)
        unknown = [node_id for node_id in names if node_id not in present]
        if unknown:
            raise UnknownIdError(unknown, self.name)
        written = written_to_read_back(rows) if self.capabilities.similarity == "cosine" else rows
        for first in range(0, len(names), IDS_PER_CALL):
            part = slice(first, first + IDS_PER_CALL)
            self.collection.update(ids=names[part], embeddings=written[part])

    def create_copy(self, label: str) -> ChromaStore:
        """Copy all nodes to a collection ``<name>.<label>.beside``."""
        return self._sibling(self._beside.create(label), label)

    def open_copy(self, label: str) -> ChromaStore:
        """The adapter of the collection at ``label``. Raises ValueError where there is none."""
        return self._sibling(self._beside.collection(label), label)

    def _sibling(self, collection: Collection, label: str) -> ChromaStore:
        sibling = ChromaStore(collection)
        sibling._key = f"{self._key}-{label}"
        sibling._capabilities = replace(self._capabilities, side_by_side=False)
        return sibling

    def as_stored(self, vectors: FloatArray) -> FloatArray:
        """``vectors`` as they will be read back: a cosine space changes their last bits."""
        rows = np.asarray(vectors, dtype=np.float32)
        return read_back(written_to_read_back(rows)) if self.capabilities.similarity == "cosine" else rows

    def _dimension(self) -> int | None:
        """Asked for once: a collection keeps the dimension of its first vector."""
        if self._known_dimension is None:
            first = self.collection.get(include=["embeddings"], limit=1)["embeddings"]
            self._known_dimension = None if first is None or not len(first) else len(first[0])
        return self._known_dimension


def _arguments(where: Mapping[str, Any] | ChromaFilter | None) -> dict[str, Any]:
    """Keyword arguments of Chroma's get and query; it takes no empty ones."""
    given = where if isinstance(where, ChromaFilter) else ChromaFilter(where=where)
    arguments: dict[str, Any] = {}
    if given.where:
        arguments["where"] = dict(given.where)
    if given.where_document:
        arguments["where_document"] = dict(given.where_document)
    if given.ids is not None:
        arguments["ids"] = list(given.ids)
    return arguments
