"""The pushes to one store: opened once, vectors loaded only when they are asked for, one writer at a time."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import numpy as np

from nudge_rag.common.archive import MANIFEST, CorruptArchiveError, encode_manifest, parse_manifest
from nudge_rag.common.arrays import FloatArray, IntArray
from nudge_rag.common.deprecation import renamed_argument
from nudge_rag.errors import JournalError, NudgeError
from nudge_rag.journal.away import AwayNodes
from nudge_rag.journal.changes import CHANGES_HERE
from nudge_rag.journal.coding import Vectors
from nudge_rag.journal.derived import Derivation
from nudge_rag.journal.ingested import IngestedNodes
from nudge_rag.journal.learned_queries import QUERY_CHANGE, describe_change
from nudge_rag.journal.manifest import (
    BASE,
    COMMITTED,
    IN_PLACE,
    NAME,
    PREPARED,
    ROLLED_BACK,
    SIDE_BY_SIDE,
    STREAMED,
    SUPERSEDED,
)
from nudge_rag.journal.manifest import wrong_manifest as why_wrong
from nudge_rag.journal.ownership import Home, find_home
from nudge_rag.journal.returned import IsKnown, Returned, among, find_returned, match_over
from nudge_rag.journal.stamping import find_unrecorded, refuse_older_history, stamps_in
from nudge_rag.journal.storage import writing_to
from nudge_rag.journal.store_record import STORE
from nudge_rag.journal.versions import PUSH, Version, checked
from nudge_rag.stores.access import reading, same_rows
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.stores.history import BlobStorage, TransactionalStore
from nudge_rag.stores.stamps import Stamps

__all__ = ["Journal", "LostVersionError", "nudged_ids", "original_vectors", "versions"]

logger = logging.getLogger(__name__)

T = TypeVar("T")
# Superseded versions that can still be undone one by one; of older ones only the manifest is kept.
KEPT = 2
# Versions that were rolled back whose vectors are kept, by which they are known if they come back; of those that wrote
# all nodes, the newest alone.
KEPT_OVER = 3
# In a manifest: nothing was live when this version was recorded, so that all before it are over.
FRESH = "fresh"
# In a manifest: the version that was live when this one was recorded.
PREVIOUS = "previous"
# Records are read anew so often if they changed meanwhile.
TRIES_TO_READ = 10


class LostVersionError(CorruptArchiveError):
    """The record of the newest version is gone."""


class Journal:
    """The pushes to one store.

    Attributes:
        store: the store.
        home: the place of its history.
        versions: the pushes, oldest first.
        away: nodes that were moved, and were not there when that was undone.
        ingested: vectors of nodes that were mapped before they were added.
    """

    def __init__(self, store: EmbeddingStore, home: Home) -> None:
        self.store, self.home = store, home
        self.versions: tuple[Version, ...] = ()
        self.away = AwayNodes(home.storage)
        self.ingested = IngestedNodes(home.storage)
        self._names: list[str] = []

    @classmethod
    def open(cls, store: EmbeddingStore, versions: str | Path | None = None) -> Journal:
        """Read the manifests of all pushes to ``store``.

        Args:
            store: the vector store.
            versions: the folder of the history; None for the store's own.

        Raises:
            CorruptArchiveError: a record is damaged; the message names it.
            JournalError: the history is elsewhere, cannot be read, or is older than what the store holds.
            StoreError: the store failed.
        """
        journal = cls(store, find_home(store, versions))
        journal.read()
        return journal

    @classmethod
    def ask(cls, store: EmbeddingStore, versions: str | Path | None, question: Callable[[Journal], T]) -> T:
        """Ask without the lock; once more if another process pushed or pruned meanwhile, so that records were gone.

        Args:
            store: the vector store.
            versions: the folder of the history; None for the store's own.
            question: what is asked.

        Raises:
            CorruptArchiveError: a record is damaged; the message names it.
            JournalError: as for `open`.
            StoreError: the store failed.
        """
        left = TRIES_TO_READ
        while True:
            journal, left = cls.open(store, versions), left - 1
            try:
                return question(journal)
            except CorruptArchiveError:
                if not left or journal._is_unchanged():
                    raise

    @property
    def name(self) -> str:
        """Of the store, for messages."""
        return self.home.name

    @property
    def storage(self) -> BlobStorage:
        """The storage of the history."""
        return self.home.storage

    @property
    def live(self) -> Version | None:
        """The version that was switched to, or else the last push in place that was not rolled back."""
        live = [version for version in reversed(self.versions) if version.is_live]
        # Beneath one that was switched to, a later push in place may be: an earlier release let that be.
        return next((version for version in live if version.is_beside), live[0] if live else None)

    @property
    def beneath(self) -> Version | None:
        """The last push in place that was not rolled back: what is live, or was before a switch."""
        return next((version for version in reversed(self.in_place) if version.is_live), None)

    @property
    def staged(self) -> Version | None:
        """The push that waits beside the live version for `nudge_rag.switch`."""
        return next((one for one in reversed(self.versions) if one.is_beside and one.state == COMMITTED), None)

    def over(self, live: Version | None) -> list[Version]:
        """The pushes besides ``live`` whose vectors are known if they come back, newest first."""
        return [version for version in reversed(self.versions) if version is not live and version.may_return]

    @property
    def in_place(self) -> list[Version]:
        """The pushes that were made over the live version."""
        return [version for version in self.versions if not version.is_beside]

    def read(self) -> None:
        """Read the manifests, unless they are older than what the store holds, as after a backup was restored.

        Raises:
            CorruptArchiveError: the record is damaged.
            JournalError: it cannot be read, or is older.
            StoreError: the store failed.
        """
        for left in reversed(range(TRIES_TO_READ)):
            stamps = stamps_in(self.store)
            try:
                self.refresh()
                break
            except CorruptArchiveError:
                # Another process may have pushed or pruned between two reads, which nothing keeps apart here.
                if not left or self._is_unchanged():
                    raise
        self.refuse_older(stamps)

    def _is_unchanged(self) -> bool:
        """Whether the records are still named as `refresh` found them."""
        names = self._names
        self.numbers()
        return names == self._names

    def refuse_older(self, stamps: Stamps) -> None:
        """Raise LostHistoryError if the store holds what a push wrote that came after all that are recorded.

        Args:
            stamps: of the store, as they were before the manifests were read.
        """
        refuse_older_history(self.store, self.storage, stamps, self.versions, self.originals_of)

    def find_unrecorded(self) -> dict[str, str]:
        """Find nodes that hold what a push wrote that came after all that are recorded, and its version's name."""
        stamps = stamps_in(self.store)
        self.refresh()
        return find_unrecorded(self.store, stamps, self.versions, self.originals_of)

    def refresh(self) -> None:
        """Read the manifests again.

        Raises:
            CorruptArchiveError: the record is damaged.
            JournalError: it cannot be read.
        """
        found: list[Version] = []
        for name in reversed(self.numbers()):  # newest first, as older ones may be differences to them
            version = self.read_version(name, found)
            if version is not None:
                found.insert(0, version)
        self.versions = tuple(found)
        self._require_newest()
        self._find_what_is_over()
        self.away = AwayNodes.read(self.storage, self._names)
        self.ingested = IngestedNodes(self.storage, self._names)

    def numbers(self) -> list[str]:
        """Whatever is named as a version is, oldest first."""
        with writing_to(self.storage, "read"):
            self._names = self.storage.names()
        names = {name.partition("/")[0] for name in self._names}
        return sorted((name for name in names if re.fullmatch(NAME, name)), key=lambda name: (int(name), name))

    @contextmanager
    def lock(self) -> Iterator[Journal]:
        """Let nobody else push or roll back, and read everything recorded until now.

        Raises:
            LockedError: a push or rollback is under way.
        """
        with ExitStack() as stack:
            stack.enter_context(CHANGES_HERE.change())
            with writing_to(self.storage, "locked"):
                stack.enter_context(self.storage.lock())
            self.refresh()
            try:
                yield self
            except Exception:
                self._unmark_if_undone()
                raise
            self.mark()

    def transaction(self) -> AbstractContextManager[None]:
        """Make all writes to the store and its history inside take effect together or not at all, if the store can."""
        return self.store.transaction() if self.is_transactional else nullcontext()  # type: ignore[attr-defined]

    @property
    def is_transactional(self) -> bool:
        """Whether the history is written in one transaction with the vectors."""
        return self.home.is_own and isinstance(self.store, TransactionalStore)

    def record(
        self,
        ids: Sequence[str],
        vectors: Vectors,
        details: Mapping[str, Any],
        mode: str = IN_PLACE,
        *,
        streamed: bool = False,
    ) -> Version:
        """Record a push that is about to be made, durably, in state ``prepared``.

        Args:
            ids: of the nodes that it writes; if it is streamed, of those that get a vector of their own.
            vectors: of these nodes.
            details: facts about the nudge.
            mode: ``"in-place"`` or ``"side-by-side"``.
            streamed: all nodes are written, a block at a time.

        Raises:
            ValueError: it could not be read again, such as for a gamma that is NaN; nothing is recorded.
            JournalError: it cannot be written.
        """
        highest = max((version.number for version in self.versions), default=0)
        taken = {name.partition("/")[0] for name in self._names}
        number = next(number for number in range(highest + 1, highest + len(taken) + 2) if f"{number:04d}" not in taken)
        manifest: dict[str, Any] = {
            "state": PREPARED,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "store": {
                "name": self.store.name,
                "key": self.name,
                "similarity": self.store.capabilities.similarity,
            },
            "dimension": int(vectors.after.shape[1]),
            "details": dict(details),
            "ids": list(ids),
            PUSH: uuid4().hex[:8],
        }
        manifest |= {FRESH: True} if self.live is None else {PREVIOUS: self.live.name}
        if self.live is not None:
            manifest[QUERY_CHANGE] = describe_change(self.live.manifest["details"], details)
        if streamed:
            manifest[STREAMED] = True
        if mode == SIDE_BY_SIDE:
            # Unlike any other, also one of a journal elsewhere: a copy is never taken for another's.
            manifest |= {"mode": mode, "label": f"nudge_{number:04d}_{uuid4().hex[:6]}"}
        _check_readable(manifest, vectors)
        described = self.home.settle(self.store)
        manifest["store"]["identity"] = str(described.get("identity"))
        version = Version(self.storage, f"{number:04d}", manifest)
        try:
            version.write(vectors)
            self.home.note_newest(version.name, described)
        except JournalError as error:
            raise type(error)(f"{error}: nothing was pushed") from error.__cause__
        self.versions = (*self.versions, version)
        return version

    def commit(self, version: Version) -> None:
        """Record that ``version`` is the live one, in place of those before it."""
        version.set_state(COMMITTED)
        for previous in self.in_place:
            if previous.number < version.number and previous.state == COMMITTED:
                previous.set_state(SUPERSEDED)
        self.compact()
        self.thin_out()

    def compact(self) -> None:
        """Store superseded versions as differences to newer ones, and keep of old ones nothing but the manifest."""
        kept = [one for one in reversed(self.in_place) if one.state in (COMMITTED, SUPERSEDED)]
        live = self.live
        if not kept or kept[0].state != COMMITTED or kept[0] is not live:
            return
        try:
            for place, version in enumerate(kept[1:]):
                if place >= KEPT and not version.is_thinned:
                    version.thin()
                elif place < KEPT and not version.is_thinned and BASE not in version.manifest:
                    _write_as_difference(version, kept[place])
        except (JournalError, CorruptArchiveError) as error:
            # The push is made; the next one tries again to save the space.
            logger.warning("superseded versions of %s keep their space: %s", self.name, error)

    def thin_out(self) -> None:
        """Keep nothing but the manifest of versions that were rolled back, but for the newest of them."""
        over = [one for one in reversed(self.versions) if one.state == ROLLED_BACK and not one.is_thinned]
        old = [one for place, one in enumerate(over) if place >= KEPT_OVER or (place and one.is_streamed)]
        try:
            for version in reversed(old):  # older ones may be differences to newer ones
                version.thin()
        except JournalError as error:
            logger.warning("versions of %s that were rolled back keep their space: %s", self.name, error)

    def roll_back(self, version: Version) -> None:
        """Record that ``version`` is undone; first, what is stored as a difference to it is made whole."""
        for other in self.versions:
            if other.manifest.get(BASE) == version.name and not other.is_thinned:
                other.write(other.load())
        if version.state == PREPARED:
            version.set_state(ROLLED_BACK)
        else:
            version.retire()

    def nudged_ids(self) -> tuple[str, ...]:
        """Ids of the nodes that may hold what a push wrote; of a push of all nodes, those with vectors of their own."""
        live = self.live
        ids = dict.fromkeys([*(() if live is None else live.ids), *self.away.vectors])
        returned = self.find_returned(among(ids), own_alone=True)
        return tuple(dict.fromkeys([*ids, *(node_id for part in returned for node_id in part.ids)]))

    def find_returned(self, is_known: IsKnown | None = None, *, own_alone: bool = False) -> Iterator[Returned]:
        """Nodes that hold nudges of versions that are not live; see `nudge_rag.journal.returned`."""
        with reading(self.store, "vectors of versions that are over were looked for"):
            yield from find_returned(self.store, self.over(self.live), is_known, own_alone=own_alone)

    def derivation(self, version: Version) -> Derivation:
        """How the vectors of a version were made that mapped all nodes beside the live version."""
        return Derivation(self.store, version, lambda ids, vectors: self.originals_before(ids, vectors, self.beneath))

    def find_live(self, ids: Sequence[str], vectors: FloatArray) -> tuple[IntArray, Vectors]:
        """Return which of the ``vectors`` that the store holds the live version knows, as rows, and its record of them.

        It knows vectors that it wrote, that it found, and originals.

        Raises:
            CorruptArchiveError: the record is damaged.
            JournalError: it cannot be read.
            StoreError: the store failed.
        """
        return self._find(ids, vectors, self.live)

    def originals_of(self, ids: Sequence[str], vectors: FloatArray) -> FloatArray:
        """``vectors`` as read from the store, with those that a push wrote replaced by their originals.

        A vector that differs from the pushed one (embedded again, edited) is its own original.
        """
        return self.originals_before(ids, vectors, self.live)

    def originals_before(self, ids: Sequence[str], vectors: FloatArray, live: Version | None) -> FloatArray:
        """As `originals_of`, of vectors that were read while ``live`` was."""
        originals = np.array(vectors)
        if self.away.vectors:
            for row, node_id in enumerate(ids):
                if self.away.is_back(self.store, node_id, vectors[row]):
                    originals[row] = self.away.vectors[node_id][1]
        if live is not None and live.is_streamed:
            self.ingested.look_again()
        if self.ingested:
            mapped, before = self.ingested.originals_of(np.asarray(vectors))
            originals[mapped] = before
        over = self.over(live)
        rows, known = self._find(ids, np.asarray(vectors), live)
        originals[rows] = known.originals
        if over:
            left = np.setdiff1d(np.arange(len(ids)), rows)
            names, found = [ids[row] for row in left.tolist()], np.asarray(vectors)[left]
            for _, places, before in match_over(self.store, over, names, found):
                originals[left[places]] = before
        return originals

    def _find(self, ids: Sequence[str], vectors: FloatArray, live: Version | None) -> tuple[IntArray, Vectors]:
        if live is None:
            return np.zeros(0, dtype=np.int64), Vectors(vectors[:0], vectors[:0], vectors[:0])
        if live.is_derived:
            return self.derivation(live).look_up(ids, vectors)
        rows, block = live.find(ids)
        known = block.vectors
        same = np.zeros(len(rows), dtype=np.bool_)
        for part in (known.after, known.before, known.originals):
            left = np.flatnonzero(~same)
            same[left] = same_rows(self.store, vectors[rows[left]], part[left])
        return rows[same], Vectors(known.originals[same], known.before[same], known.after[same])

    def read_version(self, name: str, newer: Sequence[Version] = ()) -> Version | None:
        """The version of that name; None if its process died before it was recorded, and before it wrote vectors."""
        place = f"{self.storage.location}/{name}"
        if name in self._names:
            try:
                with writing_to(self.storage, "read"):
                    self.storage.read(name)
            except KeyError:
                return None
            raise CorruptArchiveError(f"{place} is not a folder: it cannot be the record of a push")
        if f"{name}/{MANIFEST}" not in self._names:
            return None
        try:
            with writing_to(self.storage, "read"):
                content = self.storage.read(f"{name}/{MANIFEST}")
        except KeyError:
            raise CorruptArchiveError(f"{place}/{MANIFEST} is not a file") from None
        manifest = parse_manifest(f"{place}/{MANIFEST}", content)
        base = next((version for version in newer if version.name == manifest.get(BASE)), None)
        return checked(self.storage, name, manifest, base)

    def _require_newest(self) -> None:
        """Raise CorruptArchiveError if the newest record is gone: vectors that it wrote would pass for originals."""
        newest = self.home.newest() if STORE in self._names else None
        # An older release of this library, which notes nothing, may have recorded later ones and pruned that.
        if newest is not None and all(version.number < int(newest) for version in self.versions):
            raise LostVersionError(
                f"the record of version {newest} is gone from {self.storage.location}: nodes may hold what it wrote."
                " Bring it back, or embed them again; nudge_rag.repair(store) goes on without it"
            )

    def _find_what_is_over(self) -> None:
        """Superseded versions are over if nothing is live, or was when a later one was recorded."""
        starts = [version.number for version in self.versions if version.manifest.get(FRESH) is True]
        first = max(starts, default=0) if self.live is not None else math.inf
        for version in self.versions:
            version.is_over = version.number < first

    def mark(self) -> None:
        """Let the store carry the name of the folder for as long as its contents are needed."""
        if self.home.own is None or self.home.is_own:
            return
        if self.live is not None or self.staged is not None or self.away.vectors:
            self.home.mark()
        else:
            self.home.unmark()

    def _unmark_if_undone(self) -> None:
        """After an error, let go of a store that was marked for a push which was then undone."""
        is_marked = self.home.own is not None and not self.home.is_own
        if is_marked and not self.away.vectors and all(one.state in (ROLLED_BACK, SUPERSEDED) for one in self.versions):
            # What has failed is told; a mark that stays is taken away by the next call.
            with suppress(NudgeError, OSError):
                self.home.unmark()


