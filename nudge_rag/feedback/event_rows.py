"""Rows of the recorder's tables."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
import uuid
from collections.abc import Callable
from typing import Any

from nudge_rag.feedback.database import EventDatabase
from nudge_rag.feedback.log import Feedback, FeedbackLog, Retrieval, ShownNode

__all__ = [
    "WRITE_EVENT",
    "WRITE_QUERY",
    "WRITE_SHOWN",
    "delete_before",
    "event_attributes",
    "free_query_id",
    "now",
    "read_log",
    "salted_hash",
]

SECONDS_A_DAY = 86_400
# Retrievals of one chain that are numbered, and looked through for the node that feedback is about.
MOST_OF_ONE_ID = 9
WRITE_QUERY = (
    "INSERT INTO ubi_queries (query_id, application, client_id, user_query, query_attributes, timestamp, "
    "query_response_id, query_response_hit_ids, hits, version, user_id, session_id) VALUES (?,?,?,?,'{}',?,?,?,?,?,?,?)"
)
WRITE_SHOWN = "UPDATE ubi_queries SET query_response_hit_ids = ?, hits = ? WHERE query_id = ?"
WRITE_EVENT = (
    "INSERT INTO ubi_events (application, action_name, query_id, client_id, user_id, timestamp, message, "
    "event_attributes, object_id, value) VALUES (?,?,?,?,?,?,?,?,?,?)"
)


def free_query_id(connection: sqlite3.Connection, wanted: str) -> str:
    """Return the id; ``<id>#2`` and so on if it is taken, as when one chain retrieves twice under one id."""
    for query_id in (wanted, *(f"{wanted}#{number}" for number in range(2, MOST_OF_ONE_ID + 1))):
        if not connection.execute("SELECT 1 FROM ubi_queries WHERE query_id = ?", (query_id,)).fetchone():
            return query_id
    # An application that gives every retrieval the same id must not make each slower than the one before.
    return f"{wanted}#{uuid.uuid4().hex}"


def event_attributes(connection: sqlite3.Connection, query_id: str, node_id: str | None) -> tuple[str, dict[str, Any]]:
    """Return the id of the retrieval that showed the node, and UBI's event_attributes: the node, and its place."""
    if node_id is None:
        return query_id, {}
    attributes: dict[str, Any] = {"object": {"object_id": node_id}}
    # "$" is the mark after "#": these are the retrievals of `free_query_id`, found by the index.
    rows = connection.execute(
        "SELECT query_id, query_response_hit_ids FROM ubi_queries WHERE query_id = ?1 "
        "UNION ALL SELECT query_id, query_response_hit_ids FROM ubi_queries "
        "WHERE query_id > ?1 || '#' AND query_id < ?1 || '$' LIMIT ?2",
        (query_id, MOST_OF_ONE_ID),
    )
    for retrieval, hits in rows:
        shown = json.loads(hits)
        if node_id in shown:
            return retrieval, {**attributes, "position": {"ordinal": shown.index(node_id) + 1}}
    return query_id, attributes


def read_log(connection: sqlite3.Connection, after: int) -> FeedbackLog:
    """Read all rows later than ``after``, in microseconds since 1970."""
    retrievals = [
        Retrieval(key, query, tuple(ShownNode(h[0], h[1], h[3], h[2]) for h in json.loads(hits)), time / 1e6, *who)
        for key, query, hits, time, *who in connection.execute(
            "SELECT query_id, user_query, hits, timestamp, version, user_id, session_id FROM ubi_queries "
            "WHERE timestamp > ? ORDER BY timestamp, rowid",
            (after,),
        )
    ]
    feedback = [
        Feedback(query_id, node_id, action, value, time / 1e6, user)
        for query_id, node_id, action, value, time, user in connection.execute(
            "SELECT query_id, object_id, action_name, value, timestamp, user_id FROM ubi_events "
            "WHERE timestamp > ? ORDER BY timestamp, id",
            (after,),
        )
    ]
    return FeedbackLog(tuple(retrievals), tuple(feedback))


def delete_before(connection: sqlite3.Connection, days: float, at_most: int | None) -> int:
    """Delete at most so many rows of each table that are older; return how many that were."""
    before = now() - int(days * SECONDS_A_DAY * 1e6)
    deleted = 0
    for table in ("ubi_queries", "ubi_events"):
        deleted += connection.execute(
            f"DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} WHERE timestamp < ? LIMIT ?)",
            (before, -1 if at_most is None else at_most),
        ).rowcount
    return deleted


def salted_hash(database: EventDatabase) -> Callable[[str], str]:
    """Return a function that hashes texts with the salt of the file."""
    salt = database.read(
        lambda connection: connection.execute("SELECT value FROM nudge_meta WHERE name = 'salt'").fetchone()[0]
    )
    return lambda text: hashlib.sha256(f"{salt}{text}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


def now() -> int:
    """Return microseconds since 1970."""
    return time.time_ns() // 1000
