"""Check whether a pushed nudge is still in the store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from nudge_rag.common.deprecation import renamed_argument
from nudge_rag.common.text import preview
from nudge_rag.errors import CorruptArchiveError
from nudge_rag.journal.journal import Journal
from nudge_rag.journal.node_map import nodes_mapped_in_vain, rows_mapped_at_ingestion, unmapped_ids
from nudge_rag.journal.returned import among
from nudge_rag.journal.text_hashes import TextsOf, hash_texts
from nudge_rag.journal.versions import Version
from nudge_rag.stores.access import read_present, reading, same_rows, same_vectors
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.stores.stamps import StampedStore

__all__ = ["Status", "find_status", "live_version", "status"]

NODES_PER_STEP = 1_000


@dataclass(frozen=True)
class Status:
    """The state of the nodes of the last push.

    Attributes:
        version: its name, or None if nothing is pushed.
        state: ``committed``, ``switched`` for one pushed side by side, or the state that a push that died had reached.
        nudged: ids that hold the pushed vector.
        lost: ids that hold their original vectors again, as after an ingestion pipeline has added them once more.
        changed: ids that hold something else: embedded again from another text or by another model, or edited.
        missing: ids that are no longer in the store.
        edited: ids whose texts changed since they were tuned; looked for if `status` is given the texts.
        ready: name of the version that waits beside the live one for `switch`; None if none does.
        origin: the store that the version was pushed to, if this one is a copy of that; None if it was this one.
        unmapped: of a version that mapped all nodes, ids that were added or embedded again since, and of nodes that
            another map was applied to as they were added: `reapply` maps them.
        mapped: ids that were mapped as they were added, by ``map_documents=True``, although no map of all nodes is
            live any more: `rollback` or, if a version is live, `reapply` gives them their own vectors.
        returned: ids that hold vectors again of a push that is over, as after a backup was restored, or once a process
            saved a file as it had read it before a rollback; `rollback` undoes them.
        returned_from: names of the versions that made those vectors, newest first.
        outdated: ids that hold another vector in memory than in the store's file, as another process pushed since this
            store was loaded, or nodes were changed and not saved: load it anew. They are in no other list.
        away: ids that an earlier push had moved and that were gone when it was undone; if one comes back with the
            nudge, `rollback` undoes it.
    """

    version: str | None
    state: str | None
    nudged: tuple[str, ...] = field(default=(), repr=False)
    lost: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    edited: tuple[str, ...] = ()
    ready: str | None = None
    away: tuple[str, ...] = ()
    unmapped: tuple[str, ...] = ()
    origin: str | None = None
    returned: tuple[str, ...] = ()
    returned_from: tuple[str, ...] = ()
    outdated: tuple[str, ...] = ()
    mapped: tuple[str, ...] = ()

    def __str__(self) -> str:
        waits = "" if self.ready is None else f"; version {self.ready} is ready beside"
        if self.returned:
            which, way = " or ".join(self.returned_from), "was rolled back: rollback() undoes them"
            if self.version is not None:
                way = "is no longer live: reapply() or rollback() puts that right"
            waits = f"{waits}; {len(self.returned)} node(s) hold vectors of version {which} although it {way}"
        if self.mapped:
            way = "rollback() undoes that" if self.version is None else "reapply() or rollback() puts that right"
            waits += (
                f"; {len(self.mapped)} node(s) were mapped as they were added although no map is live any more: {way}"
            )
        if self.outdated:
            waits += (
                f"; {len(self.outdated)} node(s) hold other vectors in memory than in the file, and whose are newer"
                " cannot be told: load the store anew"
            )
        if self.away:
            waits += (
                f"; {len(self.away)} node(s) that a push had moved are away: {preview(self.away)} (if one comes back"
                " with that nudge, rollback() undoes it)"
            )
        if self.version is None:
            return f"nothing is pushed{waits}"
        counts = f"{len(self.nudged)} nudged, {len(self.lost)} lost, {len(self.changed)} changed"
        edited = f", {len(self.edited)} edited" if self.edited else ""
        unmapped = f", {len(self.unmapped)} unmapped" if self.unmapped else ""
        origin = "" if self.origin is None else f" of {self.origin}, from which this store was copied"
        missing = f"{len(self.missing)} missing"
        return f"version {self.version}{origin} ({self.state}): {counts}, {missing}{edited}{unmapped}{waits}"


@renamed_argument("root", "versions")
def status(store: EmbeddingStore, versions: str | Path | None = None, *, texts: TextsOf | None = None) -> Status:
    """Compare the vectors of the last push with those in the store; reads only.

    Args:
        store: the vector store.
        versions: the folder of the history; None for the store's own.
        texts: node ids to their texts, as `nudge_rag.tune` took them: finds the nodes whose texts were edited since.

    Raises:
        CorruptArchiveError: the record of the push is damaged.
        JournalError: the history is elsewhere, or cannot be read.
        StoreError: the store failed.

    Example:
        >>> from nudge_rag.stores.memory.mapping import MappingStore
        >>> print(status(MappingStore({"a": [1.0, 0.0]}, key="new")))
        nothing is pushed
    """
    try:
        return Journal.ask(store, versions, lambda journal: find_status(journal, texts))
    except CorruptArchiveError:
        # Nothing is locked: another process may have removed the record that was read. What is damaged stays so.
        return Journal.ask(store, versions, lambda journal: find_status(journal, texts))


def live_version(store: EmbeddingStore, versions: str | Path | None = None) -> str | None:
    """Name the push that is live; reads the list of the history and no vectors.

    ``Recorder(path, version=lambda: live_version(store))`` writes it with each retrieval.

    Args:
        store: the vector store.
        versions: the folder of the history; None for the store's own.

    Returns:
        The name, as `nudge_rag.versions` lists it; None if nothing is pushed, or all of it was rolled back.

    Raises:
        CorruptArchiveError: a record is damaged.
        JournalError: the history is elsewhere, or cannot be read.
        StoreError: the store failed.

    Example:
        >>> from nudge_rag.stores.memory.mapping import MappingStore
        >>> print(live_version(MappingStore({"a": [1.0, 0.0]}, key="new")))
        None
    """
    live = Journal.open(store, versions).live
    return None if live is None else live.name


def find_status(journal: Journal, texts: TextsOf | None = None) -> Status:
    """As `status`, of a journal that is open."""
    store, live, staged = journal.store, journal.live, journal.staged
    ready, away = None if staged is None else staged.name, tuple(journal.away.vectors)
    kinds: dict[str, list[str]] = {"nudged": [], "lost": [], "changed": [], "missing": []}
    outdated: dict[str, None] = {}
    with reading(store, "its nodes were compared with what was pushed"):
        differing = store.find_outdated() if isinstance(store, StampedStore) else set()
        for kind, node_id in () if live is None else _find_kinds(journal, live):
            if node_id in differing:
                outdated[node_id] = None
            else:
                kinds[kind].append(node_id)
    back = _find_back(journal, {*kinds["nudged"], *kinds["lost"]})
    outdated |= dict.fromkeys(node_id for node_id in back if node_id in differing)
    back = {node_id: name for node_id, name in back.items() if node_id not in differing}
    sources = tuple(sorted(set(back.values()), key=int, reverse=True))
    mapped = [node_id for names, _, _ in nodes_mapped_in_vain(journal) for node_id in names if node_id not in back]
    found = Status(
        None,
        None,
        ready=ready,
        away=away,
        returned=tuple(back),
        returned_from=sources,
        outdated=tuple(outdated),
        mapped=tuple(mapped),
    )
    if live is None:
        return found
    nudged, lost, changed, missing = (tuple(ids) for ids in kinds.values())
    changed = tuple(node_id for node_id in changed if node_id not in back)
    return replace(
        found,
        version=live.name,
        state=live.state,
        nudged=nudged,
        lost=lost,
        changed=changed,
        missing=missing,
        edited=() if texts is None else _edited(live, [*nudged, *lost, *changed], texts),
        unmapped=tuple(unmapped_ids(journal, live)),
        origin=journal.home.origin(live),
    )


def _find_back(journal: Journal, known: set[str]) -> dict[str, str]:
    """Ids of nodes that hold nudges of versions that are over, and the names of these."""
    live, back = journal.live, dict[str, str]()
    for part in journal.find_returned(among(known)):
        is_back = np.ones(len(part.ids), dtype=np.bool_)
        if live is not None:
            # The version after it had found them, and they hold what the live one's map made of them.
            is_back[rows_mapped_at_ingestion(journal, live, part.found)] = False
        back |= {node_id: part.version for node_id, is_so in zip(part.ids, is_back, strict=True) if is_so}
    return back


def _find_kinds(journal: Journal, live: Version) -> Iterator[tuple[str, str]]:
    """Say of each node of the live version what has become of it, some thousand nodes at a time."""
    store = journal.store
    if live.is_derived:
        for names, found in store.scan(NODES_PER_STEP):
            rows, known = journal.find_live(names, found)
            nudged = same_rows(store, found[rows], known.after)
            yield from (("nudged" if is_so else "lost", names[row]) for row, is_so in zip(rows, nudged, strict=True))
        return
    for block in live.parts():
        present, missing = read_present(store, block.ids)
        known = block.vectors
        for row, node_id in enumerate(block.ids):
            if node_id not in present:
                continue
            vector = present[node_id]
            if same_vectors(store, vector, known.after[row]):
                yield "nudged", node_id
            else:
                held = any(same_vectors(store, vector, part[row]) for part in (known.before, known.originals))
                yield "lost" if held else "changed", node_id
        yield from (("missing", node_id) for node_id in missing)


def _edited(live: Version, present: list[str], texts: TextsOf) -> tuple[str, ...]:
    then = live.text_hashes
    now = hash_texts(texts, [node_id for node_id in present if node_id in then])
    return tuple(node_id for node_id, found in now.items() if found != then[node_id])
