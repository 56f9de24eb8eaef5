"""Judged collections: TREC qrels and runs, MTEB's three tables, and the data sets of NUDGE's authors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nudge_rag.feedback.files import json_lines, read_text
from nudge_rag.feedback.log import FeedbackLog, Retrieval, ShownNode
from nudge_rag.feedback.pairs import LabeledPairs, Split
from nudge_rag.feedback.readers.common import pick
from nudge_rag.feedback.reading import ROW_ERRORS, Errors, RowLog, checked_id, checked_text, parsed_grade
from nudge_rag.feedback.records import Numbered, Records, numbered_records

__all__ = ["NUDGE_DATASETS", "from_mteb", "from_nudge_dataset", "from_trec", "from_trec_run"]

NUDGE_DATASETS = ("nfcorpus", "scifact", "arguana", "fever", "nq", "triviaqa", "hotpotqa")
PARTS = ("train", "dev", "test")

Topics = Mapping[str, str] | str | Path
Grades = dict[str, dict[str, float]]


def from_trec(
    qrels: str | Path, topics: Topics, *, errors: Errors = "raise", encoding: str | None = None
) -> LabeledPairs:
    """Read TREC qrels: query, iteration, document and relevance, between white space, without a header.

    A relevance below 0 (spam) rejects the node.

    Args:
        qrels: the file.
        topics: query id to text, or a file of them: JSONL (``_id`` or ``id``, ``text``), or id and text between a tab.
        errors: ``"raise"`` at a bad row, or ``"skip"`` it.
        encoding: that of text files; without it, what their byte order mark says, else UTF-8.

    Raises:
        ValueError: a bad row, with file and line.
    """
    log = RowLog(str(qrels), errors)
    texts = _topics(topics, log, encoding)
    found: Grades = {}
    for line, (query, _, node, relevance) in _fields(Path(qrels), 4, log, encoding):
        try:
            _judge(found, texts, query, node, parsed_grade(relevance, "relevance"))
        except ROW_ERRORS as error:
            log.bad(line, str(error), type(error))
    return LabeledPairs({query: texts[query] for query in found}, found, report=log.report())


def from_trec_run(
    run: str | Path, topics: Topics, *, errors: Errors = "raise", encoding: str | None = None
) -> FeedbackLog:
    """Read a TREC run (query, Q0, document, rank, score, tag) as retrievals; ranks follow the scores, as trec_eval's.

    Args:
        run: the file.
        topics: query id to text, or a file of them.
        errors: ``"raise"`` at a bad row, or ``"skip"`` it.
        encoding: that of text files; without it, what their byte order mark says, else UTF-8.

    Raises:
        ValueError: a bad row, with file and line.
    """
    log = RowLog(str(run), errors)
    texts = _topics(topics, log, encoding)
    shown: dict[str, list[ShownNode]] = {}
    tags: dict[str, str] = {}
    for line, (query, _, node, _, score, tag) in _fields(Path(run), 6, log, encoding):
        try:
            if query not in texts:
                raise ValueError(f"query {query!r} has no text")
            shown.setdefault(query, []).append(ShownNode(node, parsed_grade(score, "score")))
            tags[query] = tag
        except ROW_ERRORS as error:
            log.bad(line, str(error), type(error))
    retrievals = [
        Retrieval(query, texts[query], tuple(sorted(nodes, key=lambda node: -(node.score or 0.0))), version=tags[query])
        for query, nodes in shown.items()
    ]
    return FeedbackLog(tuple(retrievals), (), log.report())


def from_mteb(
    queries: Records, qrels: Records, *, errors: Errors = "raise", encoding: str | None = None
) -> LabeledPairs:
    """Read queries (``_id`` or ``id``, ``text``) and qrels (``query-id``, ``corpus-id``, ``score``) as on the hub.

    Args:
        queries: rows, or their JSONL, CSV or Parquet file.
        qrels: likewise, of one split.
        errors: ``"raise"`` at a bad row, or ``"skip"`` it.
        encoding: that of text files; without it, what their byte order mark says, else UTF-8.

    Raises:
        ValueError: a bad row, with file and line.

    Example:
        >>> qrels = [{"query-id": 1, "corpus-id": "d", "score": 2}]
        >>> dict(from_mteb([{"_id": "1", "text": "reset my password"}], qrels).qrels["1"])
        {'d': 2.0}
    """
    log = RowLog("MTEB", errors, "row")
    return _judged(
        numbered_records(queries, log, "MTEB queries", encoding),
        numbered_records(qrels, log, "MTEB qrels", encoding),
        log,
    )


def from_nudge_dataset(
    name: str | Path, *, node_id: str = "record_id", errors: Errors = "raise", encoding: str | None = None
) -> Split:
    """Read a data set of NUDGE's authors (``sepz/<name>_ft`` on the hub), or a folder with its three tables.

    Query ids begin anew in each part there: here they are ``<part>-<q_id>``. The paper's splits are its own; those of
    BEIR's data sets of the same names are others.

    Args:
        name: "nfcorpus", "scifact", "arguana", "fever", "nq", "triviaqa" or "hotpotqa"; or a folder with
            ``data_records``, ``qs`` and ``qs_rel``, each with ``train``, ``dev`` and ``test`` in Parquet or JSONL.
        node_id: "record_id", the row of the record, or another of its columns, such as "doc_id".
        errors: ``"raise"`` at a bad row, or ``"skip"`` it.
        encoding: that of text files; without it, what their byte order mark says, else UTF-8.

    Returns:
        Training, validation (their dev) and test part.

    Raises:
        ValueError: neither a name nor a folder; a bad row, with file and line.
        ImportError: a name, and Hugging Face's datasets is not installed.
    """
    tables = _folder_tables if Path(name).is_dir() else _hub_tables
    ids: dict[str, str] = {}
    log = RowLog(str(name), errors, "row")
    if node_id != "record_id":
        for source, line, row in _table_rows(tables(str(name), "data_records", "train"), "data_records", log, encoding):
            try:
                ids[checked_id(row.get("record_id"), "record_id")] = checked_id(row.get(node_id), node_id)
            except ROW_ERRORS as error:
                log.bad(line, str(error), type(error), source)
        log.report()
    parts = []
    for part in PARTS:
        log = RowLog(str(name), errors, "row")
        queries = (
            (source, line, {"_id": _part_id(part, row), "text": row.get("input")})
            for source, line, row in _table_rows(tables(str(name), "qs", part), f"qs/{part}", log, encoding)
        )
        qrels = (
            (source, line, {"query-id": _part_id(part, row), "corpus-id": _node(row, ids), "score": row.get("rel", 1)})
            for source, line, row in _table_rows(tables(str(name), "qs_rel", part), f"qs_rel/{part}", log, encoding)
        )
        parts.append(_judged(queries, qrels, log))
    return Split(*parts)


def _judged(queries: Iterator[Numbered], qrels: Iterator[Numbered], log: RowLog) -> LabeledPairs:
    """Labels from rows of queries and of judgements, under the names of MTEB's columns."""
    texts: dict[str, str] = {}
    for source, line, row in queries:
        try:
            _add_text(texts, pick(row, "_id", "id"), row.get("text"))
        except ROW_ERRORS as error:
            log.bad(line, str(error), type(error), source)
    found: Grades = {}
    for source, line, row in qrels:
        try:
            query = checked_id(pick(row, "query-id", "query_id"), "query-id")
            node = checked_id(pick(row, "corpus-id", "corpus_id"), "corpus-id")
            _judge(found, texts, query, node, parsed_grade(row.get("score", 1), "score"))
        except ROW_ERRORS as error:
            log.bad(line, str(error), type(error), source)
    return LabeledPairs({query: texts[query] for query in found}, found, report=log.report())


