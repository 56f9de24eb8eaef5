"""The journal of pushes: what was in the store, what was written, and how far it got.

Layout: ``<versions>/<store key>/<number>/{manifest.json, arrays.npz}`` and a lock. The arrays hold, for every node of a
push, its original vector, the one that was there before, and the one written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from nudge_rag.common.archive import MANIFEST, CorruptArchiveError, read_folder, write_folder, write_manifest
from nudge_rag.common.arrays import FloatArray
from nudge_rag.errors import JournalError, PushError
from nudge_rag.journal.manifest import (
    ARRAY_NAMES,
    COMMITTED,
    IN_PLACE,
    LIVE,
    PREPARED,
    SIDE_BY_SIDE,
    SWITCHED,
    SWITCHING,
    wrong_arrays,
    wrong_manifest,
)
from nudge_rag.stores.access import reading, same_vectors
from nudge_rag.stores.base import EmbeddingStore

__all__ = ["DEFAULT_VERSIONS", "JournalError", "PushError", "Version", "as_version", "journal_folder", "live_version"]
__all__ += ["load_version"]
__all__ += ["nudged_ids", "original_vectors", "record_version", "versions"]

DEFAULT_VERSIONS = "nudge-versions"


@dataclass(frozen=True)
class Version:
    """One push: where it is recorded, its manifest, and per node the original, previous and written vectors."""

    folder: Path
    manifest: dict[str, Any] = field(repr=False)
    ids: tuple[str, ...] = field(repr=False)
    originals: FloatArray = field(repr=False)
    before: FloatArray = field(repr=False)
    after: FloatArray = field(repr=False)

    def __str__(self) -> str:
        details = self.manifest.get("details", {})
        what = f"{details.get('solver', 'unknown solver')}, gamma {details.get('gamma', float('nan')):.3g}"
        state = "ready beside" if self.is_beside and self.state == COMMITTED else self.state
        return f"{self.name}: {state}, {self.manifest['created']}, {len(self.ids)} nodes, {what}"

    @property
    def name(self) -> str:
        """Folder name, such as ``0001``."""
        return self.folder.name

    @property
    def number(self) -> int:
        """Its place in the order of pushes."""
        return int(self.folder.name)

    @property
    def state(self) -> str:
        """``prepared``, ``writing``, ``verified``, ``committed``, ``superseded`` or ``rolled back``.

        A version beside the live one is ``committed`` when it is ready, and then ``switching`` or ``switched``.
        """
        return str(self.manifest["state"])

    @property
    def is_beside(self) -> bool:
        """Whether it was pushed beside the live version, rather than over it."""
        return str(self.manifest.get("mode", IN_PLACE)) == SIDE_BY_SIDE

    @property
    def label(self) -> str:
        """What the store calls the copy of all nodes that this push made; empty for a push in place."""
        return str(self.manifest.get("label", ""))

    @property
    def is_live(self) -> bool:
        """Whether the store as it is read may hold what this push wrote."""
        return self.state in ((SWITCHING, SWITCHED) if self.is_beside else LIVE)

    @property
    def dimension(self) -> int:
        """Of the vectors."""
        return int(self.after.shape[1])

    @property
    def model(self) -> str | None:
        """Name of the embedding model that the push was made for, where it was known."""
        model = self.manifest.get("details", {}).get("model")
        return None if model is None else str(model)

    @property
    def text_hashes(self) -> Mapping[str, str]:
        """Node id to the hash of its text when it was tuned, where texts were given."""
        hashes: Mapping[str, str] = self.manifest["details"].get("text_hashes", {})
        return hashes

    def set_state(self, state: str) -> None:
        """Record ``state`` in the manifest, durably.

        Raises:
            JournalError: the manifest cannot be written.
        """
        try:
            write_manifest(self.folder, self.manifest | {"state": state})
        except OSError as error:
            raise JournalError(
                f"the journal cannot be written to ({error}): {self.folder} still says {self.state!r}, not {state!r};"
                " the next call goes on from there"
            ) from error
        self.manifest["state"] = state

    def holds(self, store: EmbeddingStore, vector: FloatArray, at: int) -> bool:
        """Whether ``vector`` is one that this push wrote or found at its node ``at``."""
        return any(same_vectors(store, vector, known[at]) for known in (self.after, self.before, self.originals))


def versions(store: EmbeddingStore, root: str | Path = DEFAULT_VERSIONS) -> list[Version]:
    """All recorded pushes to ``store``, oldest first; print one to see what it was.

    Raises:
        CorruptArchiveError: a record is damaged; the message names it.
    """
    folder = journal_folder(store, root)
    # Without a manifest there is no version: the process died before it had written one, and before it wrote vectors.
    return [load_version(part) for part in _version_folders(folder) if not part.is_dir() or _has_manifest(part)]


def live_version(store: EmbeddingStore, root: str | Path) -> Version | None:
    """The last push that was not rolled back, nor waits beside."""
    return next((version for version in reversed(versions(store, root)) if version.is_live), None)


def nudged_ids(store: EmbeddingStore, root: str | Path = DEFAULT_VERSIONS) -> tuple[str, ...]:
    """Ids of the nodes that a live push wrote."""
    live = live_version(store, root)
    return () if live is None else live.ids


def original_vectors(
    store: EmbeddingStore, ids: Sequence[str], vectors: FloatArray, root: str | Path = DEFAULT_VERSIONS
) -> FloatArray:
    """``vectors`` as read from ``store``, with those that a live push wrote replaced by their originals.

    A vector that differs from what was pushed (embedded again, edited) is its own original.
    """
    live = live_version(store, root)
    if live is None:
        return vectors
    rows = {node_id: row for row, node_id in enumerate(ids)}
    found = [(rows[node_id], at) for at, node_id in enumerate(live.ids) if node_id in rows]
    originals = np.array(vectors)
    for row, at in found:
        if live.holds(store, vectors[row], at):
            originals[row] = live.originals[at]
    return originals


def record_version(
    store: EmbeddingStore,
    ids: Sequence[str],
    originals: FloatArray,
    before: FloatArray,
    after: FloatArray,
    root: Path,
    details: Mapping[str, Any],
    mode: str = IN_PLACE,
) -> Version:
    """Write a new version to disk, synced, in state ``prepared``. Raises JournalError where that fails."""
    folder = journal_folder(store, root)
    taken = [int(part.name) for part in _version_folders(folder)]
    folder = folder / f"{max(taken, default=0) + 1:04d}"
    manifest = {
        "state": PREPARED,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "store": {"name": store.name, "key": folder.parent.name, "similarity": store.capabilities.similarity},
        "dimension": int(after.shape[1]),
        "details": dict(details),
        "ids": list(ids),
    }
    if mode == SIDE_BY_SIDE:
        # Unlike any other, also one of a journal elsewhere: a copy is never taken for another's.
        manifest |= {"mode": mode, "label": f"nudge_{folder.name}_{uuid4().hex[:6]}"}
    try:
        write_folder(folder, manifest, {"originals": originals, "before": before, "after": after})
    except OSError as error:
        raise JournalError(f"the journal cannot be written to ({error}): nothing was pushed") from error
    return load_version(folder)


def load_version(folder: Path) -> Version:
    """The version that ``folder`` records.

    Raises:
        CorruptArchiveError: it is a link or a file, or anything in it is not as a push writes it.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise CorruptArchiveError(f"{folder} is not a folder: it cannot be the record of a push")
    return as_version(folder, *read_folder(folder))


