"""LangSmith's runs, feedback and examples, as `list_runs`, `query_v2`, `list_feedback` and bulk exports give them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from nudge_rag.feedback.log import Feedback, FeedbackLog, Retrieval
from nudge_rag.feedback.pairs import LabeledPairs
from nudge_rag.feedback.readers.common import (
    RunTree,
    about,
    documents_shown,
    optional_text,
    pick,
    query_text,
    vote,
)
from nudge_rag.feedback.reading import ROW_ERRORS, Errors, RowLog, checked_id
from nudge_rag.feedback.records import Records, loaded, numbered_records
from nudge_rag.feedback.rows import gather_rows
from nudge_rag.feedback.ubi import parse_time

__all__ = ["from_examples", "from_langsmith"]

USER_KEYS = ("user_score", "user_feedback", "thumbs", "nudge_node")
# Of one run; more are no votes of users.
MOST_VOTES = 100_000
UUID_LENGTH = 36


def from_langsmith(
    runs: Records,
    feedback: Records = (),
    *,
    keys: Collection[str] = USER_KEYS,
    threshold: float = 0.5,
    node_key: str | None = None,
    errors: Errors = "raise",
    encoding: str | None = None,
) -> FeedbackLog:
    """Read retriever runs and what users said of them.

    A run within another retriever's run is part of that one. Feedback on any other run, such as a chain's or a model's,
    is about the retrievals within it, or else within the nearest run around it, as a whole (`FeedbackLog.to_pairs`
    says what that labels). Feedback on a node has
    ``extra={"node_id": ...}``; ``correction={"node_ids": [...]}`` names the right ones. Without feedback rows the
    runs' ``feedback_stats`` count. Export all runs: the SDK's ``query`` returns those of the last day without
    ``min_start_time``.

    Args:
        runs: rows of either SDK shape or of a bulk export, or their file.
        feedback: rows of feedback, or their file.
        keys: names of the feedback that users give; scores of a model (source "model") never count.
        threshold: scores above it are thumbs up, below it thumbs down.
        node_key: key of the documents' metadata that holds the node id, if ``id`` does not.
        errors: ``"raise"`` at a bad row, or ``"skip"`` it.
        encoding: that of text files; without it, what their byte order mark says, else UTF-8.

    Raises:
        ValueError: a bad row, with file and line.
    """
    log = RowLog("LangSmith", errors)
    retrievals: dict[str, Retrieval] = {}
    tree = RunTree()
    stats: list[tuple[str, int, str, Any]] = []
    for source, line, row in numbered_records(runs, log, "LangSmith runs", encoding):
        try:
            run_id = checked_id(optional_text(row.get("id"), "id of a run"), "id of a run")
            parent, trace = (optional_text(row.get(name), name) for name in ("parent_run_id", "trace_id"))
            tree.add(run_id, parent, trace, _above(row))
            stats.append((source, line, run_id, loaded(pick(row, "feedback_stats"))))
            if str(row.get("run_type", "")).lower() == "retriever" and not pick(row, "error"):
                retrievals[run_id] = _retrieval(run_id, row, node_key)
        except ROW_ERRORS as error:
            log.bad(line, str(error), type(error), source)
    kept = set(tree.find_retrievals(retrievals.keys()).values())
    retrievals = {run_id: retrieval for run_id, retrieval in retrievals.items() if run_id in kept}
    events: list[Feedback] = []
    n_runs = log.n_rows
    for source, line, row in numbered_records(feedback, log, "LangSmith feedback", encoding):
        try:
            events += _feedback(row, keys, threshold, tree)
        except ROW_ERRORS as error:
            log.bad(line, str(error), type(error), source)
    if log.n_rows == n_runs:
        for source, line, run_id, counts in stats:
            try:
                events += _counted(counts, keys, tree.meant_by(run_id, None))
            except ROW_ERRORS as error:
                log.bad(line, f"feedback_stats: {error}", type(error), source)
    return FeedbackLog(tuple(retrievals.values()), tuple(events), log.report())


def from_examples(
    examples: Records,
    *,
    query: str = "inputs.question",
    nodes: str = "outputs.node_ids",
    errors: Errors = "raise",
    encoding: str | None = None,
) -> LabeledPairs:
    """Read the examples of a LangSmith or Langfuse data set, whose keys are the user's own.

    Args:
        examples: rows, or their file.
        query: path of the question in a row, such as "inputs.question" or "input.question".
        nodes: path of a node id, several, or a mapping of them to grades; "expectedOutput.node_ids" in Langfuse.
        errors: ``"raise"`` at a bad row, or ``"skip"`` it.
        encoding: that of text files; without it, what their byte order mark says, else UTF-8.

    Raises:
        ValueError: a bad row, with file and line.

    Example:
        >>> rows = [{"inputs": {"question": "reset my password"}, "outputs": {"node_ids": ["doc-7", "doc-9"]}}]
        >>> dict(from_examples(rows).qrels["q0"])
        {'doc-7': 1.0, 'doc-9': 1.0}
    """
    log = RowLog("examples", errors)
    rows = []
    for source, line, row in numbered_records(examples, log, "examples", encoding):
        try:
            text, found = query_text(_at(row, query)), loaded(_at(row, nodes))
            if not isinstance(found, Mapping):
                listed = [found] if isinstance(found, str | int) else found
                if not isinstance(listed, Iterable):
                    raise ValueError(f"no node ids at {nodes!r}")
                found = dict.fromkeys(listed, 1.0)
            rows += [(line, {"query": text, "node_id": node, "grade": grade}) for node, grade in found.items()]
        except ROW_ERRORS as error:
            log.bad(line, str(error), type(error), source)
    n_rows = log.n_rows
    labels = gather_rows(rows, log)
    log.n_rows = n_rows
    return LabeledPairs(labels.queries, labels.qrels, report=log.report())


def _retrieval(run_id: str, row: Mapping[str, Any], node_key: str | None) -> Retrieval:
    extra = loaded(row.get("extra"))
    metadata = extra.get("metadata") if isinstance(extra, Mapping) else None
    metadata = metadata if isinstance(metadata, Mapping) else {}
    user = pick(metadata, "user_id", "nudge_user_id")
    session = pick(metadata, "thread_id", "session_id", "conversation_id")
    return Retrieval(
        run_id,
        query_text(row.get("inputs")),
        documents_shown(row.get("outputs"), node_key),
        parse_time(row.get("start_time")),
        optional_text(pick(metadata, "nudge_version"), "nudge_version"),
        optional_text(user, "user_id"),
        optional_text(session, "session_id"),
    )


def _above(row: Mapping[str, Any]) -> list[str]:
    """The runs that a run is part of, the outermost first: ``{start}Z{id}.{start}Z{id}``, the last one its own."""
    order = row.get("dotted_order")
    return [part[-UUID_LENGTH:] for part in order.split(".")[:-1] if "Z" in part] if isinstance(order, str) else []


def _feedback(row: Mapping[str, Any], keys: Collection[str], threshold: float, tree: RunTree) -> list[Feedback]:
    origin = loaded(row.get("feedback_source"))
    origin = origin if isinstance(origin, Mapping) else {}
    if row.get("key") not in keys or origin.get("type") == "model":
        return []
    run_id, trace_id = (optional_text(row.get(name), name) for name in ("run_id", "trace_id"))
    meant = tree.meant_by(run_id, trace_id)
    time, user = parse_time(row.get("created_at")), optional_text(pick(origin, "user_id"), "user_id")
    correction, extra = loaded(row.get("correction")), loaded(row.get("extra"))
    events: list[Feedback] = []
    if isinstance(correction, Mapping) and isinstance(correction.get("node_ids"), list):
        for node in correction["node_ids"]:
            events += about(meant, checked_id(node, "a node of correction"), "thumbs_up", time, user)
    node = extra.get("node_id") if isinstance(extra, Mapping) else None
    value = row.get("value")
    label = value if isinstance(value, str) else None
    action = vote(row.get("score") if row.get("score") is not None else value, label, threshold)
    if action is not None:
        events += about(meant, None if node is None else checked_id(node, "node_id"), action, time, user)
    return events


def _counted(counts: Any, keys: Collection[str], meant: Sequence[str]) -> list[Feedback]:
    """Feedback of a run of which only number and mean are known: of scores 0 and 1 that is all."""
    if counts is None:
        return []
    if not isinstance(counts, Mapping):
        raise TypeError(f"expected an object, got {counts!r:.100}")
    events: list[Feedback] = []
    for key in keys:
        stat = counts.get(key)
        if not isinstance(stat, Mapping) or pick(stat, "n") is None or pick(stat, "avg") is None:
            continue
        number, mean = float(stat["n"]), float(stat["avg"])
        if not (number.is_integer() and 0 <= number <= MOST_VOTES) or math.isnan(mean):
            raise ValueError(
                f"{key} must have a number of votes up to {MOST_VOTES:,} and their mean, got {stat!r:.100}"
            )
        up = round(min(max(mean, 0.0), 1.0) * number)
        events += about(meant, None, "thumbs_up", None, None) * up
        events += about(meant, None, "thumbs_down", None, None) * (int(number) - up)
    return events


def _at(row: Any, path: str) -> Any:
    for name in path.split("."):
        row = loaded(row)
        if not isinstance(row, Mapping) or name not in row:
            raise ValueError(f"nothing at {path!r}")
        row = row[name]
    return row
