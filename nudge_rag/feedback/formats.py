"""File formats of labelled pairs: JSONL, CSV, BEIR folders, LlamaIndex fine-tuning data sets."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

__all__ = ["read_beir", "read_csv", "read_finetune_dataset", "read_jsonl", "write_beir", "write_csv", "write_jsonl"]

COLUMNS = ("query", "node_id", "grade", "query_id")
QRELS_HEADER = ["query-id", "corpus-id", "score"]

Judged = tuple[dict[str, str], dict[str, dict[str, float]]]


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSONL file; errors name the file and the line."""
    for number, entry in _json_lines(path):
        missing = [name for name in COLUMNS[:2] if name not in entry]
        if missing:
            raise ValueError(f"{path}, line {number}: {' and '.join(missing)} missing")
        yield {"grade": 1.0, **entry}


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a row."""
    _replace(path, "".join(json.dumps(dict(row), ensure_ascii=False) + "\n" for row in rows))


def read_csv(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a CSV file with a header; errors name the file and the line."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        header = reader.fieldnames or []
        if not {"query", "node_id"} <= set(header):
            raise ValueError(f"{path} must have the columns query and node_id, it has {list(header)}")
        for row in reader:
            if None in row or None in row.values():
                raise ValueError(f"{path}, line {reader.line_num}: expected {len(header)} columns")
            grade = _number(row.get("grade") or "1", f"{path}, line {reader.line_num}: grade")
            yield {"query": row["query"], "node_id": row["node_id"], "grade": grade, "query_id": row.get("query_id")}


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """All four columns."""
    buffer = StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "grade": repr(row["grade"])} for row in rows)
    _replace(path, buffer.getvalue())


def read_beir(folder: Path, split: str) -> Judged:
    """Queries and qrels of one split of a BEIR folder."""
    texts = {str(entry["_id"]): entry["text"] for _, entry in _json_lines(folder / "queries.jsonl")}
    qrels: dict[str, dict[str, float]] = {}
    path = folder / "qrels" / f"{split}.tsv"
    if not path.exists():
        there = sorted(file.stem for file in (folder / "qrels").glob("*.tsv"))
        raise ValueError(f"{folder} has no split {split!r}; it has {there}")
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        if (header := next(rows, None)) != QRELS_HEADER:
            raise ValueError(f"{path} must start with the line {' '.join(QRELS_HEADER)} (tab-separated), got {header}")
        for row in rows:
            if len(row) != 3:
                raise ValueError(f"{path}, line {rows.line_num}: expected 3 tab-separated values, got {len(row)}")
            grade = _number(row[2], f"{path}, line {rows.line_num}: score")
            grades = qrels.setdefault(row[0], {})
            grades[row[1]] = max(grade, grades.get(row[1], grade))
    lost = [query for query in qrels if query not in texts]
    if lost:
        raise ValueError(f"{path} names {len(lost)} query id(s) that queries.jsonl lacks, such as {lost[0]!r}")
    return {query: texts[query] for query in qrels}, qrels


def write_beir(folder: Path, split: str, queries: Mapping[str, str], qrels: Mapping[str, Mapping[str, float]]) -> None:
    """Write one split; queries of other splits stay in queries.jsonl."""
    path = folder / "queries.jsonl"
    entries = {str(entry["_id"]): entry for _, entry in _json_lines(path)} if path.exists() else {}
    for query, text in queries.items():
        if query in entries and entries[query].get("text") != text:
            raise ValueError(f"{path} has query {query!r} with another text")
        if any(mark in part for part in (query, *qrels[query]) for mark in "\t\r\n"):
            raise ValueError(f"query {query!r}: BEIR ids cannot hold tabs or line breaks")
        entries.setdefault(query, {"_id": query, "text": text})
    lines = ["\t".join(QRELS_HEADER)]
    lines += [f"{q}\t{node}\t{_short(grade)}" for q, grades in qrels.items() for node, grade in grades.items()]
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    _replace(path, "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries.values()))
    _replace(folder / "qrels" / f"{split}.tsv", "\n".join(lines) + "\n")


def read_finetune_dataset(dataset: Any) -> Judged:
    """Queries and qrels of an EmbeddingQAFinetuneDataset, its mapping or its JSON file."""
    if isinstance(dataset, str | Path):
        dataset = json.loads(Path(dataset).read_text(encoding="utf-8"))
    if isinstance(dataset, Mapping):
        found = dataset.get("queries"), dataset.get("relevant_docs")
    else:
        found = getattr(dataset, "queries", None), getattr(dataset, "relevant_docs", None)
    queries, relevant = found
    if not isinstance(queries, Mapping) or not isinstance(relevant, Mapping):
        raise TypeError(f"expected queries and relevant_docs, both mappings, got {type(dataset).__name__}")
    qrels = {query: dict.fromkeys(nodes, 1.0) for query, nodes in relevant.items()}
    return {query: queries[query] for query in queries if qrels.get(query)}, {q: g for q, g in qrels.items() if g}


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number}: not JSON ({error})") from error
            if not isinstance(entry, dict):
                raise ValueError(f"{path}, line {number}: expected a JSON object, got {type(entry).__name__}")
            yield number, entry


def _number(text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{what} must be a number, got {text!r}") from None


def _short(grade: float) -> str:
    """BEIR scores are integers where they can be."""
    return str(int(grade)) if grade == int(grade) else repr(grade)


def _replace(path: Path, content: str) -> None:
    """Write atomically: readers see the old file or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(content, encoding="utf-8", newline="")
    temporary.replace(path)
