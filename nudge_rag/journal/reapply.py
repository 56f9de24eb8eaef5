"""Write a pushed nudge again to nodes that lost it, under whatever ids they are in the store now."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nudge_rag.common.caller import warn_caller
from nudge_rag.common.deprecation import renamed_argument
from nudge_rag.common.embedding import EmbedQueries
from nudge_rag.common.text import preview
from nudge_rag.errors import PushError
from nudge_rag.journal.fingerprints import FINGERPRINT, SAME_MODEL, describe_model, differing_models
from nudge_rag.journal.journal import Journal
from nudge_rag.journal.new_ids import FoundNode, find_by_text
from nudge_rag.journal.node_map import describe_unmapped, node_map_of, unmapped_nodes
from nudge_rag.journal.push import push_vectors
from nudge_rag.journal.recovery import locked_journal
from nudge_rag.journal.status import find_status
from nudge_rag.journal.text_hashes import TextsOf
from nudge_rag.journal.versions import Version
from nudge_rag.journal.writes import write_over
from nudge_rag.stores.access import read_present, reading
from nudge_rag.stores.base import EmbeddingStore

__all__ = ["reapply"]


@renamed_argument("root", "versions")
def reapply(
    store: EmbeddingStore,
    versions: str | Path | None = None,
    *,
    texts: TextsOf | None = None,
    embed_queries: EmbedQueries | None = None,
) -> tuple[str, ...]:
    """Write the nudge again to the nodes that lost it, and read it back; nodes that changed are left alone.

    With ``texts``, nodes that are in the store under new ids, as after an index was built anew, are found by the hashes
    that were recorded, and get the nudge too, if their embeddings are still those of before. That is recorded as a new
    version, so that a rollback knows them.

    If all nodes were mapped (``tune(reach="nodes")``), those that were added or embedded again since are mapped too,
    likewise as a new version.

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
    with locked_journal(store, versions) as journal:
        live = journal.live
        if live is None:
            return ()
        if embed_queries is not None:
            _check_model(live, embed_queries)
        written = _reapply_to_lost(journal, live)
        # A push over a version that a switch made live could not be switched back.
        moved = {} if texts is None or live.is_beside else _find_moved(journal, live, texts)
    if moved:
        written = (*written, *_push_to_moved(store, live, moved, versions))
    return (*written, *_map_new(store, versions))


def _check_model(live: Version, embed_queries: EmbedQueries) -> None:
    used = describe_model(embed_queries)
    differing = differing_models({FINGERPRINT: live.manifest["details"].get(FINGERPRINT)}, used)
    if differing is not None:
        raise PushError(f"version {live.name} was made for {differing}: nothing was written")


def _reapply_to_lost(journal: Journal, live: Version) -> tuple[str, ...]:
    store, lost = journal.store, find_status(journal).lost
    if not lost:
        return ()
    at = {node_id: place for place, node_id in enumerate(live.ids)}
    try:
        with journal.transaction():
            present, _ = read_present(store, lost)
            # Between the comparison and now somebody else may have written to them.
            ids = [node for node in lost if node in present and live.holds(store, present[node], at[node])]
            if not ids:
                return ()
            expected = np.array([present[node_id] for node_id in ids])
            vectors = np.array([live.after[at[node_id]] for node_id in ids], dtype=live.after.dtype)
            written = write_over(store, ids, expected, vectors)
    except Exception as error:
        raise PushError(
            f"{store.name} failed while {len(lost)} node(s) got their nudge back; some may have it, a later call"
            f" starts again ({type(error).__name__}: {error})"
        ) from error
    if written.refused:
        raise PushError(f"{store.name} did not keep the vectors as they were written: look at status()")
    return tuple(written.kept)


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


def _map_new(store: EmbeddingStore, versions: str | Path | None) -> tuple[str, ...]:
    """Push the live version again, with the nodes that hold unmapped vectors although it has mapped all."""
    journal = Journal.open(store, versions)
    live, node_map = journal.live, node_map_of(journal.live)
    if live is None or node_map is None:
        return ()
    new = unmapped_nodes(journal, live, node_map)
    if not new.ids:
        return ()
    if live.is_beside:
        warn_caller(describe_unmapped(new.ids, live.name))
        return ()
    with reading(store, "its nodes were compared with what was pushed"):
        present = store.matching(live.ids, None) - set(new.ids)
    rows = [at for at, node_id in enumerate(live.ids) if node_id in present]
    receipt = push_vectors(
        store,
        [*(live.ids[at] for at in rows), *new.ids],
        np.concatenate([live.originals[rows], new.originals]),
        np.concatenate([live.after[rows], new.vectors]),
        versions=versions,
        details=live.manifest["details"],
    )
    left = {*receipt.changed_since, *receipt.missing}
    return tuple(node_id for node_id in new.ids if receipt.pushed and node_id not in left)


def _cosine(node: FoundNode, live: Version, at: int) -> float:
    now, then = np.asarray(node.vector, dtype=np.float64), np.asarray(live.originals[at], dtype=np.float64)
    lengths = np.linalg.norm(now) * np.linalg.norm(then)
    return float(now @ then / lengths) if now.shape == then.shape and lengths > 0 else 0.0


def _push_to_moved(
    store: EmbeddingStore, live: Version, moved: dict[int, FoundNode], versions: str | Path | None
) -> tuple[str, ...]:
    """Push the live version again with the ids that its nodes have now."""
    names = {live.ids[at]: node.id for at, node in moved.items()}
    present = store.matching(live.ids, None)
    rows = [at for at, node_id in enumerate(live.ids) if node_id in present or at in moved]
    ids = [moved[at].id if at in moved else live.ids[at] for at in rows]
    originals = np.array([moved[at].vector if at in moved else live.originals[at] for at in rows])
    details = dict(live.manifest["details"])
    for kind in ("text_hashes", "label_hashes"):
        known = details.get(kind, {})
        details[kind] = {names.get(node_id, node_id): hashed for node_id, hashed in known.items()}
    receipt = push_vectors(store, ids, originals, live.after[rows], versions=versions, details=details)
    left = {*receipt.changed_since, *receipt.missing}
    return tuple(node.id for node in moved.values() if receipt.pushed and node.id not in left)