def _table_rows(tables: list[Records], name: str, log: RowLog, encoding: str | None) -> Iterator[Numbered]:
    for table in tables:
        yield from numbered_records(table, log, name, encoding)


def _part_id(part: str, row: Mapping[str, Any]) -> str | None:
    """Query ids begin anew in each part."""
    query = row.get("q_id")
    return None if query is None else f"{part}-{query}"


def _node(row: Mapping[str, Any], ids: Mapping[str, str]) -> Any:
    record = row.get("record_id")
    return ids.get(str(record)) if ids else record


def _folder_tables(folder: str, table: str, part: str) -> list[Records]:
    for pattern in (f"{part}*.parquet", f"{part}*.jsonl", f"{part}*.csv"):
        files: list[Records] = [*sorted((Path(folder) / table).glob(pattern))]
        if files:
            return files
    raise ValueError(f"{folder} has no {table}/{part}.parquet, .jsonl or .csv")


def _hub_tables(name: str, table: str, part: str) -> list[Records]:
    if name not in NUDGE_DATASETS:
        raise ValueError(f"expected a folder or one of {', '.join(NUDGE_DATASETS)}, got {name!r}")
    try:
        import datasets
    except ImportError as error:
        raise ImportError("data sets by name need Hugging Face's: pip install 'nudge-rag[datasets]'") from error
    return [datasets.load_dataset(f"sepz/{name}_ft", table, split=part)]


def _topics(topics: Topics, log: RowLog, encoding: str | None) -> dict[str, str]:
    texts: dict[str, str] = {}
    if isinstance(topics, Mapping):
        for place, (query, text) in enumerate(topics.items()):
            try:
                _add_text(texts, query, text)
            except ROW_ERRORS as error:
                log.bad(place, str(error), type(error), source="topics")
        return texts
    path = Path(topics)
    rows: list[tuple[int, Any, Any]]
    if path.suffix.lower() in (".jsonl", ".json"):
        rows = [
            (line, pick(row, "_id", "id", "query_id"), row.get("text")) for line, row in json_lines(path, log, encoding)
        ]
    else:
        lines = enumerate(read_text(path, encoding).split("\n"), start=1)
        rows = []
        for line, text in lines:
            query_id, _, words = text.rstrip("\r").partition("\t")
            if text.strip():
                rows.append((line, query_id, words))
    for line, query, text in rows:
        try:
            _add_text(texts, query, text)
        except ROW_ERRORS as error:
            log.bad(line, str(error), type(error), source=str(path))
    return texts


def _add_text(texts: dict[str, str], query: object, text: object) -> None:
    key = checked_id(query, "query id")
    if texts.setdefault(key, checked_text(text, f"text of query {key!r}")) != text:
        raise ValueError(f"query {key!r} has two texts; the first one counts if errors are skipped")


def _judge(found: Grades, texts: Mapping[str, str], query: str, node: str, grade: float) -> None:
    if query not in texts:
        raise ValueError(f"query {query!r} has no text")
    if found.get(query, {}).get(node, grade) != grade:
        raise ValueError(f"query {query!r} and node {node!r} are judged twice, differently")
    found.setdefault(query, {})[node] = grade


def _fields(path: Path, n_fields: int, log: RowLog, encoding: str | None) -> Iterator[tuple[int, list[str]]]:
    for line, text in enumerate(read_text(path, encoding).split("\n"), start=1):
        fields = text.split()
        if not fields:
            continue
        log.n_rows += 1
        if len(fields) == n_fields:
            yield line, fields
        else:
            log.bad(line, f"expected {n_fields} fields between white space, got {len(fields)}")
