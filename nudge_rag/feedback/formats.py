"""File formats of labelled pairs: JSONL, CSV, BEIR folders, LlamaIndex fine-tuning data sets."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from nudge_rag.feedback.files import CsvRow, csv_rows, json_lines, put_text, read_text
from nudge_rag.feedback.reading import RowLog, checked_id, checked_text, parsed_grade
from nudge_rag.feedback.rows import COLUMNS, Labels, Numbered

__all__ = ["read_beir", "read_csv", "read_finetune_dataset", "read_jsonl", "write_beir", "write_csv", "write_jsonl"]

QRELS_HEADER = ["query-id", "corpus-id", "score"]
REJECTED = -1.0


def read_jsonl(path: Path, log: RowLog, encoding: str | None = None) -> Iterator[Numbered]:
    """Yield line number and row of a JSONL file."""
    yield from json_lines(path, log, encoding)


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a row."""
    put_text(path, "".join(json.dumps(dict(row), ensure_ascii=False) + "\n" for row in rows))


def read_csv(path: Path, log: RowLog, encoding: str | None = None, delimiter: str = ",") -> Iterator[Numbered]:
    """Yield line number and row of a CSV file with a header.

    Raises:
        ValueError: the header lacks query or node_id.
    """
    header, rows = csv_rows(path, log, encoding, delimiter)
    if not {"query", "node_id"} <= set(header):
        raise ValueError(f"{path} must have the columns query and node_id, it has {header}{_delimiter_hint(header)}")
    for line, cells in rows:
        if len(cells) != len(header):
            log.n_rows += 1
            log.bad(line, f"expected {len(header)} columns, got {len(cells)}")
            continue
        yield line, dict(zip(header, cells, strict=True))


