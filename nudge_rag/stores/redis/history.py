"""The history of a Redis index, in keys of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nudge_rag.errors import StoreError
from nudge_rag.stores.history import BlobStorage, check_blob_name, copy_advice
from nudge_rag.stores.leases import Lease

__all__ = ["RedisHistory"]


class RedisHistory:
    """Blobs as the keys ``nudge-rag:<index>:<field>:blob:<name>``, whose values are strings.

    An index over hashes does not see strings. Processes exclude each other by a lease.

    Args:
        client: a client that does not decode its answers.
        index: the index's own name.
        field: the field of vectors.
    """

    def __init__(self, client: Any, index: str, field: str) -> None:
        self._client = client
        self._prefix = f"nudge-rag:{index}:{field}:"
        place = sorted((name, str(value)) for name, value in client.connection_pool.connection_kwargs.items())
        self._lease = Lease(_RedisRecord(client, self._prefix + "lease"), f"redis {hash(str(place))} {self._prefix}")

    @property
    def location(self) -> str:
        """The keys."""
        return f"the Redis keys {self._prefix}*"

    def write(self, name: str, content: bytes) -> None:
        """Write or replace a key."""
        key = self._key(name)
        self._lease.check()
        with self._permitted("written to"):
            self._client.set(key, content)

    def read(self, name: str) -> bytes:
        """Read the value of a key.

        Raises:
            KeyError: there is none.
        """
        with self._permitted("read"):
            content = self._client.get(self._key(name))
        if content is None:
            raise KeyError(name)
        return bytes(content)

    def names(self, prefix: str = "") -> list[str]:
        """Names of all blobs that begin with ``prefix``, sorted."""
        start = self._prefix + "blob:"
        escaped = "".join(f"\\{letter}" if letter in "*?[]^\\" else letter for letter in start)
        with self._permitted("read"):
            keys = {key.decode() for key in self._client.scan_iter(match=escaped + "*", count=1000)}
        found = (key.removeprefix(start) for key in keys)
        return sorted(name for name in found if name.startswith(prefix))

    def delete(self, name: str) -> None:
        """Delete a key, if it is there."""
        key = self._key(name)
        self._lease.check()
        with self._permitted("written to"):
            self._client.delete(key)

    def neighbors(self) -> list[tuple[BlobStorage, str]]:
        """The histories of other indexes, of whose nodes this index may have copies."""
        with self._permitted("read"):
            keys = [key.decode() for key in self._client.scan_iter(match="nudge-rag:*:blob:*", count=1000)]
        prefixes = sorted({key.partition(":blob:")[0] for key in keys} - {self._prefix[:-1]})
        places = [prefix.removeprefix("nudge-rag:").rpartition(":") for prefix in prefixes]
        return [
            (RedisHistory(self._client, index, field), copy_advice(f"the index {index}"))
            for index, _, field in places
            if index
        ]

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lease, waiting for it at most ten seconds beyond a dead holder's time.

        Raises:
            LockedError: another process or thread still holds it.
        """
        with self._lease.hold():
            yield

    def _key(self, name: str) -> str:
        return f"{self._prefix}blob:{check_blob_name(name)}"

    @contextmanager
    def _permitted(self, what: str) -> Iterator[None]:
        import redis

        try:
            yield
        except redis.exceptions.NoPermissionError as error:
            raise StoreError(
                f"{self.location}, which are to hold the history of pushes, cannot be {what}: {error}; give the user"
                " the right to these keys, or keep the history in a folder with versions=PATH"
            ) from error


class _RedisRecord:
    """The lease's record, in a key."""

    def __init__(self, client: Any, key: str) -> None:
        self._client, self._key = client, key

    def read(self) -> str | None:
        """Value of the key."""
        value = self._client.get(self._key)
        return None if value is None else value.decode("utf-8", "replace")

    def write(self, text: str) -> None:
        """Set the key."""
        self._client.set(self._key, text)

    def remove(self) -> None:
        """Delete the key."""
        self._client.delete(self._key)
