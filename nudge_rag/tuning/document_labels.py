"""Labels on documents become labels on the chunk that answers best, never on every chunk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.caller import warn_caller
from nudge_rag.common.ranking import rank_nodes
from nudge_rag.feedback.pairs import LabeledPairs, UnknownNodes

if TYPE_CHECKING:
    from nudge_rag.stores.base import EmbeddingStore
    from nudge_rag.tuning.queries import EmbedQueries

__all__ = ["ChunkLabels", "label_chunks"]

MARGINS = (0.0, 0.02, 0.05, 0.1)
FEWEST_HELD_OUT = 20
PARTS = (0.6, 0.2, 0.2)
DEPTH = 200


@dataclass(frozen=True)
class ChunkLabels:
    """Labels on chunks, and how they were chosen.

    Attributes:
        pairs: each document's grade on its nearest chunk for the query, or on those within the margin of it.
        margin: cosine by which a chunk may be further away than the nearest one; 0 for the nearest alone.
        scores: margin to the metric of documents on held-out queries after tuning with it; empty if there were too few.
        metric: what was measured.
        unknown: documents without a chunk in the store.
    """

    pairs: LabeledPairs
    margin: float
    scores: Mapping[float, float]
    metric: str
    unknown: UnknownNodes

    def __str__(self) -> str:
        rule = "the nearest chunk" if not self.margin else f"chunks within {self.margin:g} of the nearest"
        shown = ", ".join(f"{margin:g}: {score:.4f}" for margin, score in self.scores.items())
        why = (
            f"chosen by {self.metric} of documents on held-out queries ({shown})"
            if self.scores
            else "too few queries to choose by"
        )
        return f"{len(self.pairs)} labels on chunks of {self.pairs.n_queries} queries: {rule}, {why}"


def label_chunks(
    pairs: LabeledPairs,
    documents: Mapping[str, str],
    store: EmbeddingStore,
    embed_queries: EmbedQueries,
    *,
    margins: Sequence[float] = MARGINS,
    metric: str = "nDCG@10",
    seed: int = 0,
) -> ChunkLabels:
    """Turn labels on documents into labels on chunks (multiple instances: some chunk of it answers, not all).

    For each query, the label goes to the document's chunk with the largest cosine, or to those within a margin of it.
    Of several margins, that is taken whose labels tune best: NUDGE-N learns from 60 % of the queries, chooses its step
    on 20 % and is judged on 20 % by the rank of the first chunk of each document, among the labelled documents' chunks.

    Args:
        pairs: labels whose node ids are document ids.
        documents: node id to the id of its document, such as LlamaIndex's ``ref_doc_id``.
        store: the vector store.
        embed_queries: texts to (m, d) query embeddings.
        margins: cosines to choose from; one alone is taken as it is.
        metric: of documents.
        seed: of the split.

    Raises:
        ValueError: no labelled document has a chunk in the store.

    Warns:
        UserWarning: labelled documents without a chunk in the store.

    Example:
        >>> from nudge_rag.stores import MappingStore
        >>> store = MappingStore({"a1": [1.0, 0.0], "a2": [0.0, 1.0], "b1": [0.7, 0.7]})
        >>> pairs = LabeledPairs.from_pairs([("how to pay", "a"), ("how to leave", "b")])
        >>> vectors = {"how to pay": [0.1, 0.9], "how to leave": [0.5, 0.5]}
        >>> chunks = {"a1": "a", "a2": "a", "b1": "b"}
        >>> labels = label_chunks(pairs, chunks, store, lambda texts: [vectors[text] for text in texts])
        >>> {labels.pairs.queries[query]: list(nodes) for query, nodes in labels.pairs.qrels.items()}
        {'how to pay': ['a2'], 'how to leave': ['b1']}
        >>> print(labels)
        2 labels on chunks of 2 queries: the nearest chunk, too few queries to choose by
    """
    if not margins or any(margin < 0 for margin in margins):
        raise ValueError(f"margins must be cosines of at least 0, got {list(margins)}")
    named = set(pairs.node_ids)
    wanted = [node for node, document in documents.items() if document in named]
    present = store.matching(wanted, None)
    nodes = [node for node in wanted if node in present]
    known, unknown = pairs.restrict_to({documents[node] for node in nodes})
    if not nodes:
        raise ValueError(
            f"no labelled document has a chunk in the store: labels name {next(iter(named), None)!r}, documents map to "
            f"{next(iter(documents.values()), None)!r}"
        )
    if unknown:
        warn_caller(f"labels on documents: {unknown}")
    texts = list(dict.fromkeys(known.queries.values()))
    queries = dict(zip(texts, _unit(embed_queries(texts)), strict=True))
    chunks = _Chunks(nodes, [documents[node] for node in nodes], np.asarray(store.read(nodes), dtype=np.float64))
    scores: dict[float, float] = {}
    if len(margins) > 1 and PARTS[2] * known.n_queries >= FEWEST_HELD_OUT:
        scores = {margin: _judged(known, queries, chunks, margin, metric, seed) for margin in margins}
    # The first of equal ones: the smallest margin, if they are given in that order.
    margin = max(scores, key=lambda tried: scores[tried]) if scores else margins[0]
    return ChunkLabels(chunks.label(known, queries, margin), margin, scores, metric, unknown)


@dataclass(frozen=True)
class _Chunks:
    """Chunks of the labelled documents: node ids, document ids, (n, d) vectors."""

    nodes: list[str]
    documents: list[str]
    vectors: FloatArray

    def label(self, pairs: LabeledPairs, queries: Mapping[str, FloatArray], margin: float) -> LabeledPairs:
        """Move each document's grade to its chunks within a margin of the nearest."""
        unit = _unit(self.vectors)
        rows_of: dict[str, list[int]] = {}
        for row, document in enumerate(self.documents):
            rows_of.setdefault(document, []).append(row)
        qrels: dict[str, dict[str, float]] = {}
        for query, grades in pairs.qrels.items():
            for document, grade in grades.items():
                rows = np.array(rows_of[document])
                cosines = unit[rows] @ queries[pairs.queries[query]]
                for row in rows[cosines >= cosines.max() - margin]:
                    qrels.setdefault(query, {})[self.nodes[row]] = grade
        return LabeledPairs(pairs.queries, qrels, pairs.synthetic)


