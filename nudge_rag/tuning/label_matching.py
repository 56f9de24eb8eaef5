"""Labels whose node ids are not in the store: found again by their texts, or by the documents they name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from nudge_rag.common.caller import warn_caller
from nudge_rag.common.text import preview
from nudge_rag.feedback.pairs import LabeledPairs, Split
from nudge_rag.feedback.renaming import rename_nodes
from nudge_rag.journal.journal import Journal
from nudge_rag.journal.new_ids import find_by_text
from nudge_rag.journal.orphans import read_orphans
from nudge_rag.journal.text_hashes import TextsOf
from nudge_rag.stores.access import reading
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.tuning.document_labels import MARGINS, label_chunks
from nudge_rag.tuning.gate import LABEL_HASHES
from nudge_rag.tuning.queries import EmbedQueries

__all__ = ["describe_strangers", "example_ids", "match_labels", "recorded_hashes"]

SCAN_BATCH = 1_000
SHOWN = 3


def match_labels(
    store: EmbeddingStore,
    pairs: LabeledPairs | Split,
    embed_queries: EmbedQueries,
    versions: Path | None,
    *,
    texts: TextsOf | None,
    documents: TextsOf | None,
    known_hashes: Mapping[str, str] | None = None,
) -> LabeledPairs | Split:
    """Give labels of unknown ids to the nodes they mean; the others stay as they are.

    An id that an earlier push recorded with the hash of its text means the node that has this text now. An id that is
    that of a document means the document's chunk that answers best (`nudge_rag.feedback.label_chunks`).

    Args:
        store: the vector store.
        pairs: labelled pairs, or a split of them.
        embed_queries: texts to (m, d) query embeddings.
        versions: the folder of the history; None for the store's own.
        texts: node ids to their texts; None if they are not known.
        documents: node ids to the ids of their documents; None if they are not known.
        known_hashes: of texts of nodes, besides those that pushes have recorded.

    Raises:
        StoreError: the store failed.

    Warns:
        UserWarning: labels that were given to other ids, with examples.
    """
    labelled = {node for part in _parts(pairs) for node in part.node_ids}
    with reading(store, "the labelled nodes were looked for"):
        unknown = labelled - store.matching(sorted(labelled), None)
    if unknown and texts is not None:
        hashes = {**recorded_hashes(store, versions), **(known_hashes or {})}
        wanted = {node_id: hashes[node_id] for node_id in unknown if node_id in hashes}
        found = find_by_text(store, wanted, texts, labelled)
        if found:
            names = {old: node.id for old, node in found.items()}
            shown = ", ".join(f"{old!r} is now {names[old]!r}" for old in sorted(names)[:SHOWN])
            warn_caller(f"{len(names)} labelled node id(s) are not in {store.name}, and were found by text: {shown}")
            pairs = _each(pairs, names)
            unknown -= names.keys()
    if unknown and documents is not None:
        pairs = _label_chunks(store, pairs, embed_queries, unknown, documents)
    return pairs


def recorded_hashes(store: EmbeddingStore, versions: Path | None) -> dict[str, str]:
    """Return the hashes of node texts that pushes to a store have recorded, the newest of each node.

    If there were none, those of pushes to stores that are gone: this one may be one of them, built anew.
    """
    hashes: dict[str, str] = {}
    journal = Journal.open(store, versions)
    for version in [one for each in (*read_orphans(journal), journal) for one in each.versions]:
        others = version.manifest["details"].get(LABEL_HASHES, {})
        known = {**(others if isinstance(others, dict) else {}), **version.text_hashes}
        hashes |= {node_id: hashed for node_id, hashed in known.items() if isinstance(hashed, str)}
    return hashes


def example_ids(store: EmbeddingStore) -> str:
    """Name a few ids of a store, for messages.

    Example:
        >>> from nudge_rag.stores import MappingStore
        >>> example_ids(MappingStore({"n1": [1.0], "n2": [2.0]}))
        "'n1', 'n2'"
    """
    with reading(store, "a few ids were read"):
        return preview(next((names[:SHOWN] for names, _ in store.scan(SHOWN)), []))


def describe_strangers(labelled: Sequence[str], store: EmbeddingStore) -> str:
    """Say that no label names a node of the store, with a few ids of both sides.

    Raises:
        StoreError: the store failed.

    Example:
        >>> from nudge_rag.stores import MappingStore
        >>> describe_strangers(["a"], MappingStore({"n1": [1.0], "n2": [2.0]}))
        "none of the labelled node ids is in the store: labels name 'a', mapping holds 'n1', 'n2'"
    """
    named = preview(labelled, SHOWN)
    return (
        f"none of the labelled node ids is in the store: labels name {named}, {store.name} holds {example_ids(store)}"
    )


def _label_chunks(
    store: EmbeddingStore,
    pairs: LabeledPairs | Split,
    embed_queries: EmbedQueries,
    unknown: Collection[str],
    documents: TextsOf,
) -> LabeledPairs | Split:
    """Move labels of documents to their chunks, by one rule for all parts."""
    document_of: dict[str, str] = {}
    with reading(store, "the documents of its nodes were looked for"):
        for names, _ in store.scan(SCAN_BATCH):
            found = zip(names, documents(list(names)), strict=True)
            document_of |= {node: document for node, document in found if document in unknown and document is not None}
    if not document_of:
        return pairs
    named = set(document_of.values())
    warn_caller(
        f"{len(named)} label(s) name documents and not nodes, such as {min(named)!r}: each goes to the chunk of its"
        f" document that answers best, such as {min(document_of)!r}"
    )
    margins: Sequence[float] = MARGINS
    moved = []
    for part in _parts(pairs):
        of_documents, _ = part.restrict_to(named)
        if not len(of_documents):
            moved.append(part)
            continue
        chunks = label_chunks(of_documents, document_of, store, embed_queries, margins=margins)
        margins = [chunks.margin]
        kept = {query: {n: g for n, g in grades.items() if n not in named} for query, grades in part.qrels.items()}
        for query, grades in chunks.pairs.qrels.items():
            for node, grade in grades.items():
                kept[query][node] = kept[query].get(node, 0.0) + grade
        moved.append(LabeledPairs(part.queries, kept, part.synthetic, part.report))
    return moved[0] if isinstance(pairs, LabeledPairs) else Split(*moved)


def _parts(pairs: LabeledPairs | Split) -> list[LabeledPairs]:
    return [pairs] if isinstance(pairs, LabeledPairs) else list(pairs)


def _each(pairs: LabeledPairs | Split, names: Mapping[str, str]) -> LabeledPairs | Split:
    if isinstance(pairs, LabeledPairs):
        return rename_nodes(pairs, names)
    return Split(*(rename_nodes(part, names) for part in pairs))