def _write_as_difference(version: Version, newer: Version) -> None:
    """Store a version as a difference to a newer one, unless one of them holds its vectors in blocks."""
    if not (version.is_streamed or newer.is_streamed):
        version.write(version.load(), base=newer)


def _check_readable(manifest: Mapping[str, Any], vectors: Vectors) -> None:
    """Refuse records that could be written and not be read again: they would break every later call."""
    wrong = why_wrong(parse_manifest("the record", encode_manifest(manifest)))
    for name in ("originals", "before", "after"):
        if wrong is None and not np.isfinite(getattr(vectors, name)).all():
            wrong = f"as the store keeps them, vectors ({name}) hold NaN or infinite values"
    if wrong is not None:
        raise ValueError(f"this push could not be recorded: {wrong}; nothing was written")


@renamed_argument("root", "versions")
def versions(store: EmbeddingStore, versions: str | Path | None = None) -> list[Version]:
    """All recorded pushes to ``store``, oldest first; each prints as a summary.

    Args:
        store: the vector store.
        versions: the folder of the history; None for the store's own.

    Raises:
        CorruptArchiveError: a record is damaged; the message names it.
        JournalError: the history is elsewhere, or cannot be read.

    Example:
        >>> from nudge_rag.stores.memory.mapping import MappingStore
        >>> versions(MappingStore({"a": [1.0, 0.0]}, key="new"))
        []
    """

    def check_all(journal: Journal) -> list[Version]:
        for version in journal.versions:
            version.check()
        return list(journal.versions)

    return Journal.ask(store, versions, check_all)


def nudged_ids(store: EmbeddingStore, versions: str | Path | None = None) -> tuple[str, ...]:
    """Ids of the nodes that may hold what a push wrote."""
    return Journal.ask(store, versions, lambda journal: journal.nudged_ids())


def original_vectors(
    store: EmbeddingStore, ids: Sequence[str], vectors: FloatArray, versions: str | Path | None = None
) -> FloatArray:
    """``vectors`` as read from ``store``, with those that a push wrote replaced by their originals."""
    return Journal.ask(store, versions, lambda journal: journal.originals_of(ids, vectors))
