"""Retrieval spans: Phoenix and OpenInference, OpenTelemetry's GenAI conventions, and TruLens."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from nudge_rag.feedback.log import Feedback, FeedbackLog, Retrieval, ShownNode
from nudge_rag.feedback.readers.common import RunTree, about, documents_shown, optional_text, pick, query_text, vote
from nudge_rag.feedback.readers.otlp import otlp_mapping, unwrapped_spans
from nudge_rag.feedback.reading import ROW_ERRORS, Errors, RowLog, checked_id
from nudge_rag.feedback.records import Numbered, Records, loaded, numbered_records
from nudge_rag.feedback.tables import is_missing
from nudge_rag.feedback.ubi import parse_time

__all__ = ["from_spans", "from_trulens"]

NUMBERED = re.compile(r"^(retrieval\.documents|reranker\.output_documents)\.(\d+)\.document\.(.+)$")
OBSERVED = "ai.observability."
QUERIES = ("gen_ai.retrieval.query.text", f"{OBSERVED}retrieval.query_text", "input.value")
DOCUMENTS = ("retrieval.documents", "gen_ai.retrieval.documents", f"{OBSERVED}retrieval.retrieved_contexts")


def from_spans(
    spans: Records,
    annotations: Records = (),
    *,
    annotators: Collection[str] = ("HUMAN",),
    names: Collection[str] | None = None,
    threshold: float = 0.5,
    errors: Errors = "raise",
    encoding: str | None = None,
) -> FeedbackLog:
    """Read retrieval spans of OpenInference, of OpenTelemetry's GenAI conventions or of TruLens, and annotations.

    Attributes may be flat or nested, a list of OTLP keys and values, or columns of Phoenix's data frame; a row may be a
    whole ``resourceSpans`` object, as OTLP exporters write them to files. A span within
    another retrieval's is part of it; what a reranker span of the same trace kept is what was shown. An annotation of
    any other span, such as the answer's, is about the retrievals within it, or else within the nearest span around it.
    Spans of LangChain hold no ids: resolve their texts with `TextResolver.resolve`.

    Args:
        spans: rows, or their file.
        annotations: Phoenix's document annotations (``document_position`` counts from 0) and span annotations.
        annotators: kinds that count; "LLM" and "CODE" are no users.
        names: of the annotations that count; all without it.
        threshold: scores above it are thumbs up, below it thumbs down; without a score labels count by their words.
        errors: ``"raise"`` at a bad row, or ``"skip"`` it.
        encoding: that of text files; without it, what their byte order mark says, else UTF-8.

    Raises:
        ValueError: a bad row, with file and line.

    Example:
        >>> span = {"context.span_id": "s", "attributes": {"gen_ai.operation.name": "retrieval",
        ...     "gen_ai.retrieval.query.text": "reset my password", "gen_ai.retrieval.documents": [{"id": "doc-7"}]}}
        >>> note = {"span_id": "s", "document_position": 0, "annotator_kind": "HUMAN", "result": {"label": "relevant"}}
        >>> dict(from_spans([span], [note]).to_pairs().qrels["q0"])
        {'doc-7': 1.0}
    """
    log = RowLog("spans", errors)
    found = _read_spans(unwrapped_spans(numbered_records(spans, log, "spans", encoding), log), log)
    events: list[Feedback] = []
    for source, line, row in numbered_records(annotations, log, "annotations", encoding):
        try:
            if row.get("annotator_kind") in annotators and (names is None or _name(row) in names):
                events += _annotated(row, threshold, found)
        except ROW_ERRORS as error:
            log.bad(line, str(error), type(error), source)
    return FeedbackLog(tuple(found.shown.values()), tuple(events), log.report())


def from_trulens(
    events: Records,
    records: Records = (),
    *,
    feedback: Collection[str] = (),
    threshold: float = 0.5,
    errors: Errors = "raise",
    encoding: str | None = None,
) -> FeedbackLog:
    """Read TruLens' retrieval spans, and columns of its records as feedback on whole answers.

    TruLens records texts without ids: resolve them with `TextResolver.resolve`.

    Args:
        events: rows of its event table (``record_attributes``, ``trace``), or spans.
        records: rows of ``get_records_and_feedback()``.
        feedback: names of the columns that users' feedback is in.
        threshold: scores above it are thumbs up, below it thumbs down.
        errors: ``"raise"`` at a bad row, or ``"skip"`` it.
        encoding: that of text files; without it, what their byte order mark says, else UTF-8.

    Raises:
        ValueError: a bad row, with file and line.
    """
    log = RowLog("TruLens", errors)
    rows = list(unwrapped_spans(numbered_records(events, log, "TruLens events", encoding), log))
    shown = _read_spans(iter(rows), log).shown
    spans_of = _spans_of_records(rows, shown)
    given: list[Feedback] = []
    for source, line, row in numbered_records(records, log, "TruLens records", encoding):
        try:
            meant = spans_of.get(checked_id(row.get("record_id"), "record_id"), [])
            votes = [vote(row.get(name), None, threshold) for name in feedback]
            given += [Feedback(span_id, None, action) for span_id in meant for action in votes if action is not None]
        except ROW_ERRORS as error:
            log.bad(line, str(error), type(error), source)
    return FeedbackLog(tuple(shown.values()), tuple(given), log.report())


@dataclass(frozen=True)
class _Spans:
    """Retrievals by span, all of them and the outermost ones as users saw them, and the spans that they are in."""

    retrievals: Mapping[str, Retrieval]
    shown: Mapping[str, Retrieval]
    outer_of: Mapping[str, str]
    tree: RunTree


def _read_spans(rows: Iterator[Numbered], log: RowLog) -> _Spans:
    retrievals: dict[str, Retrieval] = {}
    tree = RunTree()
    reranked: dict[str, tuple[ShownNode, ...]] = {}
    for source, line, row in rows:
        try:
            attributes = span_attributes(row)
            span_id, parent, trace = _ids(row)
            tree.add(span_id, parent, trace)
            kind = _kind(row, attributes)
            if kind == "RERANKER":
                reranked[trace] = span_documents(attributes, "reranker.output_documents")
            elif kind == "RETRIEVER":
                retrievals[span_id] = _retrieval(span_id, row, attributes)
        except ROW_ERRORS as error:
            log.bad(line, str(error), type(error), source)
    outer_of = tree.find_retrievals(retrievals.keys())
    kept = set(outer_of.values())
    shown = {
        key: _after_reranking(retrieval, reranked.get(tree.trace_of(key)))
        for key, retrieval in retrievals.items()
        if key in kept
    }
    return _Spans(retrievals, shown, outer_of, tree)


def _spans_of_records(rows: Iterable[Numbered], shown: Mapping[str, Retrieval]) -> dict[str, list[str]]:
    """Return the retrieval spans of each of TruLens' records; rows that are no spans were reported before."""
    spans_of: dict[str, list[str]] = {}
    for _, _, row in rows:
        with suppress(*ROW_ERRORS):
            span_id = _ids(row)[0]
            record = pick(span_attributes(row), f"{OBSERVED}record_id")
            if record is not None and span_id in shown:
                spans_of.setdefault(str(record), []).append(span_id)
    return spans_of