def _delimiter_hint(header: list[str]) -> str:
    """What to do if all names are in one cell."""
    found = next((sign for sign in ";\t|" if len(header) == 1 and sign in header[0]), None)
    return "" if found is None else f": pass delimiter={found!r} (on the command line, --format tsv for tabs)"


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write query, node_id, grade and query_id, and synthetic if a row has it."""
    written = list(rows)
    columns = COLUMNS if any("synthetic" in row for row in written) else COLUMNS[:4]
    buffer = StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n", restval="false")
    writer.writeheader()
    writer.writerows({**row, "grade": repr(row["grade"])} for row in written)
    put_text(path, buffer.getvalue())


def read_beir(folder: Path, split: str, log: RowLog, encoding: str | None = None) -> Labels:
    """Return queries and qrels of one split of a BEIR folder.

    Raises:
        ValueError: there is no such split, or its header is another one.
    """
    path = folder / "qrels" / f"{split}.tsv"
    if not path.exists():
        there = sorted(file.stem for file in (folder / "qrels").glob("*.tsv"))
        raise ValueError(f"{folder} has no split {split!r}; it has {there}")
    entries = _beir_queries(folder / "queries.jsonl", log, encoding)
    header, rows = csv_rows(path, log, encoding, "\t", quoting=csv.QUOTE_NONE)
    if header != QRELS_HEADER:
        raise ValueError(f"{path} must start with the line {' '.join(QRELS_HEADER)} (tab-separated), got {header}")
    qrels = _qrels(path, rows, entries, log)
    queries = {query: entries[query]["text"] for query in qrels}
    synthetic = frozenset(query for query in qrels if _is_synthetic(entries[query]))
    return Labels(queries, qrels, synthetic)


def write_beir(
    folder: Path,
    split: str,
    queries: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, float]],
    synthetic: frozenset[str] = frozenset(),
) -> None:
    """Write one split; queries of other splits stay in queries.jsonl.

    Raises:
        ValueError: a query is in queries.jsonl with another text, or an id holds tabs or line breaks.
    """
    path = folder / "queries.jsonl"
    log = RowLog(str(path))
    entries = {str(entry["_id"]): entry for _, entry in json_lines(path, log)} if path.exists() else {}
    for query, text in queries.items():
        if query in entries and entries[query].get("text") != text:
            raise ValueError(f"{path} has query {query!r} with another text")
        if any(mark in part for part in (query, *qrels[query]) for mark in "\t\r\n"):
            raise ValueError(f"query {query!r}: BEIR ids cannot hold tabs or line breaks")
        metadata: dict[str, Any] = {"metadata": {"synthetic": True}} if query in synthetic else {}
        entries.setdefault(query, {"_id": query, "text": text, **metadata})
    lines = ["\t".join(QRELS_HEADER)]
    lines += [f"{q}\t{node}\t{_short(grade)}" for q, grades in qrels.items() for node, grade in grades.items()]
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    put_text(path, "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries.values()))
    put_text(folder / "qrels" / f"{split}.tsv", "\n".join(lines) + "\n")


def read_finetune_dataset(dataset: Any, log: RowLog, encoding: str | None = None) -> Labels:
    """Return queries and qrels of an EmbeddingQAFinetuneDataset, its mapping or its JSON file.

    Raises:
        TypeError: there are no queries and relevant_docs, both mappings.
        ValueError: the file is not JSON.
    """
    where = f"{dataset}: " if isinstance(dataset, str | Path) else ""
    if isinstance(dataset, str | Path):
        dataset = _json_file(Path(dataset), encoding)
    names = ("queries", "relevant_docs", "negative_docs")
    fields = dataset if isinstance(dataset, Mapping) else {name: getattr(dataset, name, None) for name in names}
    queries, relevant, negative = (fields.get(name) for name in names)
    if not isinstance(queries, Mapping) or not isinstance(relevant, Mapping):
        shown = f"{type(queries).__name__} and {type(relevant).__name__} of a {type(dataset).__name__}"
        raise TypeError(f"{where}expected queries and relevant_docs, both mappings, got {shown}")
    if negative is not None and not isinstance(negative, Mapping):
        raise TypeError(f"{where}negative_docs must be a mapping of query ids to nodes, got {type(negative).__name__}")
    texts: dict[str, str] = {}
    qrels: dict[str, dict[str, float]] = {}
    for query in dict.fromkeys([*queries, *relevant, *(negative or {})]):
        log.n_rows += 1
        try:
            grades = _finetune_grades(relevant.get(query), (negative or {}).get(query))
            if query not in queries:
                raise ValueError("is in relevant_docs or negative_docs and has no text in queries")
            if grades:
                key = checked_id(query, "query id")
                texts[key], qrels[key] = checked_text(queries[query], "its text"), grades
        except (TypeError, ValueError) as error:
            log.bad(None, f"query {query!r:.100}: {error}", type(error))
    return Labels(texts, qrels)


def _finetune_grades(relevant: Any, negative: Any) -> dict[str, float]:
    grades = _node_grades(relevant, 1.0, "relevant_docs")
    for node, grade in _node_grades(negative, REJECTED, "negative_docs").items():
        if grades.setdefault(node, grade) > 0:
            raise ValueError(f"node {node!r} is both in relevant_docs and in negative_docs")
    return grades


def _node_grades(nodes: Any, grade: float, what: str) -> dict[str, float]:
    """One node id, several, or a mapping to grades."""
    if nodes is None:
        return {}
    if isinstance(nodes, Mapping):
        given = {
            checked_id(node, f"a node of {what}"): parsed_grade(g, f"{what}[{node!r}]") for node, g in nodes.items()
        }
        return given if grade > 0 else {node: min(g, -g, grade) if g else grade for node, g in given.items()}
    if isinstance(nodes, str | int):
        nodes = [nodes]
    if isinstance(nodes, bytes | bytearray) or not isinstance(nodes, Iterable):
        raise TypeError(f"{what} must be node ids or a mapping of them to grades, got {nodes!r:.200}")
    return {checked_id(node, f"a node of {what}"): grade for node in nodes}


def _beir_queries(path: Path, log: RowLog, encoding: str | None) -> dict[str, dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = {}
    for line, entry in json_lines(path, log, encoding):
        try:
            query = checked_id(entry["_id"] if "_id" in entry else entry.get("id"), "_id")
            checked_text(entry.get("text"), f"text of query {query!r}")
        except (TypeError, ValueError) as error:
            log.n_rows += 1
            log.bad(line, str(error), type(error), source=str(path))
            continue
        if entries.setdefault(query, entry)["text"] != entry["text"]:
            log.n_rows += 1
            log.bad(
                line, f"query {query!r} has two texts; the first one counts if errors are skipped", source=str(path)
            )
    return entries


def _qrels(path: Path, rows: Iterable[CsvRow], entries: Mapping[str, Any], log: RowLog) -> dict[str, dict[str, float]]:
    """Judgements, not votes: the same one twice is one, and two grades of a pair contradict each other."""
    qrels: dict[str, dict[str, float]] = {}
    lost: list[tuple[int, str]] = []
    for line, cells in rows:
        log.n_rows += 1
        try:
            if len(cells) != 3:
                raise ValueError(f"expected 3 tab-separated values, got {len(cells)}")
            query, node = checked_text(cells[0], "query-id"), checked_text(cells[1], "corpus-id")
            grade = parsed_grade(cells[2], "score")
            if query not in entries:
                lost.append((line, query))
                continue
            if qrels.get(query, {}).get(node, grade) != grade:
                raise ValueError(f"query {query!r} and node {node!r} have two scores")
            qrels.setdefault(query, {})[node] = grade
        except (TypeError, ValueError) as error:
            log.bad(line, str(error), type(error), source=str(path))
    if lost:
        ids = list(dict.fromkeys(query for _, query in lost))
        if log.errors == "raise":
            raise ValueError(f"{path} names {len(ids)} query id(s) that queries.jsonl lacks, such as {ids[0]!r}")
        for line, query in lost:
            log.bad(line, f"query {query!r} has no text in queries.jsonl", source=str(path))
    return qrels


def _is_synthetic(entry: Mapping[str, Any]) -> bool:
    metadata = entry.get("metadata")
    return isinstance(metadata, Mapping) and metadata.get("synthetic") is True


def _json_file(path: Path, encoding: str | None) -> Any:
    try:
        return json.loads(read_text(path, encoding))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error})") from error


def _short(grade: float) -> str:
    """BEIR scores are integers if they can be."""
    return str(int(grade)) if grade == int(grade) else repr(grade)