def _judged(
    pairs: LabeledPairs,
    queries: Mapping[str, FloatArray],
    chunks: _Chunks,
    margin: float,
    metric: str,
    seed: int,
) -> float:
    """The metric of documents on held-out queries after tuning with the labels that a margin makes."""
    from nudge_rag.evaluation.runs import evaluate_run
    from nudge_rag.solvers import LabeledQueries, NudgeN

    train, val, test = pairs.split(*PARTS, seed=seed)
    row_of = {node: row for row, node in enumerate(chunks.nodes)}

    def labelled(part: LabeledPairs) -> LabeledQueries:
        labels = chunks.label(part, queries, margin)
        return LabeledQueries(
            np.stack([queries[text] for text in labels.queries.values()]),
            [[row_of[node] for node in grades] for grades in labels.qrels.values()],
            [list(grades.values()) for grades in labels.qrels.values()],
        )

    tuned = NudgeN().fit(chunks.vectors, labelled(train), labelled(val)).embeddings()
    asked = np.stack([queries[text] for text in test.queries.values()])
    best, _ = rank_nodes(asked, tuned, min(DEPTH, len(chunks.nodes)), "cosine")
    run = {
        query: list(dict.fromkeys(chunks.documents[row] for row in rows))
        for query, rows in zip(test.queries, best, strict=True)
    }
    return evaluate_run(test.qrels, run, [metric]).mean(metric)


def _unit(vectors: object) -> FloatArray:
    rows: FloatArray = np.asarray(vectors, dtype=np.float64)
    lengths: FloatArray = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1.0)
