"""The map of queries that belongs to what is live in a store: written with a push, found by retrievers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np

from nudge_rag.common.caller import warn_caller
from nudge_rag.common.embedding import EmbedQueries
from nudge_rag.errors import JournalError, LostHistoryError, NudgeError
from nudge_rag.journal.fingerprints import FINGERPRINT, Fingerprint, describe_model, differing_models
from nudge_rag.journal.journal import Journal
from nudge_rag.journal.manifest import COMMITTED, SWITCHED
from nudge_rag.journal.node_map import pack_adapter, unpack_adapter
from nudge_rag.journal.ownership import Home, marked_versions
from nudge_rag.journal.versions import Version
from nudge_rag.solvers.linear_map.adapter import QueryAdapter
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.stores.storages import FolderStorage
from nudge_rag.tuning.held_version import ADAPTER, NOTHING, HeldVersion, HeldVersions, describe_age
from nudge_rag.tuning.looking import SECONDS_BETWEEN_LOOKS, Looker

__all__ = [
    "ADAPTER",
    "LiveAdapter",
    "OnUnreadable",
    "OpenedStore",
    "live_adapter",
    "map_query",
    "pack_adapter",
    "unpack_adapter",
    "warn_of_other_model",
]

logger = logging.getLogger(__name__)

# What is done if the history of a store cannot be read.
OnUnreadable: TypeAlias = Literal["raise", "serve"]


def live_adapter(store: EmbeddingStore, versions: str | Path | None = None) -> QueryAdapter | None:
    """Return the map that queries of ``store`` have to pass; None if what is live has none.

    Args:
        store: the vector store.
        versions: folder of its history; None for the store's own, or that which the store names.

    Raises:
        CorruptArchiveError: the history or its adapter is damaged.
        JournalError: the history is out of reach, or cannot be read.
        StoreError: the store failed.
    """
    return HeldVersion.of(open_journal(store, versions).live).adapter


def open_journal(store: EmbeddingStore, versions: str | Path | None) -> Journal:
    """Open the history for reading, in the folder that the store names if it is not its own."""
    try:
        return Journal.open(store, versions)
    except LostHistoryError as lost:
        # An index that its framework loaded from a file does not know the file, beside which the history lies.
        if lost.folder is None:
            raise
        journal = Journal(store, Home(FolderStorage(lost.folder), None, store.key))
        journal.read()
        return journal
    except JournalError:
        named = marked_versions(store) if versions is None else None
        if named is None or not named.is_dir():
            raise
        return Journal.open(store, named)


def warn_of_other_model(made_for: Fingerprint | None, embed_queries: EmbedQueries, what: str) -> None:
    """Warn if queries are embedded by another model than the one that something was made for.

    Args:
        made_for: the fingerprint of that model; None for one that is not known, and then nothing is embedded.
        embed_queries: texts to query embeddings.
        what: was made for it, such as ``"this nudge"``.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warn_of_other_model(Fingerprint(np.eye(4)), lambda texts: np.ones((len(texts), 4)), "this nudge")
        >>> print(caught[0].message)
        this nudge was made for another embedding model than this one: the same text has a cosine of 0.500 in both
    """
    if made_for is None:
        return
    differing = differing_models({FINGERPRINT: made_for.pack()}, describe_model(embed_queries))
    if differing is not None:
        warn_caller(f"{what} was made for {differing}")


def map_query(adapter: QueryAdapter | None, vector: Sequence[float]) -> list[float]:
    """Map one query embedding, as frameworks pass it; as it is if there is no map, or no direction to map.

    Example:
        >>> map_query(QueryAdapter(np.array([[0.0, 1.0], [0.0, 0.0]])), [0.0, 1.0])
        [0.7071067811865475, 0.7071067811865475]
    """
    query = np.asarray(vector, dtype=np.float64)
    if adapter is None or not query.any():
        return list(vector)
    mapped: list[float] = adapter(query[None])[0].tolist()
    return mapped


@dataclass(frozen=True)
class OpenedStore:
    """Gives a store that is open, where one is asked for that opens it.

    Attributes:
        store: the store.
    """

    store: EmbeddingStore

    def __call__(self) -> EmbeddingStore:
        """Give the store."""
        return self.store


class LiveAdapter(Looker):
    """The map that belongs to what is live in a store, looked up at first use and once a minute from then on.

    A push or rollback by this process is seen at once. An index in memory, to whose file another process has pushed,
    holds the vectors of before until it is loaded again: until then the map stays that of these, with a warning.

    If the history cannot be read at the first look, that is an error: without its map, a nudge may do harm. Later the
    map that was read last stays, with a warning. It is warned as well if a file is here without its history, if the
    file of an index is not known, and if what is live was made for another embedding model.

    Args:
        open_store: opens the vector store; called at first use.
        versions: folder of its history; None for the store's own, or that which the store names.
        seconds: between two looks at the history.
        on_unreadable: ``"raise"``, or ``"serve"`` to leave queries as they are, with a warning, until it can be read.
        embed_queries: texts to query embeddings, by the model that queries are embedded by; None to leave it unchecked.

    Raises:
        ValueError: another ``on_unreadable``.

    Example:
        >>> from nudge_rag.stores import MappingStore
        >>> adapter = LiveAdapter(lambda: MappingStore({"n1": [1.0, 0.0]}, key="example"))
        >>> adapter.map_query([0.6, 0.8])    # nothing was pushed
        [0.6, 0.8]
    """

    def __init__(
        self,
        open_store: Callable[[], EmbeddingStore],
        versions: str | Path | None = None,
        seconds: float = SECONDS_BETWEEN_LOOKS,
        on_unreadable: OnUnreadable = "raise",
        embed_queries: EmbedQueries | None = None,
    ) -> None:
        if on_unreadable not in get_args(OnUnreadable):
            raise ValueError(f"on_unreadable must be 'raise' or 'serve', got {on_unreadable!r}")
        super().__init__(open_store, versions, seconds)
        self._on_unreadable = on_unreadable
        self._embed_queries = embed_queries
        self._versions_held, self._held = HeldVersions(), NOTHING
        self._warned = self._told_of_file = self._told_of_age = False
        self._checked: str | None = None

    def start(self) -> None:
        """Look for the first time. A store that cannot be opened yet, such as one without a table, has no history.

        Raises:
            JournalError: the history cannot be read.
        """
        try:
            self.find()
        except NudgeError:
            raise
        except Exception as error:
            logger.info("the history is looked for at the first query: %s", error)

    def find(self) -> QueryAdapter | None:
        """Return the map; None if what is live has none.

        Raises:
            JournalError: the history cannot be read.
        """
        with self._lock:
            now = time.monotonic()
            if self._is_due(now):
                self._begin_look()
                self._held = self._look()
                self._end_look(now)
            return self._held.adapter

    def map_query(self, vector: Sequence[float]) -> list[float]:
        """Map one query embedding; as it is if what is live has no map."""
        return map_query(self.find(), vector)

    def _look(self) -> HeldVersion:
        try:
            store = self._open_live()
            journal = open_journal(store, self._versions)
            live = journal.live
            if live is None and self._versions is None:
                self._tell_of_unknown_file(store)
            held = self._versions_held.find(journal)
            self._tell_of_age(store, held, live)
            if live is not None and held.mark == live.mark:
                self._check_model(live)
            return held
        except NudgeError as error:
            problem = f"whether queries must pass a map of the live nudge could not be read: {error}"
            # A file that was brought here without its history is served: what it holds is known to be nudged.
            is_lost = isinstance(error, LostHistoryError)
            if self._looked is None and self._on_unreadable == "raise" and not is_lost:
                raise JournalError(f"{problem} (on_unreadable='serve' serves queries as they are)") from error
            if not self._warned:
                warn_caller(problem)
            self._warned = True
            return self._held

    def _tell_of_unknown_file(self, store: EmbeddingStore) -> None:
        """Warn once of a store, with no history in this process, that may have been loaded from a file with one."""
        unknown_file = getattr(store, "unknown_file", None)
        problem = None if unknown_file is None or self._told_of_file else unknown_file()
        if problem is not None:
            warn_caller(problem)
            self._told_of_file = True

    def _tell_of_age(self, store: EmbeddingStore, held: HeldVersion, live: Version | None) -> None:
        """Warn once of vectors in memory that are not those of the live version, unless they are being changed now."""
        if held.mark == (None if live is None else live.mark):
            self._told_of_age = False
            return
        is_settled = live is None or live.state in (COMMITTED, SWITCHED)
        if self._told_of_age or not is_settled or self._is_changing():
            return
        self._told_of_age = True
        warn_caller(describe_age(store.name, held, live))

    def _check_model(self, live: Version) -> None:
        """Compare the model with that of the live version, once for each version."""
        if self._embed_queries is None or live.name == self._checked:
            return
        self._checked = live.name
        made_for = Fingerprint.unpack(live.manifest.get("details", {}).get(FINGERPRINT))
        warn_of_other_model(made_for, self._embed_queries, f"version {live.name}, which is live,")
