"""Errors of a history's storage, told as errors of the journal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nudge_rag.errors import JournalAccessError, JournalError, NudgeError
from nudge_rag.stores.history import BlobStorage

__all__ = ["writing_to"]


@contextmanager
def writing_to(storage: BlobStorage, what: str) -> Iterator[None]:
    """Turn whatever fails in a storage into a JournalError, which says where and why.

    Raises:
        JournalAccessError: the system refuses access.
        JournalError: anything else fails.
    """
    try:
        yield
    except (NudgeError, KeyError, ValueError, TypeError):
        raise
    except Exception as error:
        kind = JournalAccessError if isinstance(error, PermissionError) else JournalError
        raise kind(f"the journal cannot be {what} ({error}), in {storage.location}") from error
