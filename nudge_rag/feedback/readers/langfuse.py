"""Langfuse's observations and scores, as its blob export (snake_case) and its API (camelCase) give them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from nudge_rag.feedback.log import Feedback, FeedbackLog, Retrieval
from nudge_rag.feedback.readers.common import (
    RunTree,
    about,
    documents_shown,
    optional_text,
    pick,
    query_text,
    vote,
)
from nudge_rag.feedback.readers.spans import span_attributes, span_documents
from nudge_rag.feedback.reading import ROW_ERRORS, Errors, RowLog, checked_id
from nudge_rag.feedback.records import Records, loaded, numbered_records
from nudge_rag.feedback.ubi import parse_time

__all__ = ["from_langfuse"]

USER_SOURCES = ("API", "ANNOTATION")


def from_langfuse(
    observations: Records,
    scores: Records = (),
    *,
    names: Collection[str],
    threshold: float = 0.5,
    sources: Collection[str] = USER_SOURCES,
    node_key: str | None = None,
    errors: Errors = "raise",
    encoding: str | None = None,
) -> FeedbackLog:
    """Read retriever observations and users' scores.

    A score on a retrieval is about that one, or the one that it is part of; a score on any other observation about the
    retrievals within it, or else within the nearest one around it; one on a trace about all of its retrievals. A
    score's metadata may name a ``node_id``.

    Args:
        observations: rows of ``observations_v2`` or of the API, or their file.
        scores: rows of scores, or their file.
        names: the names of the scores that users give; Langfuse prescribes none.
        threshold: values above it are thumbs up, below it thumbs down; categories count by their words.
        sources: of the scores; "EVAL" is a model's judgement.
        node_key: key of the documents' metadata that holds the node id, if ``id`` does not.
        errors: ``"raise"`` at a bad row, or ``"skip"`` it.
        encoding: that of text files; without it, what their byte order mark says, else UTF-8.

    Raises:
        ValueError: a bad row, with file and line.
    """
    log = RowLog("Langfuse", errors)
    retrievals: dict[str, Retrieval] = {}
    tree = RunTree()
    for source, line, row in numbered_records(observations, log, "Langfuse observations", encoding):
        try:
            key = checked_id(row.get("id"), "id of an observation")
            parent = pick(row, "parent_observation_id", "parentObservationId")
            trace = optional_text(pick(row, "trace_id", "traceId"), "trace_id")
            tree.add(key, optional_text(parent, "id of the parent"), trace)
            if str(row.get("type", "")).upper() == "RETRIEVER" and row.get("level") != "ERROR":
                retrievals[key] = _retrieval(key, row, node_key)
        except ROW_ERRORS as error:
            log.bad(line, str(error), type(error), source)
    kept = set(tree.find_retrievals(retrievals.keys()).values())
    retrievals = {key: retrieval for key, retrieval in retrievals.items() if key in kept}
    events: list[Feedback] = []
    for source, line, row in numbered_records(scores, log, "Langfuse scores", encoding):
        try:
            if row.get("name") in names and str(row.get("source", "API")).upper() in sources:
                events += _scored(row, threshold, tree)
        except ROW_ERRORS as error:
            log.bad(line, str(error), type(error), source)
    return FeedbackLog(tuple(retrievals.values()), tuple(events), log.report())


def _retrieval(key: str, row: Mapping[str, Any], node_key: str | None) -> Retrieval:
    metadata = loaded(row.get("metadata"))
    attributes = metadata.get("attributes") if isinstance(metadata, Mapping) else None
    shown = () if attributes is None else span_documents(span_attributes({"attributes": attributes}))
    user, session = pick(row, "user_id", "userId"), pick(row, "session_id", "sessionId")
    return Retrieval(
        key,
        query_text(row.get("input")),
        shown or documents_shown(row.get("output"), node_key),
        parse_time(pick(row, "start_time", "startTime")),
        optional_text(pick(row, "version"), "version"),
        optional_text(user, "user_id"),
        optional_text(session, "session_id"),
    )


def _scored(row: Mapping[str, Any], threshold: float, tree: RunTree) -> list[Feedback]:
    subject = loaded(row.get("subject"))
    subject = subject if isinstance(subject, Mapping) else {}
    kind = subject.get("kind")
    observation = subject.get("id") if kind == "observation" else pick(row, "observation_id", "observationId")
    trace = subject.get("id") if kind == "trace" else pick(row, "trace_id", "traceId") or subject.get("traceId")
    words = pick(row, "string_value", "stringValue")
    kind_of_value = str(pick(row, "data_type", "dataType")).upper()
    if kind_of_value == "CORRECTION":  # a better answer, in words
        return []
    if kind_of_value in ("CATEGORICAL", "TEXT"):
        # The number of a category is its place in a list, and of a text it is 0.
        action = vote(None, words if words is not None else row.get("value"), threshold)
    else:
        action = vote(row.get("value"), words, threshold)
    if action is None:
        return []
    meant = tree.meant_by(optional_text(observation, "observation_id"), optional_text(trace, "trace_id"))
    metadata = loaded(row.get("metadata"))
    node = metadata.get("node_id") if isinstance(metadata, Mapping) else None
    user = pick(row, "author_user_id", "authorUserId")
    return about(
        meant,
        None if node is None else checked_id(node, "node_id of a score"),
        action,
        parse_time(pick(row, "timestamp", "created_at", "createdAt")),
        optional_text(user, "author_user_id"),
    )
