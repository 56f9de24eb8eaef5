"""Calls to a store that every verb shares: errors of one kind, comparisons within its rounding, conditional writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.errors import NudgeError, StoreError, UnknownIdError
from nudge_rag.stores.base import EmbeddingStore

__all__ = [
    "ConditionalStore",
    "read_present",
    "reading",
    "replace_vectors_if",
    "require_store",
    "same_rows",
    "same_vectors",
    "write_and_compare",
    "write_problem_of",
]

NODES_PER_WRITE = 2_000
# What tells a store from a framework's object, whose attributes are not asked for.
METHODS = ("read", "scan", "search", "matching", "replace")


@runtime_checkable
class ConditionalStore(Protocol):
    """A store that compares and sets vectors itself, such as by ``UPDATE ... WHERE embedding = expected``."""

    def replace_vectors_if(self, ids: Sequence[str], expected: FloatArray, vectors: FloatArray) -> list[str]:
        """Write only the rows whose stored vector still equals ``expected`` within the store's rounding.

        Returns:
            The ids that were not written, absent or changed.
        """
        ...


def write_problem_of(store: EmbeddingStore) -> str | None:
    """Say why no vector of ``store`` can be replaced; None if they can, or the store does not tell."""
    problem: str | None = getattr(store, "write_problem", None)
    return problem


def require_store(given: Any) -> None:
    """Refuse anything but a store, and say what a framework's object is to be passed to.

    Raises:
        TypeError: it is no `EmbeddingStore`.
    """
    if all(callable(getattr(given, method, None)) for method in METHODS):
        return
    kind = type(given)
    roots = [base.__module__.partition(".")[0] for base in kind.__mro__]
    advice = "see nudge_rag.stores and nudge_rag.open_store"
    if any(root.startswith("langchain") for root in roots):
        advice = "pass langchain_nudge.embedding_store(vectorstore); langchain_nudge has most such calls itself"
    elif "llama_index" in roots:
        package = "llama_index.retrievers.nudge"
        advice = f"pass {package}.embedding_store(index); {package} has most such calls itself"
    elif isinstance(given, str):
        advice = "pass nudge_rag.open_store(url)"
    raise TypeError(f"expected a store (an EmbeddingStore), got {kind.__name__}: {advice}")


@contextmanager
def reading(store: EmbeddingStore, what: str) -> Iterator[None]:
    """Turn what a database's client raises into a StoreError that says what failed; our errors and bad arguments stay.

    Raises:
        StoreError: the client failed, for instance because the connection was lost.
    """
    try:
        yield
    except (ValueError, TypeError, NudgeError):
        raise
    except Exception as error:
        detail = f"{type(error).__name__}: {error}"
        raise StoreError(f"{store.name} failed while {what}; nothing was written ({detail})") from error


def replace_vectors_if(
    store: EmbeddingStore, ids: Sequence[str], expected: FloatArray, vectors: FloatArray
) -> list[str]:
    """Write only the nodes whose stored vector still equals ``expected`` within the store's rounding.

    A store that cannot do so itself is read again just before each chunk is written; a writer that comes between the
    two is overwritten.

    Args:
        store: the vector store.
        ids: of the nodes, each once.
        expected: (len(ids), d) what the store must hold for a node to be written.
        vectors: (len(ids), d) what is written.

    Returns:
        The ids that were not written, absent or changed, in the order given.

    Example:
        >>> from nudge_rag.stores.memory.mapping import MappingStore
        >>> store = MappingStore({"a": [1.0, 0.0], "b": [0.5, 0.5]})
        >>> replace_vectors_if(store, ["a", "b"], np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[0.6, 0.8]] * 2))
        ['b']
        >>> store.read(["a", "b"]).tolist()
        [[0.6, 0.8], [0.5, 0.5]]
    """
    if isinstance(store, ConditionalStore):
        return store.replace_vectors_if(ids, expected, vectors)
    left: list[str] = []
    for start in range(0, len(ids), NODES_PER_WRITE):
        part = slice(start, start + NODES_PER_WRITE)
        left += _replace_chunk(store, list(ids[part]), expected[part], vectors[part])
    return left


def _replace_chunk(store: EmbeddingStore, ids: list[str], expected: FloatArray, vectors: FloatArray) -> list[str]:
    while True:
        current, _ = read_present(store, ids)
        rows = [row for row, node in enumerate(ids) if node in current]
        now = np.array([current[ids[row]] for row in rows]) if rows else expected[:0]
        unchanged = [row for row, same in zip(rows, same_rows(store, now, expected[rows]), strict=True) if same]
        try:
            if unchanged:
                store.replace([ids[row] for row in unchanged], vectors[unchanged])
        except UnknownIdError:
            continue  # deleted just now: read again, which finds fewer
        written = set(unchanged)
        return [node for row, node in enumerate(ids) if row not in written]


def read_present(store: EmbeddingStore, ids: Sequence[str]) -> tuple[dict[str, FloatArray], tuple[str, ...]]:
    """Vectors of those of ``ids`` that are in the store, and the ids that are not."""
    while True:
        present = store.matching(ids, None)
        found = [node_id for node_id in ids if node_id in present]
        try:
            vectors = store.read(found)
        except UnknownIdError:
            continue  # deleted between the two calls
        return dict(zip(found, vectors, strict=True)), tuple(node for node in ids if node not in present)


def write_and_compare(store: EmbeddingStore, ids: Sequence[str], vectors: FloatArray) -> bool:
    """Write ``vectors`` and read them back: whether the store kept them."""
    store.replace(ids, vectors)
    return same_vectors(store, store.read(ids), vectors)


def same_vectors(store: EmbeddingStore, found: FloatArray, expected: FloatArray) -> bool:
    """Equal bit for bit, or to within the rounding that the store makes known."""
    if not store.capabilities.rounding:
        return found.tobytes() == expected.tobytes()
    return found.shape == expected.shape and bool((np.abs(found - expected) <= store.capabilities.rounding).all())


def same_rows(store: EmbeddingStore, found: FloatArray, expected: FloatArray) -> list[bool]:
    """For each row, say whether `same_vectors` holds."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        pairs = zip(found, expected, strict=True)
        return [same_vectors(store, one, other) for one, other in pairs]
    if store.capabilities.rounding:
        close = np.abs(found - expected) <= store.capabilities.rounding
        return [bool(row.all()) for row in close]
    # Bit for bit, so that 0.0 is not -0.0.
    return [mine.tobytes() == theirs.tobytes() for mine, theirs in zip(found, expected, strict=True)]
