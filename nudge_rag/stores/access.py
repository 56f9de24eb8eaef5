"""Calls to a store whose failures are one kind of error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nudge_rag.errors import StoreError
from nudge_rag.stores.base import EmbeddingStore

__all__ = ["reading"]


@contextmanager
def reading(store: EmbeddingStore, what: str) -> Iterator[None]:
    """Turn whatever a database's client raises into a StoreError that says what failed; bad arguments stay as they are.

    Raises:
        StoreError: the client failed, for instance because the connection was lost.
    """
    try:
        yield
    except (ValueError, TypeError, StoreError):
        raise
    except Exception as error:
        detail = f"{type(error).__name__}: {error}"
        raise StoreError(f"{store.name} failed while {what}; nothing was written ({detail})") from error
