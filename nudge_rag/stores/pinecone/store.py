"""Pinecone indexes (experimental)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from nudge_rag.common.arrays import Float64Array, FloatArray
from nudge_rag.common.packages import import_package
from nudge_rag.stores.adapter import StoreAdapter
from nudge_rag.stores.base import Capabilities, SearchResult, Similarity, StoreError
from nudge_rag.stores.checks import check_ids, check_queries, check_synchronous, chunks, warn_experimental
from nudge_rag.stores.keys import store_key
from nudge_rag.stores.location import StoreLocation
from nudge_rag.stores.pinecone.filters import passes

__all__ = ["PineconeStore"]

Filter = Mapping[str, Any]

SIMILARITY: dict[str, Similarity] = {"cosine": "cosine", "dotproduct": "dot", "euclidean": "l2"}
# Ids are part of a URL when they are fetched, and a page of ids has at most 100.
IDS_PER_CALL = 100
# Characters of the longest id that Pinecone takes; none is empty.
LONGEST_ID = 512
# Pinecone's own limit on top_k.
LARGEST_K = 10_000


class PineconeStore(StoreAdapter):
    """Adapter for one namespace of a dense Pinecone index. ``where`` is Pinecone's metadata filter.

    Scores are larger-is-better: cosine or inner product as Pinecone gives them, minus the squared distance for
    euclidean, which Pinecone answers as it is. Each query and each written vector is a call of its own; text, metadata
    and sparse values stay. Pinecone is eventually consistent: a write returns once its vectors are read back as they
    were written. `matching` reads the metadata and applies the filter here, since Pinecone has no filter by id.

    Experimental: no Pinecone index has answered this adapter yet. Opening one warns.

    Args:
        index: a ``pinecone.Pinecone(...).Index(...)``.
        namespace: the namespace; all nodes are in one.
        similarity: how the index ranks, if Pinecone does not say.
        node_id_of: gives a record's node id if that is only a part of the record's own; then every record's id is
            listed once to find the records of nodes.
        patience: for how many seconds a write may take to become visible.

    Raises:
        TypeError: anything but a synchronous index.
        ValueError: a metric that is not known, or another than ``similarity``; an index without dense vectors.

    Example:
        >>> PineconeStore("docs")
        Traceback (most recent call last):
        ...
        TypeError: expected a pinecone Index, got str
    """

    name = "pinecone"

    def __init__(
        self,
        index: Any,
        *,
        namespace: str | None = None,
        similarity: Similarity | None = None,
        node_id_of: Callable[[str], str] | None = None,
        patience: float = 60.0,
    ) -> None:
        if not all(hasattr(index, part) for part in ("fetch", "query", "update", "describe_index_stats")):
            raise TypeError(f"expected a pinecone Index, got {type(index).__name__}")
        check_synchronous(index, "pinecone Index")
        warn_experimental("Pinecone")
        self.index, self.namespace = index, namespace or ""
        self._node_id_of, self._patience = node_id_of, patience
        self._records: dict[str, str] = {}
        stats = index.describe_index_stats()
        metric = _known(stats, "metric")
        ranked = SIMILARITY.get(str(metric)) if metric else similarity
        if ranked is None or ranked not in SIMILARITY.values() or similarity not in (None, ranked):
            raise ValueError(f"the index's metric is {metric!r}, similarity is {similarity!r}: give the index's own")
        self._dimension = int(_known(stats, "dimension") or 0)
        if not self._dimension:
            raise ValueError("the index has no dimension: it holds no dense vectors")
        self._capabilities = Capabilities(
            ranked, exact_search=False, batch_search=False, persistent=True, experimental=True
        )

    @classmethod
    def from_url(cls, location: StoreLocation) -> PineconeStore:
        """The index whose host ``pinecone://`` names."""
        options = location.options
        package = import_package("pinecone", "pinecone://", "pinecone")
        address = location.address(443 if options.get("ssl", "true") == "true" else 80, secure=True)
        index = package.Pinecone(api_key=options["api_key"]).Index(host=address)
        return cls(index, namespace=options.get("namespace"))

    @property
    def key(self) -> str:
        """From the index's host, which is its own, and the namespace."""
        host = getattr(self.index, "host", None) or self.index.config.host
        return store_key("pinecone", f"{host} {self.namespace}")

    def count(self) -> int:
        """Number of nodes, as far as Pinecone has counted them."""
        namespaces = self.index.describe_index_stats().namespaces
        names = ("", "__default__") if self.namespace in ("", "__default__") else (self.namespace,)
        return sum(int(_known(namespaces[name], "vector_count") or 0) for name in names if name in namespaces)

    def _batches(self, batch_size: int) -> Iterator[tuple[list[str], FloatArray]]:
        """All nodes, page by page. Only serverless indexes list theirs."""
        for chunk in chunks(list(self._all_records()), batch_size):
            found = self._found(chunk)
            if found:  # records deleted since the ids were listed are no longer there
                yield list(found), np.array([record.values for record in found.values()], dtype=np.float32)

    def search(self, queries: FloatArray, k: int, *, where: Filter | None = None) -> SearchResult:
        """Find the k best nodes of each query, a call each.

        Raises:
            ValueError: k above 10,000, Pinecone's own limit.
        """
        checked = check_queries(queries, k, dimension=self._dimension).astype(np.float32)
        if k > LARGEST_K:
            raise ValueError(f"{self.name} answers a search with at most {LARGEST_K} nodes, k is {k}")
        sign = -1.0 if self.capabilities.similarity == "l2" else 1.0
        ids: list[list[str]] = []
        scores: list[Float64Array] = []
        for query in checked.tolist():
            options: dict[str, Any] = {"filter": dict(where)} if where else {}
            matches = self.index.query(
                vector=query,
                top_k=int(k),
                namespace=self.namespace,
                include_values=False,
                include_metadata=False,
                **options,
            ).matches
            ids.append([self._node(match.id) for match in matches])
            scores.append(sign * np.array([match.score for match in matches], dtype=np.float64))
        return SearchResult(ids, scores)

    def matching(self, ids: Sequence[str], where: Filter | None) -> set[str]:
        """Return those of ``ids`` that exist and pass ``where``."""
        found = self._found(self._possible(check_ids(ids)))
        return {name for name, record in found.items() if where is None or passes(_metadata(record), where)}

    def _fetch(self, names: list[str]) -> dict[str, Any]:
        return {name: record.values for name, record in self._found(names).items()}

    def _write(self, names: list[str], rows: FloatArray) -> None:
        """Overwrite vectors one by one, every id looked up first. StoreError if they do not become visible."""
        present = self._found(names)
        self._require(names, present)
        if self.capabilities.similarity == "cosine" and not rows.any(axis=1).all():
            zero = names[int(np.flatnonzero(~rows.any(axis=1))[0])]
            raise ValueError(f"the vector for {zero!r} is zero, which has no cosine: {self.name} refuses it")
        for name, row in zip(names, rows.tolist(), strict=True):
            self.index.update(id=present[name].id, values=row, namespace=self.namespace)
        self._wait_until_visible(names, rows)

    def _wait_until_visible(self, names: list[str], rows: FloatArray) -> None:
        deadline = time.monotonic() + self._patience
        pause = 0.05
        while not np.allclose(self.read(names), rows, rtol=1e-4, atol=1e-6):
            if time.monotonic() > deadline:
                raise StoreError(f"{self.name} does not show what was written after {self._patience:g} seconds")
            time.sleep(pause)
            pause = min(2 * pause, 2.0)

    def records(self, ids: Sequence[str]) -> dict[str, Any]:
        """Pinecone's records of those of ``ids`` that exist, with values and metadata, by node id."""
        return self._found(self._possible(check_ids(ids)))

    def _found(self, names: Sequence[str]) -> dict[str, Any]:
        of = self._record_ids(names)
        found: dict[str, Any] = {}
        for chunk in chunks(list(of), IDS_PER_CALL):
            answer = self.index.fetch(ids=[of[name] for name in chunk], namespace=self.namespace).vectors
            found.update((name, answer[of[name]]) for name in chunk if of[name] in answer)
        return found

    def _record_ids(self, names: Sequence[str]) -> dict[str, str]:
        """Record ids by node id, of those that there may be."""
        distinct = list(dict.fromkeys(names))
        if self._node_id_of is None:
            return {name: name for name in distinct if 0 < len(name) <= LONGEST_ID}
        if any(name not in self._records for name in distinct):
            self._all_records()
        return {name: self._records[name] for name in distinct if name in self._records}

    def _all_records(self) -> dict[str, str]:
        """Map record ids by node id, listed anew.

        Raises:
            ValueError: two records are one node.
        """
        listed = self.index.list(namespace=self.namespace, limit=IDS_PER_CALL)
        # Before pinecone 9 a page held ids, since then it holds entries with an id.
        records = [entry if isinstance(entry, str) else entry.id for page in listed for entry in page]
        self._records = {self._node(record): record for record in records}
        if len(self._records) != len(records):
            twice = next(record for record in records if self._records[self._node(record)] != record)
            raise ValueError(
                f"id {self._node(twice)!r} is more than once in {self.name}: each node must have one vector"
            )
        return self._records

    def _node(self, record: str) -> str:
        return record if self._node_id_of is None else self._node_id_of(record)


def _known(answer: Any, name: str) -> Any:
    """A part of an answer, None if the server left it out; the client's models raise for those."""
    try:
        return getattr(answer, name)
    except AttributeError:
        return None


def _metadata(record: Any) -> Mapping[str, Any]:
    return _known(record, "metadata") or {}
