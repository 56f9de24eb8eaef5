"""`map_nodes`: move every node of a store by a function, into a copy beside the live version."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from typing import Protocol, runtime_checkable

from nudge_rag.common.arrays import FloatArray
from nudge_rag.stores.base import EmbeddingStore, SideBySideStore
from nudge_rag.stores.lake.fragments import FragmentedStore

__all__ = ["MappableStore", "VectorMap", "map_nodes"]

VectorMap = Callable[[FloatArray], FloatArray]
NODES_PER_STEP = 5_000


@runtime_checkable
class MappableStore(Protocol):
    """A store that moves all of its nodes fragment by fragment."""

    def map_to_copy(self, function: VectorMap, label: str, executor: Executor | None = None) -> EmbeddingStore:
        """Write ``function`` of every vector to a copy ``label``, and return its adapter."""
        ...


def map_nodes(
    store: EmbeddingStore, function: VectorMap, label: str, executor: Executor | None = None
) -> EmbeddingStore:
    """Move every node: write ``function`` of all vectors to a copy ``label`` beside the live version.

    A store of fragments has them rewritten one by one on the executor, without a vector passing through this process;
    others are copied, scanned and written to. Readers see nothing of it before ``store.switch(label)``, which a second
    call undoes.

    Args:
        store: it holds copies beside the live version.
        function: of vectors (n, d), gives (n, d), such as `QueryAdapter.apply_to_nodes`; on an executor of processes it
            can be pickled.
        label: of the copy: 1 to 24 letters, digits and underscores; a leftover of that label is replaced.
        executor: rewrites the fragments; None for the store's own, or else this process.

    Returns:
        The copy.

    Raises:
        ValueError: the store holds no copies or has no fragments for an executor; vectors that do not fit.

    Example:
        >>> import faiss, numpy as np
        >>> from nudge_rag.stores import FaissStore
        >>> index = faiss.IndexFlatIP(2)
        >>> index.add(np.eye(2, dtype=np.float32))
        >>> class Application:
        ...     index = index
        >>> store = FaissStore(index, {0: "a", 1: "b"}, held_by=(Application(), "index"))
        >>> map_nodes(store, lambda vectors: vectors[:, ::-1], "turned").read(["a"]).tolist()
        [[0.0, 1.0]]
    """
    if not isinstance(store, SideBySideStore) or not store.capabilities.side_by_side:
        raise ValueError(f"this {store.name} store holds no copy beside the live version for nodes to be moved in")
    if isinstance(store, MappableStore):
        return store.map_to_copy(function, label, executor)
    if executor is not None and not isinstance(store, FragmentedStore):
        raise ValueError(f"a {store.name} store has no fragments for an executor: leave executor out")
    copy = store.create_copy(label)
    try:
        for names, vectors in store.scan(NODES_PER_STEP):
            copy.replace(names, function(vectors))
    except BaseException:
        store.drop_copy(label)
        raise
    return copy
