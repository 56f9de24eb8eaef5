"""Write a pushed nudge again to nodes that lost it, under whatever ids they are in the store now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.caller import warn_caller
from nudge_rag.common.deprecation import renamed_argument
from nudge_rag.common.embedding import EmbedQueries
from nudge_rag.common.text import preview
from nudge_rag.errors import PushError, StoreError
from nudge_rag.journal.coding import Vectors
from nudge_rag.journal.fingerprints import FINGERPRINT, SAME_MODEL, describe_model, differing_models
from nudge_rag.journal.journal import Journal
from nudge_rag.journal.new_ids import FoundNode, find_by_text
from nudge_rag.journal.node_map import describe_unmapped, nodes_mapped_in_vain, unmapped_ids
from nudge_rag.journal.orphans import read_orphans
from nudge_rag.journal.push import push_vectors
from nudge_rag.journal.push_all import add_blocks
from nudge_rag.journal.recovery import locked_journal
from nudge_rag.journal.returned import among
from nudge_rag.journal.stamping import stamp_nudges
from nudge_rag.journal.status import Status, find_status
from nudge_rag.journal.text_hashes import TextsOf
from nudge_rag.journal.versions import Version
from nudge_rag.journal.writes import write_over
from nudge_rag.stores.access import read_present, reading, same_rows, same_vectors
from nudge_rag.stores.base import EmbeddingStore

__all__ = ["reapply"]

NODES_PER_STEP = 5_000


@renamed_argument("root", "versions")
def reapply(
    store: EmbeddingStore,
    versions: str | Path | None = None,
    *,
    texts: TextsOf | None = None,
    embed_queries: EmbedQueries | None = None,
) -> tuple[str, ...]:
    """Write the nudge again to the nodes that lost it, and read it back; nodes that changed are left alone.

    Nodes that hold vectors again of a push that is over, as after a backup was restored, get those of the live version.

    With ``texts``, nodes that are in the store under new ids, as after an index was built anew, are found by the hashes
    that were recorded, and get the nudge too, if their embeddings are still those of before. That is recorded as a new
    version, or with the live one if that was switched to, so that a rollback knows them. So it is if the table or
    collection itself was dropped and built anew, and its database still has the history.

    If all nodes were mapped (``tune(reach="nodes")``), those that were added or embedded again since are mapped too,
    and recorded with the version that is live.

    Args:
        store: the vector store.
        versions: the folder of the history; None for the store's own.
        texts: node ids to their texts, as `nudge_rag.tune` took them.
        embed_queries: texts to query embeddings, by the model in use, which is compared with the nudge's.

    Returns:
        The ids written.

    Raises:
        PushError: the store failed while it was written to, or did not keep it; a later call starts again. Or the nudge
            was made for another embedding model.
        StoreError: the store failed before anything was written.
        LockedError: a push or rollback is under way.
        JournalError: the history is elsewhere, or cannot be read or written to.
        CorruptArchiveError: the record is damaged; nothing was written.

    Example:
        >>> import tempfile
        >>> from nudge_rag.journal.text_hashes import hash_text
        >>> from nudge_rag.stores import MappingStore
        >>> table, text, folder = {"old": [1.0, 0.0]}, "how to leave", tempfile.mkdtemp()
        >>> store, before, after = MappingStore(table, key="rebuilt"), np.array([[1.0, 0.0]]), np.array([[0.6, 0.8]])
        >>> details = {"text_hashes": {"old": hash_text(text)}}
        >>> pushed = push_vectors(store, ["old"], before, after, versions=folder, details=details)
        >>> table["new"] = table.pop("old") and [1.0, 0.0]
        >>> reapply(store, folder, texts=lambda ids: [text for _ in ids]), table["new"]
        (('new',), [0.6, 0.8])
    """
    written: tuple[str, ...] = ()
    with locked_journal(store, versions) as journal:
        live, moved, is_rebuilt = journal.live, dict[int, FoundNode](), journal.live is None
        if is_rebuilt and texts is not None:
            live, moved = _find_rebuilt(journal, texts)
        if live is None:
            return ()
        if embed_queries is not None:
            _check_model(live, embed_queries)
        if not is_rebuilt:
            status = find_status(journal)
            _refuse_outdated(store, status)
            written = (*_reapply_to_lost(journal, live, status), *_reapply_to_returned(journal, live, status))
            written = (*written, *_undo_maps_in_vain(journal, live, status))
            moved = {} if texts is None or live.is_derived else _find_moved(journal, live, texts)
        if moved and live.is_beside and not is_rebuilt:
            # A push over a version that a switch made live could not be switched back.
            written = (*written, *_record_moved(journal, live, moved))
            moved = {}
    if moved or is_rebuilt:
        written = (*written, *_push_to_moved(store, live, moved, versions, all_nodes=is_rebuilt))
    with locked_journal(store, versions) as journal:
        return (*written, *_map_new(journal))


def _find_rebuilt(journal: Journal, texts: TextsOf) -> tuple[Version | None, dict[int, FoundNode]]:
    """Find the version that was live in a store that is gone, if this one holds its nodes, and those with new ids."""
    store = journal.store
    for orphan in read_orphans(journal):
        live = orphan.live
        if live is None or live.is_streamed:
            continue
        moved = _find_moved(journal, live, texts)
        present, _ = read_present(store, live.ids)
        originals = dict(zip(live.ids, live.originals, strict=True))
        same = [one for one, now in present.items() if same_vectors(store, now, originals[one].astype(now.dtype))]
        if moved or same:
            warn_caller(
                f"version {live.name} of a store that is gone is pushed to this one, which holds"
                f" {len(moved) + len(same)} of its nodes"
            )
            return live, moved
    return None, {}


def _check_model(live: Version, embed_queries: EmbedQueries) -> None:
    used = describe_model(embed_queries)
    differing = differing_models({FINGERPRINT: live.manifest["details"].get(FINGERPRINT)}, used)
    if differing is not None:
        raise PushError(f"version {live.name} was made for {differing}: nothing was written")


def _refuse_outdated(store: EmbeddingStore, status: Status) -> None:
    """Raise StoreError if nodes hold other vectors in the file: memory does not tell which of them lost the nudge."""
    if status.outdated:
        raise StoreError(
            f"{len(status.outdated)} node(s) of this {store.name} store ({preview(status.outdated)}) hold other vectors"
            " in memory than in its file, and whose are newer cannot be told: load the store anew; nothing was written"
        )


def _reapply_to_lost(journal: Journal, live: Version, status: Status) -> tuple[str, ...]:
    store, lost = journal.store, status.lost
    kept: list[str] = []
    for first in range(0, len(lost), NODES_PER_STEP):
        part = lost[first : first + NODES_PER_STEP]
        try:
            with journal.transaction():
                present, _ = read_present(store, part)
                if not present:
                    continue
                ids, found = list(present), np.array(list(present.values()))
                # Between the comparison and now somebody else may have written to them.
                rows, known = journal.find_live(ids, found)
                vectors = known.after.astype(store.capabilities.dtype, copy=False)
                names = [ids[row] for row in rows]
                stamp_nudges(store, live, names, vectors, known.originals)
                written = write_over(store, names, found[rows], vectors)
        except Exception as error:
            raise PushError(
                f"{store.name} failed while {len(lost)} node(s) got their nudge back; some may have it, a later call"
                f" starts again ({type(error).__name__}: {error})"
            ) from error
        if written.refused:
            raise PushError(f"{store.name} did not keep the vectors as they were written: look at status()")
        kept += written.kept
    return tuple(kept)


def _reapply_to_returned(journal: Journal, live: Version, status: Status) -> tuple[str, ...]:
    """Give nodes that hold a nudge of a version that is over what they are to hold while ``live`` is."""
    # If all nodes are mapped, `_map_new` knows their originals, and maps them.
    if live.is_streamed or not status.returned:
        return ()
    store = journal.store
    kept: list[str] = []
    try:
        with journal.transaction():
            for part in list(journal.find_returned(among({*status.nudged, *status.lost}))):
                wanted = _wanted_by(store, live, part.ids, part.originals)
                stamp_nudges(store, live, part.ids, wanted, part.originals)
                written = write_over(store, part.ids, part.found, wanted)
                kept += written.kept
    except Exception as error:
        raise PushError(
            f"{store.name} failed while {len(status.returned)} node(s) with vectors of a push that is over were written"
            f" to; a later call starts again ({type(error).__name__}: {error})"
        ) from error
    return tuple(kept)


def _undo_maps_in_vain(journal: Journal, live: Version, status: Status) -> tuple[str, ...]:
    """Give nodes that were mapped before they were added, although ``live`` has no map, what they are to hold."""
    store, kept = journal.store, list[str]()
    if not status.mapped:
        return ()
    try:
        with journal.transaction():
            if live.is_streamed and not live.is_beside:
                # A version that has written all nodes records what it found.
                return add_blocks(journal, live, status.mapped)
            for names, found, originals in list(nodes_mapped_in_vain(journal)):
                wanted = _wanted_by(store, live, names, originals)
                stamp_nudges(store, live, names, wanted, originals)
                kept += write_over(store, names, found, wanted).kept
    except Exception as error:
        raise PushError(
            f"{store.name} failed while {len(status.mapped)} node(s) that were mapped before they were added were"
            f" written to; a later call starts again ({type(error).__name__}: {error})"
        ) from error
    return tuple(kept)


def _wanted_by(store: EmbeddingStore, live: Version, ids: Sequence[str], originals: FloatArray) -> FloatArray:
    """The vectors that nodes are to hold while ``live`` is: those that it has for their originals, or the latter."""
    wanted = np.array(originals, dtype=store.capabilities.dtype)
    rows, block = live.find(ids)
    same = same_rows(store, wanted[rows], block.vectors.originals)
    wanted[rows[same]] = block.vectors.after[same]
    return wanted


def _find_moved(journal: Journal, live: Version, texts: TextsOf) -> dict[int, FoundNode]:
    """Nodes of the live version that are in the store under new ids with their old embeddings, by their places."""
    store, hashes = journal.store, live.text_hashes
    with reading(store, "its nodes were compared with what was pushed"):
        present = store.matching(live.ids, None)
    at = {node_id: place for place, node_id in enumerate(live.ids) if node_id not in present}
    wanted = {node_id: hashed for node_id, hashed in hashes.items() if node_id in at and isinstance(hashed, str)}
    found = find_by_text(store, wanted, texts, live.ids)
    same = {old: node for old, node in found.items() if _cosine(node, live, at[old]) >= SAME_MODEL}
    others = [node.id for old, node in found.items() if old not in same]
    if others:
        warn_caller(f"{len(others)} node(s) have texts that were nudged, and other embeddings: {preview(others)}")
    return {at[old]: node for old, node in same.items()}


def _map_new(journal: Journal) -> tuple[str, ...]:
    """Map the nodes that hold unmapped vectors although the live version has mapped all."""
    live = journal.live
    new = [] if live is None else unmapped_ids(journal, live)
    if live is None or not new:
        return ()
    if live.is_beside:
        warn_caller(describe_unmapped(new, live.name))
        return ()
    try:
        with journal.transaction():
            written = add_blocks(journal, live, new)
    except Exception as error:
        raise PushError(
            f"{journal.store.name} failed while {len(new)} new node(s) were mapped; some may be, a later call goes on"
            f" ({type(error).__name__}: {error})"
        ) from error
    return written


def _cosine(node: FoundNode, live: Version, at: int) -> float:
    now, then = np.asarray(node.vector, dtype=np.float64), np.asarray(live.originals[at], dtype=np.float64)
    lengths = np.linalg.norm(now) * np.linalg.norm(then)
    return float(now @ then / lengths) if now.shape == then.shape and lengths > 0 else 0.0


def _record_moved(journal: Journal, live: Version, moved: dict[int, FoundNode]) -> tuple[str, ...]:
    """Let a version that a switch made live know its nodes by the ids that they have now, and write its nudge to them.

    The nodes that it knew before are away: if one comes back with the nudge, it is undone.
    """
    ids, vectors = list(live.ids), live.load()
    originals, before = vectors.originals.copy(), vectors.before.copy()
    journal.away.add((ids[at], vectors.after[at].copy(), originals[at].copy()) for at in moved)
    for at, node in moved.items():
        ids[at] = node.id
        originals[at] = before[at] = node.vector
    live.manifest["details"] = _renamed_details(live, moved)
    live.rebuild(ids, Vectors(originals, before, vectors.after), live.state)
    return _reapply_to_lost(journal, live, find_status(journal))


def _renamed_details(live: Version, moved: dict[int, FoundNode]) -> dict[str, Any]:
    """The details of a version, with hashes of texts under the ids that its nodes have now."""
    names = {live.ids[at]: node.id for at, node in moved.items()}
    details = dict(live.manifest["details"])
    for kind in ("text_hashes", "label_hashes"):
        known = details.get(kind, {})
        details[kind] = {names.get(node_id, node_id): hashed for node_id, hashed in known.items()}
    return details


def _push_to_moved(
    store: EmbeddingStore,
    live: Version,
    moved: dict[int, FoundNode],
    versions: str | Path | None,
    *,
    all_nodes: bool = False,
) -> tuple[str, ...]:
    """Push a version again with the ids that its nodes have now; gives those with new ids that got it, or all."""
    present = store.matching(live.ids, None)
    rows = [at for at, node_id in enumerate(live.ids) if node_id in present or at in moved]
    ids = [moved[at].id if at in moved else live.ids[at] for at in rows]
    originals = np.array([moved[at].vector if at in moved else live.originals[at] for at in rows])
    details = _renamed_details(live, moved)
    receipt = push_vectors(store, ids, originals, live.after[rows], versions=versions, details=details)
    left = {*receipt.changed_since, *receipt.missing}
    asked = ids if all_nodes else [node.id for node in moved.values()]
    return tuple(node_id for node_id in asked if receipt.pushed and node_id not in left)
