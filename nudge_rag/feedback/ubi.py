"""User Behavior Insights (UBI 1.3.0, https://github.com/o19s/ubi): logs of queries and events, there and back."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nudge_rag.feedback.files import put_text
from nudge_rag.feedback.log import Feedback, FeedbackLog, Retrieval, ShownNode
from nudge_rag.feedback.reading import ROW_ERRORS, Errors, RowLog, checked_grade, checked_id, checked_text
from nudge_rag.feedback.records import Records, loaded, numbered_records

__all__ = ["from_ubi", "to_ubi"]

QUERIES, EVENTS = "ubi_queries.jsonl", "ubi_events.jsonl"
HIT_IDS = ("query_response_hit_ids", "query_response_object_ids")
IMPRESSION = "impression"
# Times of before the year 5138 in seconds are smaller than any of after 1973 in milliseconds.
LARGEST_SECONDS = 1e11
# The year 1, before which calendars of computers do not reach.
FIRST_SECOND = -62_135_596_800


def to_ubi(log: FeedbackLog, folder: str | Path, *, application: str = "nudge-rag") -> None:
    """Write ``ubi_queries.jsonl`` and ``ubi_events.jsonl``, valid by UBI 1.3.0.

    Versions, scores and teams, which UBI has no place for, are in ``query_attributes`` under ``nudge``. Retrievals
    without a text (redacted ones) and without a time have an empty text and the time 0.

    Args:
        log: what was recorded.
        folder: made if it is not there.
        application: the name that every record carries.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    rank_of = {
        (retrieval.query_id, node.node_id): rank
        for retrieval in log.retrievals
        for rank, node in reversed(list(enumerate(retrieval.shown, start=1)))
    }
    text_of = {retrieval.query_id: retrieval.query or "" for retrieval in log.retrievals}
    queries = (_query_record(retrieval, application) for retrieval in log.retrievals)
    events = (_event_record(event, rank_of, text_of, application) for event in log.feedback)
    for name, records in ((QUERIES, queries), (EVENTS, events)):
        put_text(target / name, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def from_ubi(
    queries: Records, events: Records = (), *, errors: Errors = "raise", encoding: str | None = None
) -> FeedbackLog:
    """Read UBI queries and events, of this library or of OpenSearch.

    Ordinals may begin at 0 or at 1, times may be ISO 8601 or milliseconds, ``position`` may be empty. Queries without
    the ids of their hits are filled from events of the action ``impression``, in the order of their ordinals.

    Args:
        queries: a JSONL or Parquet file, a folder that `to_ubi` wrote (it holds the events too), or rows.
        events: a file or rows.
        errors: ``"raise"`` at a bad row, or ``"skip"`` it.
        encoding: that of text files; without it, what their byte order mark says, else UTF-8.

    Returns:
        The log; impressions are in its retrievals, every other event is feedback.

    Raises:
        ValueError: a bad row, with file and line.
    """
    if isinstance(queries, str | Path) and Path(queries).is_dir():
        queries, events = Path(queries) / QUERIES, Path(queries) / EVENTS
    log = RowLog("UBI", errors)
    retrievals: dict[str, Retrieval] = {}
    for source, line, row in numbered_records(queries, log, "UBI queries", encoding):
        try:
            retrieval = _retrieval(_source(row))
            known = retrievals.setdefault(retrieval.query_id, retrieval)
            if known.query != retrieval.query:
                raise ValueError(
                    f"query_id {retrieval.query_id!r} has two texts; the first one counts if errors are skipped"
                )
            retrievals[retrieval.query_id] = retrieval
        except ROW_ERRORS as error:
            log.bad(line, str(error), type(error), source)
    feedback: list[Feedback] = []
    impressions: dict[str, list[tuple[float, str]]] = {}
    for source, line, row in numbered_records(events, log, "UBI events", encoding):
        try:
            row = _source(row)
            event = _feedback(row)
            if event.query_id not in retrievals and row.get("user_query"):
                query = checked_text(row["user_query"], "user_query")
                retrievals[event.query_id] = Retrieval(event.query_id, query, time=event.time)
            if event.action != IMPRESSION:
                feedback.append(event)
            elif event.node_id is not None:
                impressions.setdefault(event.query_id, []).append((_ordinal(row), event.node_id))
        except ROW_ERRORS as error:
            log.bad(line, str(error), type(error), source)
    filled = tuple(_with_hits(retrieval, impressions) for retrieval in retrievals.values())
    return FeedbackLog(filled, tuple(feedback), log.report())


def parse_time(value: object) -> float | None:
    """Return seconds since 1970 of an ISO 8601 text or of a number of seconds, milli-, micro- or nanoseconds.

    Raises:
        ValueError: it is neither.

    Example:
        >>> parse_time("1970-01-01T00:01:00Z"), parse_time(1_700_000_000_000), parse_time(None)
        (60.0, 1700000000.0, None)
    """
    if value is None or value == "":
        return None
    if isinstance(value, datetime):
        return (value if value.tzinfo is not None else value.replace(tzinfo=UTC)).timestamp()
    try:
        number = float(value)  # type: ignore[arg-type]  # whatever cannot be one raises
    except (TypeError, ValueError, OverflowError):
        pass
    else:
        while LARGEST_SECONDS <= number < math.inf:
            number /= 1000
        if not FIRST_SECOND <= number < math.inf:
            raise ValueError(f"time must be a number of seconds of a calendar's year, got {value!r:.100}")
        return number
    try:
        moment = datetime.fromisoformat(str(value).strip())
    except ValueError:
        raise ValueError(f"time must be ISO 8601 or a number, got {value!r:.100}") from None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def _query_record(retrieval: Retrieval, application: str) -> dict[str, Any]:
    shown = [node for node in retrieval.shown if node.node_id is not None]
    ours = {
        "version": retrieval.version,
        "session_id": retrieval.session,
        "scores": [node.score for node in shown] if any(node.score is not None for node in shown) else None,
        "teams": [node.team for node in shown] if any(node.team for node in shown) else None,
    }
    record = {
        "application": application,
        "query_id": retrieval.query_id,
        "client_id": retrieval.user,
        "user_query": retrieval.query or "",
        "timestamp": _iso(retrieval.time),
        "query_response_id": retrieval.query_id,
        "query_response_hit_ids": [node.node_id for node in shown],
        "query_attributes": {"nudge": {name: value for name, value in ours.items() if value is not None}},
    }
    return {name: value for name, value in record.items() if value is not None}


def _event_record(
    event: Feedback, rank_of: Mapping[tuple[str, str | None], int], text_of: Mapping[str, str], application: str
) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    if event.node_id is not None:
        attributes["object"] = {"object_id": event.node_id}
        rank = rank_of.get((event.query_id, event.node_id))
        if rank is not None:
            attributes["position"] = {"ordinal": rank}
    if event.value is not None:
        attributes["value"] = event.value
    # The schema requires a position of every event_attributes, so an event without one has none.
    shown: dict[str, Any] = {}
    if "position" in attributes:
        shown["event_attributes"] = attributes
    elif attributes:
        shown["message"] = json.dumps(attributes, ensure_ascii=False)
    record = {
        "application": application,
        "action_name": event.action,
        "query_id": event.query_id,
        "client_id": event.user,
        "user_id": event.user,
        "user_query": text_of.get(event.query_id) or None,
        "timestamp": _iso(event.time),
        **shown,
    }
    return {name: value for name, value in record.items() if value is not None}


def _source(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The document of a search hit, as OpenSearch and its dumps wrap it."""
    inner = loaded(row.get("_source"))
    return inner if isinstance(inner, Mapping) else row


def _retrieval(row: Mapping[str, Any]) -> Retrieval:
    query_id = checked_id(row.get("query_id"), "query_id")
    text = row.get("user_query", row.get("query"))
    ids = loaded(next((row[name] for name in HIT_IDS if row.get(name) is not None), ()))
    if isinstance(ids, str) or not isinstance(ids, Iterable):
        raise TypeError(f"query_response_hit_ids must be a list, got {ids!r:.100}")
    nodes = [checked_id(node, "a hit id") for node in ids]
    attributes = loaded(row.get("query_attributes"))
    ours = attributes.get("nudge") if isinstance(attributes, Mapping) else None
    ours = ours if isinstance(ours, Mapping) else {}
    scores, teams = (_one_a_node(ours.get(name), len(nodes)) for name in ("scores", "teams"))
    shown = tuple(
        ShownNode(
            node,
            None if score is None else checked_grade(score, "a score"),
            team=None if team is None else checked_text(team, "a team"),
        )
        for node, score, team in zip(nodes, scores, teams, strict=True)
    )
    user = row.get("user_id") or row.get("client_id")
    query = None if text is None or not str(text).strip() else checked_text(text, "user_query")
    return Retrieval(
        query_id,
        query,
        shown,
        parse_time(row.get("timestamp")),
        _name(ours.get("version"), "version"),
        _name(user, "client_id"),
        _name(row.get("session_id") or ours.get("session_id"), "session_id"),
    )


def _one_a_node(values: Any, n_nodes: int) -> list[Any]:
    """What is known of each node shown; nothing if it is not one value a node."""
    return values if isinstance(values, list) and len(values) == n_nodes else [None] * n_nodes


def _feedback(row: Mapping[str, Any]) -> Feedback:
    action = checked_text(row.get("action_name"), "action_name")
    query_id = checked_id(row.get("query_id"), "query_id")
    attributes = loaded(row.get("event_attributes"))
    if not isinstance(attributes, Mapping):
        attributes = _attributes_in_message(row.get("message"))
    thing = attributes.get("object")
    node = thing.get("object_id", thing.get("internal_id")) if isinstance(thing, Mapping) else row.get("object_id")
    user = row.get("user_id") or row.get("client_id")
    value = attributes.get("value", row.get("value"))
    return Feedback(
        query_id,
        None if node is None or node == "" else checked_id(node, "object_id"),
        action.strip(),
        float(value) if isinstance(value, int | float) else None,
        parse_time(row.get("timestamp")),
        _name(user, "user_id"),
    )


def _name(value: object, what: str) -> str | None:
    return None if value is None or value == "" else checked_id(value, what)


def _attributes_in_message(message: object) -> Mapping[str, Any]:
    if isinstance(message, str) and message.startswith("{"):
        try:
            found = json.loads(message)
        except ValueError:
            return {}
        if isinstance(found, Mapping):
            return found
    return {}


def _ordinal(row: Mapping[str, Any]) -> float:
    attributes = loaded(row.get("event_attributes"))
    position = attributes.get("position") if isinstance(attributes, Mapping) else None
    ordinal = position.get("ordinal") if isinstance(position, Mapping) else None
    return float(ordinal) if isinstance(ordinal, int | float) else float("inf")


def _with_hits(retrieval: Retrieval, impressions: Mapping[str, list[tuple[float, str]]]) -> Retrieval:
    if retrieval.shown or retrieval.query_id not in impressions:
        return retrieval
    ordered = sorted(impressions[retrieval.query_id], key=lambda impression: impression[0])
    nodes = tuple(ShownNode(node) for node in dict.fromkeys(node for _, node in ordered))
    return Retrieval(
        retrieval.query_id,
        retrieval.query,
        nodes,
        retrieval.time,
        retrieval.version,
        retrieval.user,
        retrieval.session,
    )


def _iso(time: float | None) -> str:
    return datetime.fromtimestamp(time or 0.0, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
