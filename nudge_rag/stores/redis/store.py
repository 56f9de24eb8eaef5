"""Redis search indexes over hashes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from nudge_rag.common.arrays import Float64Array, FloatArray
from nudge_rag.common.packages import import_package
from nudge_rag.stores.adapter import StoreAdapter
from nudge_rag.stores.base import Capabilities, SearchResult, Similarity, StoreError
from nudge_rag.stores.checks import check_ids, check_queries, chunks
from nudge_rag.stores.history import BlobStorage
from nudge_rag.stores.keys import store_key
from nudge_rag.stores.location import StoreLocation
from nudge_rag.stores.redis.history import RedisHistory
from nudge_rag.stores.redis.index import Index, describe

__all__ = ["RedisStore"]

SIMILARITY: dict[str, Similarity] = {"COSINE": "cosine", "IP": "dot", "L2": "l2"}
IDS_PER_CALL = 1_000
QUERIES_PER_CALL = 64
# How often a compare-and-set begins anew because a node was changed meanwhile.
TRIES = 20
# Redis' own limit on the results of one search.
LARGEST_K = 1_000_000
# Without it, a search that takes longer than half a second returns the nodes found by then, and does not say so.
NO_TIMEOUT = ("TIMEOUT", 0, "DIALECT", 2)


class RedisStore(StoreAdapter):
    """Adapter for a search index of Redis 7.2 or later (or Redis Stack) over hashes with one field of vectors.

    Ranks by the index's metric, exactly if the index is FLAT; scores are larger-is-better (the cosine, the inner
    product, minus the squared distance). ``where`` is a query of Redis', such as ``@year:[2020 inf]``. A write is one
    transaction, which is not made if one of its nodes is changed at the same time.

    Args:
        client: a ``redis.Redis``. Calls go through a connection pool of their own to the same place.
        index: the index's name.
        vector_field: the name of the field of vectors; needed if the index has several.
        prefix: the part of keys before the node's id; default the prefix that the index is for.
        only: a query that every node of this store meets, for keys that several indexes share.
        ef_runtime: how far an HNSW index looks.

    Raises:
        TypeError: anything but a client.
        ValueError: no such index or field, an index over JSON, vectors of another type, several prefixes.
    """

    name = "redis"

    def __init__(
        self,
        client: Any,
        index: str,
        *,
        vector_field: str | None = None,
        prefix: str | None = None,
        only: str | None = None,
        ef_runtime: int = 200,
    ) -> None:
        redis = import_package("redis", "RedisStore", "redis")
        if not isinstance(client, redis.Redis):
            raise TypeError(f"expected a redis.Redis client, got {type(client).__name__}")
        pool = client.connection_pool
        # Vectors are bytes, and answers are read in the older form that every server gives.
        given = {name: value for name, value in pool.connection_kwargs.items() if "maint_notifications" not in name}
        options = {**given, "decode_responses": False, "protocol": 2}
        self.client = redis.Redis(
            connection_pool=redis.ConnectionPool(connection_class=pool.connection_class, **options)
        )
        self._index: Index = describe(self.client, index, vector_field)
        self._dimension = self._index.dimension
        self._prefix = (self._index.prefix() if prefix is None else prefix).encode("utf-8", "surrogateescape")
        self._only, self._ef = only, ef_runtime
        place = [options.get("path") or (options.get("host"), options.get("port")), options.get("db") or 0]
        self._place = f"{place} {index} {self._index.field} {only or ''}"
        self._capabilities = Capabilities(
            SIMILARITY[self._index.metric],
            dtype=self._index.dtype,
            exact_search=self._index.algorithm == "FLAT",
            persistent=True,
        )

    @classmethod
    def open(cls, url: str, index: str, **options: Any) -> RedisStore:
        """An index of the server at ``url``, such as ``redis://localhost:6379/0``; ``options`` as for the class."""
        redis = import_package("redis", "RedisStore.open", "redis")
        return cls(redis.Redis.from_url(url), index, **options)

    @classmethod
    def from_url(cls, location: StoreLocation) -> RedisStore:
        """The index that ``redis://`` or ``rediss://`` names; options that are not the index's go to redis-py."""
        names = {"vector": "vector_field", "prefix": "prefix"}
        return cls.open(location.without(["index", *names]), location.options["index"], **location.chosen(names))

    @property
    def key(self) -> str:
        """From the server, the index and the field."""
        return store_key("redis", self._place)

    def count(self) -> int:
        """Number of nodes that have a vector."""
        return len(self._ids())

    def _fetch(self, names: list[str]) -> dict[str, FloatArray]:
        found = self._found(names)
        return dict(zip(found, self._vectors_in(list(found.values())), strict=True))

    def _batches(self, batch_size: int) -> Iterator[tuple[list[str], FloatArray]]:
        for chunk in chunks(self._ids(), batch_size):
            found = self._found(chunk)
            if found:
                yield list(found), self._vectors_in(list(found.values()))

    def search(self, queries: FloatArray, k: int, *, where: str | None = None) -> SearchResult:
        """The k best nodes of each query: exactly, or as far as the index finds them."""
        checked = check_queries(queries, k, dimension=self._index.dimension).astype(self.capabilities.dtype)
        most = min(k, LARGEST_K)
        effort = f" EF_RUNTIME {max(most, self._ef)}" if self._index.algorithm == "HNSW" else ""
        query = f"{self._condition(where)}=>[KNN {most} @{self._index.attribute} $nudge_vector{effort} AS nudge_score]"
        shape = ("SORTBY", "nudge_score", "RETURN", 1, "nudge_score", "LIMIT", 0, most, *NO_TIMEOUT)
        ids: list[list[str]] = []
        scores: list[Float64Array] = []
        for first in range(0, len(checked), QUERIES_PER_CALL):
            with self.client.pipeline(transaction=False) as pipe:
                for row in checked[first : first + QUERIES_PER_CALL]:
                    pipe.execute_command(
                        "FT.SEARCH", self._index.name, query, "PARAMS", 2, "nudge_vector", row.tobytes(), *shape
                    )
                for answer in pipe.execute():
                    found = self._scores(np.array([float(fields[1]) for fields in answer[2::2]], dtype=np.float64))
                    order = np.argsort(-found, kind="stable")
                    ids.append([self._id(answer[1::2][at]) for at in order])
                    scores.append(found[order])
        return SearchResult(ids, scores)

    def _scores(self, distances: Float64Array) -> Float64Array:
        if self.capabilities.similarity == "l2":
            return -distances
        # A cosine with a zero vector has no distance, and Redis puts it anywhere among the others.
        return np.asarray(1 - np.nan_to_num(distances, nan=1.0), dtype=np.float64)

    def _possible(self, ids: Iterable[str]) -> list[str]:
        """Return those of ``ids`` that Redis could hold: its keys are bytes, and need not be text."""
        return [name for name in ids if _is_of_bytes(name)]

    def matching(self, ids: Sequence[str], where: str | None) -> set[str]:
        """Return those of ``ids`` that exist and pass ``where``."""
        passing: set[str] = set()
        condition = self._condition(where)
        for chunk in chunks(sorted(set(self._possible(check_ids(ids)))), IDS_PER_CALL):
            keys = [self._key(name) for name in chunk]
            limits = ("NOCONTENT", "LIMIT", 0, len(chunk), *NO_TIMEOUT)
            answer = self.client.execute_command(
                "FT.SEARCH", self._index.name, condition, "INKEYS", len(keys), *keys, *limits
            )
            passing.update(self._id(key) for key in answer[1:])
        return set(self._vectors(sorted(passing)))

    def _write(self, names: list[str], rows: FloatArray) -> None:
        """Overwrite vectors in one transaction: all of them, or none."""
        if names and self._write_watched(names, rows, None) is None:
            raise StoreError("a node was changed by someone else during the write; nothing was written")

    def _write_if(self, names: list[str], expected: FloatArray, rows: FloatArray) -> list[str]:
        """Compare and set in one transaction, begun anew if a node is changed meanwhile."""
        for _ in range(TRIES):
            skipped = self._write_watched(names, rows, expected)
            if skipped is not None:
                return skipped
        raise StoreError(f"nodes were changed by someone else in each of {TRIES} tries; nothing was written")

    def _write_watched(self, names: list[str], rows: FloatArray, expected: FloatArray | None) -> list[str] | None:
        """Overwrite vectors, only expected ones if these are given: ids left out; None if another client was faster."""
        import redis

        with self.client.pipeline() as pipe:
            pipe.watch(*map(self._key, names))
            if expected is None:
                self.read(names)  # raises for ids that are unknown
                written = np.ones(len(names), dtype=np.bool_)
            else:
                written = self._unchanged(names, expected)
            pipe.multi()
            for name, row, write in zip(names, rows, written, strict=True):
                if write:
                    pipe.hset(self._key(name), self._index.field, row.tobytes())
            try:
                pipe.execute()
            except redis.WatchError:
                return None
        return [name for name, write in zip(names, written, strict=True) if not write]

    def history(self) -> BlobStorage:
        """The store's history: keys of its own, the same by the index's name and by its aliases."""
        return RedisHistory(self.client, self._index.own_name, self._index.field)

    def _condition(self, where: str | None) -> str:
        parts = [f"({part})" for part in (self._only, where) if part]
        return f"({' '.join(parts)})" if parts else "*"

    def _ids(self) -> list[str]:
        """All nodes with a vector."""
        attribute = f"@{self._index.attribute}"
        grouped = ("LOAD", 2, "@__key", attribute, "FILTER", f"exists({attribute})", "GROUPBY", 1, "@__key")
        query = ("FT.AGGREGATE", self._index.name, self._condition(None), *grouped)
        rows, cursor = self.client.execute_command(*query, "WITHCURSOR", "COUNT", IDS_PER_CALL, *NO_TIMEOUT)
        ids = [self._id(row[1]) for row in rows[1:]]
        while cursor:
            rows, cursor = self.client.execute_command("FT.CURSOR", "READ", self._index.name, cursor)
            ids += [self._id(row[1]) for row in rows[1:]]
        return ids

    def _found(self, ids: list[str]) -> dict[str, bytes]:
        """Vectors of those of ``ids`` that are nodes of this store."""
        among = self.matching(ids, None) if self._only else set(ids)
        return self._vectors([node_id for node_id in ids if node_id in among])

    def _vectors(self, ids: list[str]) -> dict[str, bytes]:
        size = self._index.dimension * np.dtype(self.capabilities.dtype).itemsize
        found: dict[str, bytes] = {}
        for chunk in chunks(ids, IDS_PER_CALL):
            with self.client.pipeline(transaction=False) as pipe:
                for node_id in chunk:
                    pipe.hget(self._key(node_id), self._index.field)
                answers = pipe.execute(raise_on_error=False)
            for node_id, answer in zip(chunk, answers, strict=True):
                # Other lengths and other kinds of keys (an error) are not in the index either.
                if isinstance(answer, bytes) and len(answer) == size:
                    found[node_id] = answer
        return found

    def _key(self, node_id: str) -> bytes:
        return self._prefix + node_id.encode("utf-8", "surrogateescape")

    def _id(self, key: bytes) -> str:
        if not key.startswith(self._prefix):
            raise StoreError(
                f"the index {self._index.name!r} also holds {key!r}, whose name does not begin with {self._prefix!r}:"
                " pass prefix= or only="
            )
        return key[len(self._prefix) :].decode("utf-8", "surrogateescape")

    def _vectors_in(self, rows: list[bytes]) -> FloatArray:
        dtype = np.dtype(self.capabilities.dtype)
        return np.frombuffer(b"".join(rows), dtype=dtype).reshape(len(rows), self._index.dimension)


def _is_of_bytes(node_id: str) -> bool:
    """Whether an id is one that some key is read as."""
    try:
        key = node_id.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return key.decode("utf-8", "surrogateescape") == node_id
