"""Retrieval spans: Phoenix and OpenInference, OpenTelemetry's GenAI conventions, and TruLens."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from nudge_rag.feedback.log import Feedback, FeedbackLog, Retrieval, ShownNode
from nudge_rag.feedback.readers.common import documents_shown, outermost, pick, query_text, vote
from nudge_rag.feedback.reading import Errors, RowLog, checked_id
from nudge_rag.feedback.records import Records, loaded, numbered_records
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
) -> FeedbackLog:
    """Read retrieval spans of OpenInference, of OpenTelemetry's GenAI conventions or of TruLens, and annotations.

    Attributes may be flat or nested, a list of OTLP keys and values, or columns of Phoenix's data frame. A span within
    another retrieval's is part of it; what a reranker span of the same trace kept is what was shown. Spans of LangChain
    hold no ids: resolve their texts with `TextResolver.resolve`.

    Args:
        spans: rows, or their file.
        annotations: Phoenix's document annotations (``document_position`` counts from 0) and span annotations.
        annotators: kinds that count; "LLM" and "CODE" are no users.
        names: of the annotations that count; all without it.
        threshold: scores above it are thumbs up, below it thumbs down; without a score labels count by their words.
        errors: ``"raise"`` at a bad row, or ``"skip"`` it.

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
    retrievals: dict[str, Retrieval] = {}
    parent_of: dict[str, str | None] = {}
    trace_of: dict[str, str] = {}
    reranked: dict[str, tuple[ShownNode, ...]] = {}
    for source, line, row in numbered_records(spans, log, "spans"):
        try:
            attributes = span_attributes(row)
            span_id, parent_of_span, trace_id = _ids(row)
            parent_of[span_id] = parent_of_span
            trace_of[span_id] = trace_id
            kind = _kind(row, attributes)
            if kind == "RERANKER":
                reranked[trace_id] = span_documents(attributes, "reranker.output_documents")
            elif kind == "RETRIEVER":
                retrievals[span_id] = _retrieval(span_id, row, attributes)
        except (TypeError, ValueError) as error:
            log.bad(line, str(error), type(error), source)
    kept = outermost(retrievals.keys(), parent_of)
    shown = {key: _after_reranking(found, reranked.get(trace_of[key])) for key, found in retrievals.items()}
    events: list[Feedback] = []
    for source, line, row in numbered_records(annotations, log, "annotations"):
        try:
            if row.get("annotator_kind") in annotators and (names is None or _name(row) in names):
                events += _annotated(row, threshold, retrievals, shown)
        except (TypeError, ValueError) as error:
            log.bad(line, str(error), type(error), source)
    return FeedbackLog(tuple(found for key, found in shown.items() if key in kept), tuple(events), log.report())


def from_trulens(
    events: Records,
    records: Records = (),
    *,
    feedback: Collection[str] = (),
    threshold: float = 0.5,
    errors: Errors = "raise",
) -> FeedbackLog:
    """Read TruLens' retrieval spans, and columns of its records as feedback on whole answers.

    TruLens records texts without ids: resolve them with `TextResolver.resolve`.

    Args:
        events: rows of its event table (``record_attributes``, ``trace``), or spans.
        records: rows of ``get_records_and_feedback()``.
        feedback: names of the columns that users' feedback is in.
        threshold: scores above it are thumbs up, below it thumbs down.
        errors: ``"raise"`` at a bad row, or ``"skip"`` it.

    Raises:
        ValueError: a bad row, with file and line.
    """
    log = RowLog("TruLens", errors)
    spans, record_of = [], {}
    for source, line, row in numbered_records(events, log, "TruLens events"):
        try:
            attributes = span_attributes(row)
            span_id, _, _ = _ids(row)
            record_of[span_id] = pick(attributes, f"{OBSERVED}record_id")
            spans.append(row)
        except (TypeError, ValueError) as error:
            log.bad(line, str(error), type(error), source)
    found = from_spans(spans, errors=errors)
    given: list[Feedback] = []
    for source, line, row in numbered_records(records, log, "TruLens records"):
        try:
            votes = [vote(row.get(name), None, threshold) for name in feedback]
            meant = [r for r in found.retrievals if record_of.get(r.query_id) == row.get("record_id")]
            given += [Feedback(r.query_id, None, action) for r in meant for action in votes if action is not None]
        except (TypeError, ValueError) as error:
            log.bad(line, str(error), type(error), source)
    return FeedbackLog(found.retrievals, tuple(given), log.report())


