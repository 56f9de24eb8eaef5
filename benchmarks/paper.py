"""The protocol of the NUDGE paper's tables 3 and 4 (arXiv 2409.02343) on a data set in its authors' schema.

``python benchmarks/paper.py --data FOLDER`` reads a folder with ``data_records``, ``qs`` and ``qs_rel`` (Parquet files,
one per split, as the authors publish theirs), embeds texts and queries with any sentence-transformers model, tunes on
the split ``train``, chooses on ``dev`` and measures on ``test``: capped recall at 1 and 10, and nDCG@10. The figures
that the authors publish with their code are printed beside ours, if there are any for that data set and model.

``--nontrain-filter`` leaves the records out of the solvers' problem that answer no training or validation query, and
ranks them as they are; the result is the same and needs less memory.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from data_sets import Data, Tuned

from nudge_rag import LabeledPairs, Split, evaluate
from nudge_rag.common.ranking import rank_nodes
from nudge_rag.solvers import NudgeM, NudgeN

METRICS = ("CappedRecall@1", "CappedRecall@10", "nDCG@10")
SPLITS = ("train", "dev", "test")
DEPTH = 10

# Percent, in the order of METRICS; None if the authors give no figure. Their README prints these for one data set ...
PUBLISHED: dict[tuple[str, str], dict[str, tuple[float | None, float | None, float | None]]] = {
    ("nfcorpus", "bge-small-en-v1.5"): {"untuned": (None, 31.4, 33.9), "NUDGE-N": (None, 43.7, 44.5)},
}
# ... and these as means over the seven text data sets.
PUBLISHED_MEANS = {
    "bge-small-en-v1.5": {
        "untuned": (37.0, 62.4, 48.6),
        "Adaptor": (39.5, 65.5, 51.6),
        "NUDGE-M": (49.7, 66.6, 57.2),
        "NUDGE-N": (52.1, 72.5, 61.3),
    },
    "gte-large-en-v1.5": {
        "untuned": (41.6, 67.0, 53.2),
        "Adaptor": (45.1, 68.4, 55.6),
        "NUDGE-M": (52.1, 73.4, 61.2),
        "NUDGE-N": (53.4, 74.7, 62.7),
    },
}


@dataclass(frozen=True)
class Records:
    """A data set in the authors' schema, before it is embedded.

    Attributes:
        texts: record texts; the position of a record is its id.
        parts: the labelled pairs of each split; query ids are ``split-q_id``, since q_id restarts in every split.
    """

    texts: list[str]
    parts: dict[str, LabeledPairs]


def read_records(folder: Path) -> Records:
    """Read ``data_records``, ``qs`` and ``qs_rel`` from a folder.

    Raises:
        FileNotFoundError: a file that is not there, by name.
        ValueError: record ids that are not 0..n-1, a label of a query or a record that does not exist.
    """
    records = sorted(_rows(folder / "data_records" / "train.parquet"), key=lambda row: int(row["record_id"]))
    if [int(row["record_id"]) for row in records] != list(range(len(records))):
        raise ValueError(f"{folder}: record_id must be 0..{len(records) - 1}, each once")
    texts = [" ".join(filter(None, (row.get("title"), row["text"]))) for row in records]
    return Records(texts, {split: _read_pairs(folder, split, len(texts)) for split in SPLITS})


def _read_pairs(folder: Path, split: str, n_records: int) -> LabeledPairs:
    queries = {f"{split}-{row['q_id']}": str(row["input"]) for row in _rows(folder / "qs" / f"{split}.parquet")}
    qrels: dict[str, dict[str, float]] = {}
    for row in _rows(folder / "qs_rel" / f"{split}.parquet"):
        query, record = f"{split}-{row['q_id']}", int(row["record_id"])
        if query not in queries or not 0 <= record < n_records:
            file = folder / "qs_rel" / f"{split}.parquet"
            raise ValueError(f"{file}: q_id {row['q_id']} and record_id {record} must name a query and a record")
        if row["rel"] > 0:
            qrels.setdefault(query, {})[str(record)] = float(row["rel"])
    return LabeledPairs({query: queries[query] for query in qrels}, qrels)


def _rows(file: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as parquet

    if not file.is_file():
        raise FileNotFoundError(
            f"{file} is missing: the authors' schema is data_records, qs and qs_rel in Parquet files"
        )
    rows: list[dict[str, Any]] = parquet.read_table(file).to_pylist()
    return rows


def embed(records: Records, encode: Callable[[Sequence[str]], np.ndarray]) -> Data:
    """Embed each distinct text once, as unit vectors."""
    nodes = _unit(encode(records.texts))
    questions = list(dict.fromkeys(text for part in records.parts.values() for text in part.queries.values()))
    queries = dict(zip(questions, _unit(encode(questions)), strict=True))
    ids = [str(row) for row in range(len(nodes))]
    return Data(ids, records.texts, nodes, Split(*(records.parts[split] for split in SPLITS)), queries)


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def untuned(data: Data) -> Tuned:
    return Tuned(data.nodes, 0.0)


def nudged(solver: Any, *, nontrain_filter: bool) -> Callable[[Data], Tuned]:
    """A method that moves the nodes by ``solver``; NUDGE-M is scored by dot product, NUDGE-N by cosine."""

    def method(data: Data) -> Tuned:
        train, val = (data.labels(part) for part in data.split[:2])
        rows = np.arange(len(data.nodes))
        if nontrain_filter:
            rows = np.unique(np.concatenate([np.concatenate([*part.answers]) for part in (train, val)]))
        started = time.perf_counter()
        vectors = data.nodes.copy()
        position = {row: place for place, row in enumerate(rows.tolist())}
        local = [_on_rows(part, position) for part in (train, val)]
        rest = np.delete(data.nodes, rows, axis=0)
        vectors[rows] = solver.fit(data.nodes[rows], *local, background=rest if len(rest) else None).embeddings()
        return Tuned(vectors, time.perf_counter() - started, "dot" if isinstance(solver, NudgeM) else "cosine")

    return method


def _on_rows(labels: Any, position: Mapping[int, int]) -> Any:
    answers = [[position[int(row)] for row in rows] for rows in labels.answers]
    return type(labels)(labels.vectors, answers, labels.grades)


def adaptor(data: Data) -> Tuned:
    from peers import query_adapter

    return query_adapter(data)


def fine_tuned(data: Data) -> Tuned:
    from fine_tuning import fine_tune

    return fine_tune(data)


def measure_percent(data: Data, tuned: Tuned) -> tuple[float, ...]:
    """METRICS on the test split, in percent."""
    part = data.split.test
    queries = (tuned.embed or data.embed)(list(part.queries.values()))
    best, _ = rank_nodes(queries, tuned.vectors, DEPTH, tuned.similarity)
    run = {query: [data.ids[row] for row in rows] for query, rows in zip(part.queries, best, strict=True)}
    result = evaluate(part.qrels, run, list(METRICS))
    return tuple(100 * float(np.mean(result.of(metric, list(part.qrels)))) for metric in METRICS)


def table(data: Data, methods: Mapping[str, Callable[[Data], Tuned]], name: str, model: str) -> list[str]:
    """One line a method: ours, the authors' for this data set, the authors' mean over seven; ``-`` if not published."""
    heads = ("", *METRICS, "seconds", "published", "published mean of seven")
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for title, method in methods.items():
        tuned = method(data)
        ours = [f"{value:.1f}" for value in measure_percent(data, tuned)]
        theirs = _published(PUBLISHED.get((name, model), {}).get(title))
        means = _published(PUBLISHED_MEANS.get(model, {}).get(title))
        lines.append("| " + " | ".join((title, *ours, f"{tuned.seconds:.1f}", theirs, means)) + " |")
    return lines


def _published(figures: Sequence[float | None] | None) -> str:
    return "-" if figures is None else " / ".join("-" if figure is None else f"{figure:.1f}" for figure in figures)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder in the authors' schema")
    parser.add_argument("--model", default="", help="sentence-transformers model; default: the demo's encoder")
    parser.add_argument("--nontrain-filter", action="store_true", help="solve without records that no label names")
    parser.add_argument("--adaptor", action="store_true", help="also train the paper's query adaptor (needs torch)")
    parser.add_argument("--ptft", action="store_true", help="also fine-tune the demo's encoder (minutes)")
    options = parser.parse_args(arguments)
    data = embed(read_records(options.data), _encoder(options.model))
    methods: dict[str, Callable[[Data], Tuned]] = {
        "untuned": untuned,
        "NUDGE-M": nudged(NudgeM(), nontrain_filter=options.nontrain_filter),
        "NUDGE-N": nudged(NudgeN(), nontrain_filter=options.nontrain_filter),
    }
    if options.adaptor:
        methods["Adaptor"] = adaptor
    if options.ptft:
        methods["PTFT"] = fine_tuned
    name = options.data.resolve().name.removesuffix("_ft")
    print("\n".join(table(data, methods, name, options.model.rstrip("/").rpartition("/")[2])))


def _encoder(model: str) -> Callable[[Sequence[str]], np.ndarray]:
    if not model:
        from nudge_rag.demo.encoder import CachedEncoder

        return lambda texts: np.array(CachedEncoder().encode(list(texts)))
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(model)
    return lambda texts: np.asarray(encoder.encode(list(texts), normalize_embeddings=True))


if __name__ == "__main__":
    main()