def as_version(folder: Path, manifest: dict[str, Any], arrays: Mapping[str, np.ndarray[Any, Any]]) -> Version:
    """What was read of ``folder``, checked.

    Raises:
        CorruptArchiveError: anything is not as a push writes it.
    """
    wrong = wrong_manifest(manifest)
    if wrong is None:
        wrong = wrong_arrays(arrays, (len(manifest["ids"]), manifest["dimension"]))
    if wrong is not None:
        raise CorruptArchiveError(f"{folder} is not the record of a push: {wrong}")
    return Version(folder, manifest, tuple(manifest["ids"]), *(arrays[name] for name in ARRAY_NAMES))


def journal_folder(store: EmbeddingStore, root: str | Path) -> Path:
    """Where the pushes to ``store`` are recorded.

    Raises:
        ValueError: a store whose key would lead out of ``root``.
        StoreError: the store, asked where it is, failed.
    """
    with reading(store, "its journal was looked for"):
        key = store.key
    if not key or key in (".", "..") or any(sign in key for sign in "/\\\0"):
        raise ValueError(f"the key of a store is to be fit for the name of a folder, got {key!r}")
    return Path(root) / key


def _version_folders(folder: Path) -> list[Path]:
    """Whatever is named as a version is, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(
        (part for part in folder.iterdir() if re.fullmatch("[0-9]{1,9}", part.name)), key=lambda p: int(p.name)
    )


def _has_manifest(folder: Path) -> bool:
    manifest = folder / MANIFEST
    return manifest.exists() or manifest.is_symlink()