def span_attributes(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a span under their dotted names, however they are written."""
    flat: dict[str, Any] = {}
    for name in ("attributes", "record_attributes"):
        found = loaded(row.get(name))
        if isinstance(found, list):  # OTLP: [{"key": ..., "value": {"stringValue": ...}}]
            found = otlp_mapping(found)
        if isinstance(found, Mapping):
            _flatten("", found, flat)
    for name, value in row.items():
        if not name.startswith("attributes.") or is_missing(value):
            continue
        if isinstance(value, Mapping):
            _flatten(name.removeprefix("attributes.") + ".", value, flat)
        else:
            flat[name.removeprefix("attributes.")] = value
    return flat


def span_documents(attributes: Mapping[str, Any], prefix: str = "retrieval.documents") -> tuple[ShownNode, ...]:
    """Return the documents of a span, in order."""
    listed = next((loaded(attributes[name]) for name in (prefix, *DOCUMENTS) if name in attributes), None)
    if listed is not None and not isinstance(listed, str):
        return documents_shown([_undotted(document) for document in listed])
    by_number: dict[int, dict[str, Any]] = {}
    for name, value in attributes.items():
        match = NUMBERED.match(name)
        if match and match[1] == prefix:
            by_number.setdefault(int(match[2]), {})[match[3]] = value
    return documents_shown([by_number[number] for number in sorted(by_number)])


def _undotted(document: Any) -> Any:
    """{"document.id": ...} or {"document": {"id": ...}} as {"id": ...}."""
    if not isinstance(document, Mapping):
        return document
    inner = document.get("document")
    fields = inner if isinstance(inner, Mapping) else document
    return {str(name).removeprefix("document."): value for name, value in fields.items()}


def _flatten(prefix: str, value: Mapping[str, Any], flat: dict[str, Any]) -> None:
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            _flatten(f"{prefix}{name}.", inner, flat)
        else:
            flat[f"{prefix}{name}"] = inner


def _ids(row: Mapping[str, Any]) -> tuple[str, str | None, str]:
    """Ids of a span, of its parent (None at the root) and of its trace."""
    context = loaded(pick(row, "context", "trace"))
    context = context if isinstance(context, Mapping) else {}
    span_id = pick(row, "context.span_id", "span_id", "spanId") or pick(context, "span_id")
    parent = pick(row, "parent_id", "parentSpanId", "parent_span_id") or pick(context, "parent_id")
    trace = pick(row, "context.trace_id", "trace_id", "traceId") or pick(context, "trace_id")
    key = checked_id(span_id, "span_id")
    return key, optional_text(parent, "id of the parent"), optional_text(trace, "trace_id") or key


def _kind(row: Mapping[str, Any], attributes: Mapping[str, Any]) -> str:
    if attributes.get("gen_ai.operation.name") == "retrieval":
        return "RETRIEVER"
    if attributes.get(f"{OBSERVED}span_type") == "retrieval":
        return "RETRIEVER"
    return str(pick(attributes, "openinference.span.kind") or pick(row, "span_kind") or "").upper()


def _retrieval(span_id: str, row: Mapping[str, Any], attributes: Mapping[str, Any]) -> Retrieval:
    user, session = pick(attributes, "user.id"), pick(attributes, "session.id", "gen_ai.conversation.id")
    return Retrieval(
        span_id,
        query_text(pick(attributes, *QUERIES)),
        span_documents(attributes),
        parse_time(pick(row, "start_time", "startTimeUnixNano", "start_timestamp")),
        None,
        optional_text(user, "user.id"),
        optional_text(session, "session.id"),
    )


def _after_reranking(retrieval: Retrieval, kept: tuple[ShownNode, ...] | None) -> Retrieval:
    """What a reranker kept, if it reranked these documents."""
    if not kept:
        return retrieval
    found = {node.node_id or node.text for node in retrieval.shown}
    return replace(retrieval, shown=kept) if all((node.node_id or node.text) in found for node in kept) else retrieval


def _name(row: Mapping[str, Any]) -> Any:
    return pick(row, "name", "annotation_name")


def _annotated(row: Mapping[str, Any], threshold: float, spans: _Spans) -> list[Feedback]:
    """The vote on a document by its place in the span, or on the span; it is about the retrieval that users saw."""
    span_id = optional_text(pick(row, "span_id", "context.span_id"), "span_id")
    result = loaded(row.get("result"))
    result = result if isinstance(result, Mapping) else row
    meant = spans.tree.meant_by(span_id, None)
    if not meant:
        return []
    action = vote(pick(result, "score", "result.score"), pick(result, "label", "result.label"), threshold)
    if action is None:
        return []
    position, node_id = pick(row, "document_position"), None
    if position is not None:
        if (
            span_id is None or span_id not in spans.retrievals
        ):  # documents of another kind of span, such as those that were cited
            return []
        node_id = _node_at(position, span_id, spans)
        if node_id is None:
            return []
    user = pick(row, "user_id")
    time = parse_time(pick(row, "updated_at", "created_at"))
    return about(meant, node_id, action, time, optional_text(user, "user_id"))


def _node_at(position: Any, span_id: str, spans: _Spans) -> str | None:
    """The node at a place of a retrieval, or "#<rank>" if it has no id; None if it was not among the nodes shown."""
    documents = spans.retrievals[span_id].shown
    place = float(position)  # tables with gaps, and CSV files of them, hold 1.0
    if not (place.is_integer() and 0 <= place < len(documents)):
        raise ValueError(f"document_position {position} of a span with {len(documents)} documents")
    node = documents[int(place)]
    if node.node_id is not None:
        return node.node_id
    texts = [kept.text for kept in spans.shown[spans.outer_of[span_id]].shown]
    return f"#{texts.index(node.text) + 1}" if node.text in texts else None
