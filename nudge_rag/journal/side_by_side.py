"""What a store must be able to do to hold a copy beside the live version, and the copies that it has."""

from __future__ import annotations

from nudge_rag.errors import PushError
from nudge_rag.journal.manifest import IN_PLACE
from nudge_rag.journal.versions import Version
from nudge_rag.stores.access import reading, require_store
from nudge_rag.stores.base import EmbeddingStore, SideBySideStore, StoreError
from nudge_rag.stores.copies import CatchingUpStore

__all__ = [
    "drop_copy",
    "labels_of",
    "require_atomic_switch",
    "require_catching_up",
    "require_copies",
    "require_not_switched",
]

STORES = (
    "SimpleVectorStore, InMemoryVectorStore, Chroma, FAISS, PostgreSQL, LanceDB, Parquet, and by an alias Milvus and"
    " Qdrant"
)


def require_copies(store: EmbeddingStore) -> SideBySideStore:
    """Return ``store``, if it can hold a copy of its vectors beside the live ones.

    Raises:
        ValueError: it does not.
    """
    require_store(store)
    if not store.capabilities.side_by_side or not isinstance(store, SideBySideStore):
        raise ValueError(
            f"this {store.name} store does not hold two versions of its vectors: use mode={IN_PLACE!r}. Side by side"
            f" works on {STORES}"
        )
    return store


def require_catching_up(store: EmbeddingStore) -> None:
    """Raise ValueError if the copies of ``store`` do not catch up with what is written to the live version."""
    if not isinstance(store, CatchingUpStore):
        raise ValueError(
            f"copies of this {store.name} store do not catch up with what is written to it, and all nodes are mapped:"
            f" use mode={IN_PLACE!r}"
        )


def require_atomic_switch(store: EmbeddingStore) -> None:
    """Raise ValueError if ``store`` swaps what is live and a copy in more steps than one."""
    if not store.capabilities.atomic_switch:
        raise ValueError(
            f"this {store.name} store cannot swap two versions in one step: while it switches, whoever opens it may"
            " find nothing; pass accept_gap=True (--accept-gap) to switch all the same"
        )


def require_not_switched(live: Version | None) -> None:
    """Raise PushError if ``live`` was made live by a switch: a push over it could not be switched back."""
    if live is not None and live.is_beside:
        raise PushError(
            f"version {live.name} was made live by switch(): undo it with rollback(), or keep it with drop_copies(),"
            " and push then; nothing was written"
        )


def labels_of(store: EmbeddingStore) -> list[str]:
    """List the labels of the versions beside the live one.

    Raises:
        StoreError: the store fails.
    """
    with reading(store, "the versions beside it were listed"):
        return require_copies(store).copy_labels()


def drop_copy(store: EmbeddingStore, version: Version) -> None:
    """Remove the version of that label, if it is still there.

    Raises:
        PushError: the store failed; the journal is as it was, and a later call drops the copy.
        StoreError: the store failed before anything was removed.
    """
    if version.label not in labels_of(store):
        return
    try:
        require_copies(store).drop_copy(version.label)
    except (ValueError, TypeError, StoreError):
        raise
    except Exception as error:
        raise PushError(
            f"{store.name} failed while the copy of version {version.name} was dropped ({error}): a later call drops it"
        ) from error
