"""One push as it is recorded: a manifest that is read at once, and vectors that are loaded when they are asked for.

Blobs: ``<number>/manifest.json`` and ``<number>/arrays.npz``; of a folder, ``<versions>/<store key>/<number>/...``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nudge_rag.common.archive import (
    ARRAYS,
    MANIFEST,
    CorruptArchiveError,
    encode_arrays,
    encode_manifest,
    parse_arrays,
    sha256_of,
)
from nudge_rag.common.arrays import FloatArray
from nudge_rag.errors import JournalError, PushError
from nudge_rag.journal.blocks import Block, BlockRecord
from nudge_rag.journal.coding import Vectors, decode, encode
from nudge_rag.journal.fingerprints import known_name
from nudge_rag.journal.learned_queries import QUERY_CHANGE
from nudge_rag.journal.manifest import (
    BASE,
    BLOCKS,
    COMMITTED,
    IN_PLACE,
    LIVE,
    ROLLED_BACK,
    SIDE_BY_SIDE,
    STREAMED,
    SUPERSEDED,
    SWITCHED,
    SWITCHING,
    THINNED,
    VERIFIED,
    WAS_LIVE,
    WRITING,
    wrong_manifest,
)
from nudge_rag.journal.storage import writing_to
from nudge_rag.stores.access import same_vectors
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.stores.history import BlobStorage
from nudge_rag.stores.storages import FolderStorage

__all__ = ["JournalError", "PushError", "Version", "as_version", "writing_to"]

SHOWN = 120
# In a manifest: tells the push from any other of its number.
PUSH, TOLD_BY = "push", re.compile("[0-9a-f]{8}")
# In the manifest of a version that is thinned out: names of the details that are not kept.
LOST = "details_lost"
# The states that a push is given while it goes on: none of them replaces arrays.
GOES_ON = (WRITING, VERIFIED, COMMITTED)


class Version:
    """One push to a store.

    Args:
        storage: the storage that records it.
        name: its number, four digits or more.
        manifest: its record, but for the vectors.
        base: the newer version that this one is stored as a difference to, if it is.
    """

    def __init__(self, storage: BlobStorage, name: str, manifest: dict[str, Any], base: Version | None = None) -> None:
        self.storage, self.name, self.manifest = storage, name, manifest
        # Older versions refer to newer ones and never the other way, so that no cycle keeps their vectors in memory.
        self.base = base
        self.is_over = False
        self._ids: tuple[str, ...] | None = None
        self._rows: dict[str, int] | None = None
        self._vectors: Vectors | None = None
        self._blocks: BlockRecord | None = None

    def __repr__(self) -> str:
        return f"Version({self.name!r}, {self.state!r})"

    def __str__(self) -> str:
        details = self.manifest.get("details", {})
        solver = _printable(details.get("solver", "unknown solver"))
        state = "ready beside" if self.is_beside and self.state == COMMITTED else self.state
        created, gamma = _printable(self.manifest["created"]), details.get("gamma", float("nan"))
        return f"{self.name}: {state}, {created}, {self.n_nodes} nodes, {solver}, gamma {gamma:.3g}"

    @property
    def number(self) -> int:
        """Its place in the order of pushes."""
        return int(self.name)

    @property
    def mark(self) -> str:
        """Its name, and what tells it from another of that name: names are given again once all records are pruned."""
        told_by = self.manifest.get(PUSH)
        return f"{self.name}-{told_by}" if isinstance(told_by, str) and TOLD_BY.fullmatch(told_by) else self.name

    @property
    def place(self) -> str:
        """The place of its record, for messages."""
        return f"{self.storage.location}/{self.name}"

    @property
    def state(self) -> str:
        """``prepared``, ``writing``, ``verified``, ``committed``, ``superseded`` or ``rolled back``.

        One that is a copy is ``committed`` when it is ready, and then ``switching`` or ``switched``.
        """
        state = str(self.manifest["state"])
        # A version superseded by one that was undone with all before it is undone as well, and not written again.
        return ROLLED_BACK if self.is_over and state == SUPERSEDED else state

    @property
    def previous(self) -> str | None:
        """Name of the version that was live when this one was recorded; None if there was none, or it is not known."""
        name = self.manifest.get("previous")
        return None if name is None else str(name)

    @property
    def is_beside(self) -> bool:
        """Whether it was pushed beside the live version, rather than over it."""
        return str(self.manifest.get("mode", IN_PLACE)) == SIDE_BY_SIDE

    @property
    def label(self) -> str:
        """The label of the copy of all nodes that this push made; empty for a push in place."""
        return str(self.manifest.get("label", ""))

    @property
    def is_live(self) -> bool:
        """Whether the store as it is read may hold vectors that this push wrote."""
        return self.state in ((SWITCHING, SWITCHED) if self.is_beside else LIVE)

    @property
    def may_return(self) -> bool:
        """Whether it is over, and vectors that it had made live are recorded, by which they are known if they return.

        So is one that waits beside the live version, if it was live by a switch before.
        """
        if self.is_derived or self.is_thinned:
            return False
        if self.is_beside:
            return self.manifest.get(WAS_LIVE) is True and self.state in (COMMITTED, ROLLED_BACK)
        return self.state in (COMMITTED, SUPERSEDED, ROLLED_BACK)

    @property
    def is_thinned(self) -> bool:
        """Whether only its manifest is left: it can be undone together with all others, and not by itself."""
        base = None if THINNED in self.manifest else self._base()
        return THINNED in self.manifest or (base is not None and base.is_thinned)

    @property
    def n_nodes(self) -> int:
        """Number of nodes that it wrote."""
        if self.is_streamed or "ids" not in self.manifest:
            return int(self.manifest.get("n_nodes", 0))
        return len(self.manifest["ids"])

    @property
    def is_streamed(self) -> bool:
        """Whether it wrote all nodes, a block at a time: ``ids`` and vectors are those of its nudge alone then."""
        return self.manifest.get(STREAMED) is True

    @property
    def is_derived(self) -> bool:
        """Whether no vectors of its nodes are recorded, as its copy holds those of before or after."""
        return self.is_streamed and self.is_beside

    @property
    def blocks(self) -> BlockRecord:
        """The vectors of all nodes of a streamed push in place."""
        if self._blocks is None:
            self._blocks = BlockRecord(self.storage, self.name, self.dimension, self.manifest.get(BLOCKS))
        return self._blocks

    @property
    def dimension(self) -> int:
        """Of the vectors."""
        return int(self.manifest["dimension"])

    @property
    def model(self) -> str | None:
        """Name of the embedding model that the push was made for, if it was known."""
        return known_name(self.manifest.get("details", {}).get("model"))

    @property
    def text_hashes(self) -> Mapping[str, str]:
        """Node id to the hash of its text when it was tuned, if texts were given."""
        hashes: Mapping[str, str] = self.manifest["details"].get("text_hashes", {})
        return hashes

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of the nodes that it wrote; none if it was thinned before it was read."""
        if self._ids is None:
            if self.is_thinned:
                return ()
            given, base = self.manifest.get("ids"), self._base()
            self._ids = tuple(given) if given is not None else () if base is None else base.ids
        return self._ids

    @property
    def originals(self) -> FloatArray:
        """(n, d) vectors before any nudge."""
        return self.load().originals

    @property
    def before(self) -> FloatArray:
        """(n, d) vectors that the push found."""
        return self.load().before

    @property
    def after(self) -> FloatArray:
        """(n, d) vectors that it wrote."""
        return self.load().after

    def load(self) -> Vectors:
        """Read the vectors, once; of a version that is thinned out there are none.

        Raises:
            CorruptArchiveError: they are damaged, or not as a push writes them.
            JournalError: the journal cannot be read.
        """
        if self._vectors is None:
            if self.is_thinned:
                nothing = np.zeros((0, self.dimension))
                return Vectors(nothing, nothing, nothing)
            place = f"{self.place}/{ARRAYS}"
            try:
                with writing_to(self.storage, "read"):
                    content = self.storage.read(f"{self.name}/{self._arrays_name()}")
            except KeyError:
                raise CorruptArchiveError(f"{place} is missing") from None
            return self.adopt(parse_arrays(place, self.manifest, content))
        return self._vectors

    def parts(self) -> Iterator[Block]:
        """All nodes that it wrote, as recorded: of a streamed push in place a block at a time, else at once.

        Raises:
            CorruptArchiveError: the record is damaged.
            JournalError: it cannot be read.
        """
        if self.is_thinned or self.is_derived:
            return
        if self.is_streamed:
            yield from self.blocks
        else:
            yield Block(self.ids, self.load())

    def find(self, ids: Sequence[str]) -> tuple[np.ndarray[Any, Any], Block]:
        """Return which of ``ids`` it wrote, as rows, and what is recorded of them in the same order.

        Raises:
            CorruptArchiveError: the record is damaged.
            JournalError: it cannot be read.
        """
        if self.is_streamed and not self.is_thinned:
            return self.blocks.find(ids)
        if self._rows is None:
            self._rows = {node_id: at for at, node_id in enumerate(self.ids)}
        known = [(row, self._rows[node_id]) for row, node_id in enumerate(ids) if node_id in self._rows]
        rows, places = [row for row, _ in known], [at for _, at in known]
        if not rows and self._vectors is None:
            nothing = np.zeros((0, self.dimension))
            return np.zeros(0, dtype=np.int64), Block((), Vectors(nothing, nothing, nothing))
        vectors = self.load()
        found = Vectors(vectors.originals[places], vectors.before[places], vectors.after[places])
        return np.array(rows, dtype=np.int64), Block(tuple(ids[row] for row in rows), found)

    def check(self) -> None:
        """Read the vectors, and forget them again.

        Raises:
            CorruptArchiveError: the record is damaged.
            JournalError: it cannot be read.
        """
        if not self.is_thinned and self._vectors is None:
            self.load()
            self._vectors = None
        if self.is_streamed:
            for _ in self.parts():
                pass

    def adopt(self, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Vectors:
        """Take ``arrays`` as those that belong to the manifest.

        Raises:
            CorruptArchiveError: the record is damaged.
        """
        base = self._base()
        try:
            built_on = None if base is None else (base.ids, base.load())
            self._vectors = vectors = decode(self.ids, self.dimension, self.manifest, arrays, built_on)
        except (ValueError, MemoryError) as error:
            raise CorruptArchiveError(f"{self.place} is not the record of a push: {error}") from error
        return vectors

    def set_state(self, state: str) -> None:
        """Record ``state``, durably; of a version that was rolled back nothing but the manifest is kept.

        Raises:
            JournalError: the manifest cannot be written.
        """
        manifest = self.manifest | {"state": state}
        if state == ROLLED_BACK:
            manifest = thinned(manifest, self.n_nodes)
        self._record(manifest)

    def retire(self) -> None:
        """Record that it was rolled back, durably; its vectors are kept, by which they are known if they come back.

        Raises:
            JournalError: the manifest cannot be written.
        """
        if self.is_thinned or self.is_derived or (self.is_beside and WAS_LIVE not in self.manifest):
            self.set_state(ROLLED_BACK)
            return
        try:
            self._record(self.manifest | {"state": ROLLED_BACK})
        except JournalError:
            # On a full disk the short record may still fit.
            self.set_state(ROLLED_BACK)

    def _record(self, manifest: dict[str, Any]) -> None:
        state = manifest["state"]
        try:
            with writing_to(self.storage, "written to"):
                self.storage.write(f"{self.name}/{MANIFEST}", encode_manifest(manifest))
        except JournalError as error:
            raise type(error)(
                f"{error}: {self.place} still says {self.state!r}, not {state!r}; the next call goes on from there"
            ) from error.__cause__
        # A push that goes on replaces no arrays: there is nothing to look for at each of its steps.
        self._replace_manifest(manifest, [] if state in GOES_ON else None)

    def write(self, vectors: Vectors, base: Version | None = None, **fields: Any) -> None:
        """Record ``vectors``, as a difference to ``base`` if one is given, and then the manifest that names them.

        Raises:
            JournalError: it cannot be written; the record from before stays.
        """
        built_on = None if base is None else (base.ids, base.load())
        coding, arrays = encode(self.ids, vectors, built_on)
        content = encode_arrays(arrays)
        manifest = {name: value for name, value in self.manifest.items() if name not in (BASE, THINNED)}
        manifest |= {**fields, **coding, "ids": list(self.ids), "arrays_sha256": sha256_of(content)}
        if base is not None:
            manifest[BASE] = base.name
            if base.ids == self.ids:
                manifest |= {"n_nodes": len(self.ids)}
                del manifest["ids"]
        blobs = self.storage.names(f"{self.name}/")
        if f"{self.name}/{MANIFEST}" in blobs:
            # Another name than the arrays that the manifest of before names, which stay until it is replaced.
            manifest["arrays"] = f"arrays-{manifest['arrays_sha256'][:12]}.npz"
        else:
            manifest.pop("arrays", None)
        place, text = f"{self.name}/{manifest.get('arrays', ARRAYS)}", encode_manifest(manifest)
        with writing_to(self.storage, "written to"):
            try:
                self.storage.write(place, content)
                self.storage.write(f"{self.name}/{MANIFEST}", text)
            except BaseException:
                if place != f"{self.name}/{self._arrays_name()}" or "arrays_sha256" not in self.manifest:
                    self.storage.delete(place)
                raise
        self._vectors, self.base = vectors, base
        self._replace_manifest(manifest, blobs)

    def rebuild(self, ids: Sequence[str], vectors: Vectors, state: str) -> None:
        """Record other ids and vectors than there were.

        Raises:
            JournalError: the journal cannot be written to.
        """
        self._ids, self._rows = tuple(ids), None
        self.write(vectors, state=state)

    def thin(self) -> None:
        """Keep nothing but the manifest, without its long entries."""
        manifest = thinned(self.manifest, self.n_nodes)
        with writing_to(self.storage, "written to"):
            self.storage.write(f"{self.name}/{MANIFEST}", encode_manifest(manifest))
        self._replace_manifest(manifest)

    def holds(self, store: EmbeddingStore, vector: FloatArray, at: int) -> bool:
        """Whether ``vector`` is one that this push wrote or found at its node ``at``."""
        return any(same_vectors(store, vector, known[at]) for known in (self.after, self.before, self.originals))

    def _replace_manifest(self, manifest: dict[str, Any], blobs: Sequence[str] | None = None) -> None:
        """Go on with a manifest that is recorded, and delete the arrays that it does not name.

        Args:
            manifest: the manifest.
            blobs: names of the blobs of this version that may be deleted; None for all that are there.
        """
        _ = self.ids  # of before, for callers that still work with them
        self.manifest, self._rows, self._blocks = manifest, None, None
        is_thinned = THINNED in manifest
        kept = {MANIFEST} if is_thinned else {MANIFEST, self._arrays_name()}
        with writing_to(self.storage, "written to"):
            for blob in self.storage.names(f"{self.name}/") if blobs is None else blobs:
                name = blob.removeprefix(f"{self.name}/")
                if name not in kept and (is_thinned or not self.is_streamed or not BlockRecord.owns(name)):
                    self.storage.delete(blob)

    def _arrays_name(self) -> str:
        name = self.manifest.get("arrays", ARRAYS)
        if not isinstance(name, str) or "/" in name:
            raise CorruptArchiveError(f"{self.place} is not the record of a push: its arrays are {name!r}")
        return name

    def _base(self) -> Version | None:
        name = self.manifest.get(BASE)
        if name is None or THINNED in self.manifest:
            return None
        if self.base is None or self.base.name != name or self.base.number <= self.number:
            raise CorruptArchiveError(f"{self.place} is stored as a difference to version {name}, which is not there")
        return self.base


def thinned(manifest: Mapping[str, Any], n_nodes: int) -> dict[str, Any]:
    """``manifest`` without ids, coding and whatever is long in its details."""
    dropped = ("ids", "arrays", "arrays_sha256", "before_like", BASE, QUERY_CHANGE)
    short = {name: value for name, value in manifest.items() if name not in dropped}
    details = {name: value for name, value in manifest["details"].items() if _is_short(value)}
    lost = sorted({*manifest["details"], *manifest.get(LOST, ())} - {*details})
    return short | {"details": details, "n_nodes": n_nodes, THINNED: True, LOST: lost}


def as_version(folder: Path, manifest: dict[str, Any], arrays: Mapping[str, np.ndarray[Any, Any]]) -> Version:
    """The version that was read of ``folder``, checked.

    Raises:
        CorruptArchiveError: anything is not as a push writes it.
    """
    version = checked(FolderStorage(folder.parent), folder.name, manifest)
    version.adopt(arrays)
    return version


def checked(storage: BlobStorage, name: str, manifest: dict[str, Any], base: Version | None = None) -> Version:
    """A version whose manifest is as a push writes it.

    Raises:
        CorruptArchiveError: the record is damaged.
    """
    wrong = wrong_manifest(manifest)
    if wrong is not None:
        raise CorruptArchiveError(f"{storage.location}/{name} is not the record of a push: {wrong}")
    return Version(storage, name, manifest, base)


def _is_short(value: Any) -> bool:
    return value is None or isinstance(value, int | float) or (isinstance(value, str) and len(value) <= SHOWN)


def _printable(value: Any) -> str:
    """Text that changes nothing on a terminal: control characters are escaped, and much of it is cut."""
    text = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in str(value))
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