def span_attributes(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a span under their dotted names, however they are written."""
    flat: dict[str, Any] = {}
    for name in ("attributes", "record_attributes"):
        found = loaded(row.get(name))
        if isinstance(found, list):  # OTLP: [{"key": ..., "value": {"stringValue": ...}}]
            found = {entry["key"]: _otlp_value(entry.get("value")) for entry in found if isinstance(entry, Mapping)}
        if isinstance(found, Mapping):
            _flatten("", found, flat)
    for name, value in row.items():
        if not name.startswith("attributes.") or value is None or value != value:
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


def _otlp_value(value: Any) -> Any:
    if not isinstance(value, Mapping) or len(value) != 1:
        return value
    kind, content = next(iter(value.items()))
    if kind == "arrayValue":
        return [_otlp_value(entry) for entry in content.get("values", [])]
    if kind == "kvlistValue":
        return {entry["key"]: _otlp_value(entry.get("value")) for entry in content.get("values", [])}
    return int(content) if kind == "intValue" else content


def _ids(row: Mapping[str, Any]) -> tuple[str, str | None, str]:
    """Ids of a span, of its parent (None at the root) and of its trace."""
    context = loaded(pick(row, "context", "trace"))
    context = context if isinstance(context, Mapping) else {}
    span_id = pick(row, "context.span_id", "span_id", "spanId") or pick(context, "span_id")
    parent = pick(row, "parent_id", "parentSpanId", "parent_span_id") or pick(context, "parent_id")
    trace = pick(row, "context.trace_id", "trace_id", "traceId") or pick(context, "trace_id")
    key = checked_id(span_id, "span_id")
    return key, None if parent is None else str(parent), key if trace is None else str(trace)


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
        None if user is None else str(user),
        None if session is None else str(session),
    )


def _after_reranking(retrieval: Retrieval, kept: tuple[ShownNode, ...] | None) -> Retrieval:
    """What a reranker kept, if it reranked these documents."""
    if not kept:
        return retrieval
    found = {node.node_id or node.text for node in retrieval.shown}
    return replace(retrieval, shown=kept) if all((node.node_id or node.text) in found for node in kept) else retrieval


def _name(row: Mapping[str, Any]) -> Any:
    return pick(row, "name", "annotation_name")


def _annotated(
    row: Mapping[str, Any], threshold: float, found: Mapping[str, Retrieval], shown: Mapping[str, Retrieval]
) -> list[Feedback]:
    """The vote on a document by its place in the span, or on the span."""
    span_id = str(pick(row, "span_id", "context.span_id"))
    if span_id not in found:
        return []
    result = loaded(row.get("result"))
    result = result if isinstance(result, Mapping) else row
    action = vote(pick(result, "score", "result.score"), pick(result, "label", "result.label"), threshold)
    if action is None:
        return []
    position, documents = pick(row, "document_position"), found[span_id].shown
    node_id: str | None = None
    if position is not None:
        if not 0 <= int(position) < len(documents):
            raise ValueError(f"document_position {position} of a span with {len(documents)} documents")
        node = documents[int(position)]
        node_id = node.node_id
        if node_id is None:  # known by its place among the nodes shown, until its text is resolved
            texts = [kept.text for kept in shown[span_id].shown]
            if node.text not in texts:
                return []
            node_id = f"#{texts.index(node.text) + 1}"
    user = pick(row, "user_id")
    time = parse_time(pick(row, "updated_at", "created_at"))
    return [Feedback(span_id, node_id, action, None, time, None if user is None else str(user))]
