"""The part that Elasticsearch and OpenSearch share: an index of documents, asked in JSON bodies."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from nudge_rag.common.arrays import Float64Array, FloatArray
from nudge_rag.stores.adapter import StoreAdapter
from nudge_rag.stores.base import Capabilities, SearchResult, Similarity, StoreError
from nudge_rag.stores.checks import at_unit_length, check_ids, check_queries, chunks
from nudge_rag.stores.keys import store_key

__all__ = ["LuceneStore", "similarities"]

Hit = Mapping[str, Any]
Clauses = Mapping[str, Any] | Sequence[Mapping[str, Any]] | None

# Vectors travel as JSON, about 20 bytes a number: a request stays far below the servers' default limit of 100 MB.
IDS_PER_CALL = 500
QUERIES_PER_CALL = 64
# index.max_result_window, and the largest k of a search in both.
LARGEST_K = 10_000
# Of unit vectors, and of those that a server rebuilds from a unit vector and a length.
ROUNDING = 1e-6


def similarities(scores: FloatArray, similarity: Similarity) -> Float64Array:
    """Lucene's scores, which are never negative, as the similarities that they stand for.

    cosine: (1 + cos) / 2; l2: 1 / (1 + squared distance); dot: 1 + dot if dot > 0, else 1 / (1 - dot).

    Example:
        >>> similarities(np.array([0.75]), "cosine"), similarities(np.array([0.2]), "l2")
        (array([0.5]), array([-4.]))
        >>> similarities(np.array([3.0, 0.25]), "dot")
        array([ 2., -3.])
    """
    given = np.asarray(scores, dtype=np.float64)
    if similarity == "cosine":
        return 2 * given - 1
    with np.errstate(divide="ignore"):
        distances = 1 - 1 / given
    return distances if similarity == "l2" else np.where(given > 1, given - 1, distances)


class LuceneStore(StoreAdapter):
    """An index with a field of vectors; subclasses say how their client is asked. Not made directly.

    ``where`` is a query clause, or a list of clauses that all must match.
    """

    def __init__(
        self,
        *,
        index: str,
        index_uuid: str,
        vector_field: str,
        dimension: int,
        capabilities: Capabilities,
    ) -> None:
        self.index, self.vector_field = index, vector_field
        self._uuid = index_uuid
        self._dimension = dimension
        self._capabilities = capabilities

    @abstractmethod
    def _search(self, body: Mapping[str, Any]) -> Any:
        """The response to one search."""

    @abstractmethod
    def _searches(self, bodies: Sequence[Mapping[str, Any]]) -> Sequence[Any]:
        """The responses to several searches in one call."""

    @abstractmethod
    def _stream(self, body: Mapping[str, Any], batch_size: int) -> Iterable[Hit]:
        """All hits of a search."""

    @abstractmethod
    def _send(self, lines: Sequence[Mapping[str, Any]]) -> Any:
        """Send a bulk request, and return its response; later searches see its writes."""

    @abstractmethod
    def _question(self, query: list[float], k: int, where: list[Mapping[str, Any]]) -> dict[str, Any]:
        """The body of a search for the k best nodes."""

    @abstractmethod
    def _vector_of(self, hit: Hit) -> Any:
        """The vector in a hit of a search with `_with_vector`."""

    @property
    @abstractmethod
    def _with_vector(self) -> dict[str, Any]:
        """Part of a search's body that asks for vectors in its hits."""

    @property
    def key(self) -> str:
        """The index's own UUID and the field: an index made anew is another store."""
        return store_key(self.name, f"{self._uuid} {self.vector_field}")

    def count(self) -> int:
        """Number of documents that have a vector."""
        response = self._search({"query": self._nodes(), "size": 0, "track_total_hits": True})
        self._hits(response)
        return int(response["hits"]["total"]["value"])

    def _fetch(self, names: list[str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for chunk in chunks(names, IDS_PER_CALL):
            for hit in self._among(chunk, [], self._with_vector):
                found[hit["_id"]] = self._vector_of(hit)
        return found

    def _batches(self, batch_size: int) -> Iterator[tuple[list[str], FloatArray]]:
        hits = iter(self._stream({"query": self._nodes(), **self._with_vector}, min(batch_size, LARGEST_K)))
        while page := list(itertools.islice(hits, batch_size)):
            yield [hit["_id"] for hit in page], np.array([self._vector_of(hit) for hit in page], dtype=np.float32)

    def search(self, queries: FloatArray, k: int, *, where: Clauses = None) -> SearchResult:
        """Find the k best nodes of each query.

        Raises:
            ValueError: k above 10,000, the servers' own limit.
        """
        checked = check_queries(queries, k, dimension=self._dimension).astype(np.float32)
        if k > LARGEST_K:
            raise ValueError(f"{self.name} answers a search with at most {LARGEST_K} nodes, k is {k}")
        if not self.capabilities.keeps_norms:  # such a field refuses queries of another length as well
            checked = at_unit_length(checked)
        given = _clauses(where)
        ids: list[list[str]] = []
        scores: list[Float64Array] = []
        for first in range(0, len(checked), QUERIES_PER_CALL):
            part = checked[first : first + QUERIES_PER_CALL].tolist()
            bodies = [{**self._question(query, int(k), given), "size": int(k), "_source": False} for query in part]
            for response in self._searches(bodies):
                hits = self._hits(response)
                ids.append([hit["_id"] for hit in hits])
                answered = np.array([hit["_score"] for hit in hits], dtype=np.float64)
                scores.append(similarities(answered, self.capabilities.similarity))
        return SearchResult(ids, scores)

    def matching(self, ids: Sequence[str], where: Clauses) -> set[str]:
        """Return those of ``ids`` that exist and pass ``where``."""
        found: set[str] = set()
        for chunk in chunks(sorted(set(self._possible(check_ids(ids)))), IDS_PER_CALL):
            found.update(hit["_id"] for hit in self._among(chunk, _clauses(where), {"_source": False}))
        return found

    def _write(self, names: list[str], rows: FloatArray) -> None:
        """Overwrite vectors by partial updates, every id looked up first. Not atomic: StoreError says what failed."""
        if self.capabilities.similarity == "cosine" and not rows.any(axis=1).all():
            zero = names[int(np.flatnonzero(~rows.any(axis=1))[0])]
            raise ValueError(f"the vector for {zero!r} is zero, which has no cosine: {self.name} refuses it")
        self._require(names, self.matching(names, None))
        written = dict(zip(names, self.as_stored(rows).tolist(), strict=True))
        for chunk in chunks(names, IDS_PER_CALL):
            lines: list[Mapping[str, Any]] = []
            for name in chunk:
                lines += [{"update": {"_index": self.index, "_id": name}}, {"doc": {self.vector_field: written[name]}}]
            self._check_written(self._send(lines))

    def _check_written(self, response: Any) -> None:
        failed = [item["update"] for item in response["items"] if "error" in item["update"]]
        if failed:
            raise StoreError(
                f"{self.name} refused {len(failed)} of {len(response['items'])} updates:"
                f" {failed[0]['_id']!r}: {failed[0]['error']}"
            )

    def _nodes(self, *clauses: Mapping[str, Any]) -> dict[str, Any]:
        """The query for the documents that have a vector and match ``clauses``."""
        return {"bool": {"filter": [{"exists": {"field": self.vector_field}}, *clauses]}}

    def _among(self, ids: list[str], where: list[Mapping[str, Any]], fetch: dict[str, Any]) -> list[Hit]:
        """Documents of ``ids``. An id is in one index twice if the application routes by something else."""
        body = {"query": self._nodes({"ids": {"values": ids}}, *where), "size": min(2 * len(ids), LARGEST_K), **fetch}
        hits = self._hits(self._search(body))
        answered = [hit["_id"] for hit in hits]
        self._require_once(answered)
        return hits

    def _hits(self, response: Any) -> list[Hit]:
        """The hits of a complete answer; both servers leave out what a failing shard holds, and say so."""
        if "error" in response:
            raise StoreError(f"{self.name} failed: {response['error']}")
        if response.get("timed_out") or response["_shards"]["failed"]:
            raise StoreError(f"{self.name} answered in part: {response['_shards']}")
        return list(response["hits"]["hits"])


def _clauses(where: Clauses) -> list[Mapping[str, Any]]:
    if where is None:
        return []
    given = [where] if isinstance(where, Mapping) else list(where)
    for clause in given:
        if not isinstance(clause, Mapping):
            raise TypeError(f"where is a query clause or a list of them, got {clause!r}")
    return given


def vector_mapping(properties: Mapping[str, Any], field: str | None, kind: str) -> tuple[str, Mapping[str, Any]]:
    """The field of vectors (the only one if none is named) and its mapping.

    Raises:
        ValueError: there is none.
    """
    fields = sorted(name for name, mapping in properties.items() if mapping.get("type") == kind)
    chosen = fields[0] if field is None and len(fields) == 1 else field
    if chosen not in fields:
        raise ValueError(
            f"vector_field must be one of the {kind} fields ({', '.join(fields) or 'none'}), got {field!r}"
        )
    return chosen, properties[chosen]


def one_index(answer: Mapping[str, Any], name: str) -> tuple[str, Any]:
    """Return the concrete index behind a name, and what is known of it.

    Raises:
        ValueError: an alias has several.
    """
    if len(answer) != 1:
        raise ValueError(f"{name!r} stands for {len(answer)} indexes ({', '.join(sorted(answer))}): name one of them")
    return next(iter(answer.items()))
