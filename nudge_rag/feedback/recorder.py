"""A recorder of retrievals and feedback in one local SQLite file."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import uuid
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from pathlib import Path

from nudge_rag.feedback.database import EventDatabase
from nudge_rag.feedback.event_rows import (
    WRITE_EVENT,
    WRITE_QUERY,
    WRITE_SHOWN,
    delete_before,
    event_attributes,
    free_query_id,
    now,
    read_log,
    salted_hash,
)
from nudge_rag.feedback.interleaving import InterleavingResult, compare_teams
from nudge_rag.feedback.live_version import LiveVersion
from nudge_rag.feedback.log import FeedbackLog, ShownNode
from nudge_rag.feedback.reading import checked_grade, checked_id, checked_text
from nudge_rag.feedback.recorder_check import RecorderCheck, check_database
from nudge_rag.feedback.shown import Shown, shown_nodes

__all__ = ["Recorder", "RecorderCheck", "Redact"]

Redact = Callable[[str], str | None]

WRITES_BETWEEN_PURGES, ROWS_A_PURGE = 100, 500


class Recorder:
    """Writes each query with the nodes shown, and what users made of them, to a SQLite file with UBI's columns.

    What `record` or `feedback` returned for survives the death of the process (not a power failure). Threads, forks and
    processes of one host may share the file. Failures to write never raise: `lost` counts them, `check` shows them, and
    the first one warns.

    Args:
        path: the file; made readable by its owner alone.
        redact: replaces each text before it is written: ``"hash"`` by a salted hash (of user ids too), or a function
            that returns what to write instead, None for nothing.
        retention_days: rows older than this are deleted along the way; None keeps them.
        version: the nudge that is live, or a function that returns it (called every ten seconds at most).
        application: a name for the application, for UBI.
        timeout: seconds that a write waits for other processes before it is lost.

    Raises:
        ValueError: arguments that do not fit.
        OSError: the file cannot be made.
        sqlite3.Error: it is no database.

    Example:
        >>> import tempfile
        >>> recorder = Recorder(tempfile.mkdtemp() + "/feedback.sqlite3", version="3")
        >>> query_id = recorder.record("reset my password", [("doc-7", 0.81), ("doc-9", 0.62)], user_id="ann")
        >>> recorder.feedback(query_id, "doc-9", "thumbs_up")
        True
        >>> log = recorder.log()
        >>> [node.node_id for node in log.retrievals[0].shown], log.retrievals[0].version, log.feedback[0].action
        (['doc-7', 'doc-9'], '3', 'thumbs_up')
    """

    def __init__(
        self,
        path: str | Path,
        *,
        redact: Redact | str | None = None,
        retention_days: float | None = None,
        version: str | Callable[[], object] | None = None,
        application: str = "nudge-rag",
        timeout: float = 1.0,
    ) -> None:
        if not (redact is None or redact == "hash" or callable(redact)):
            raise ValueError(f'redact must be None, "hash" or a function of a text, got {redact!r}')
        if retention_days is not None and not retention_days > 0:
            raise ValueError(f"retention_days must be above 0, got {retention_days!r}")
        self.path = Path(path)
        self.application, self.retention_days = application, retention_days
        self.lost = 0
        self.last_error: str | None = None
        self._writes = 0
        self._live_version = LiveVersion(version)
        self._last: ContextVar[str | None] = ContextVar("nudge_query_id", default=None)
        self._database = EventDatabase(self.path, timeout)
        self._redact = salted_hash(self._database) if redact == "hash" else redact if callable(redact) else None
        self._hash_users = redact == "hash"
        if retention_days is not None:
            self.purge()

    @property
    def last_query_id(self) -> str | None:
        """Id of the last retrieval that was recorded in this thread or task, None before one."""
        return self._last.get()

    def record(
        self,
        query: str,
        shown: Iterable[Shown],
        *,
        query_id: str | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
        version: str | None = None,
    ) -> str | None:
        """Write a query and the nodes shown for it, best first.

        Args:
            query: its text.
            shown: `ShownNode` objects, (node id, score) or node ids.
            query_id: unique to this retrieval; one is made without it, and one that is taken, as by a chain that
                retrieves twice, becomes ``<query_id>#2``.
            user_id: who asked, better a pseudonym.
            session_id: the conversation.
            version: the ranker, instead of the recorder's ``version``.

        Returns:
            The query id, to which feedback refers; None if it could not be written (`lost` counts it).

        Raises:
            TypeError: arguments of the wrong type.
            ValueError: a blank query or id.
        """
        checked_text(query, "query")
        nodes = shown_nodes(shown)
        key = uuid.uuid4().hex if query_id is None else checked_id(query_id, "query_id")
        user = self._user(user_id)

        written: list[str] = []

        def write() -> None:
            ids, hits = self._hits(nodes)
            live = self._live_version.read(self.count_failure) if version is None else version
            text = self._redacted(query)

            def insert(connection: sqlite3.Connection) -> str:
                free = key if query_id is None else free_query_id(connection, key)
                row = (free, self.application, user, text, now(), free, ids, hits, live, user, session_id)
                connection.execute(WRITE_QUERY, row)
                return free

            written.append(self._database.run(insert))

        if not self._attempt(write):
            return None
        self._last.set(written[0])
        return written[0]

    def revise(self, query_id: str, shown: Iterable[Shown]) -> bool:
        """Replace the nodes shown for a recorded query by what a reranker or the response kept of them.

        Returns:
            Whether it was written.
        """
        nodes = shown_nodes(shown)
        return self._attempt(
            lambda: self._database.run(
                lambda connection: connection.execute(WRITE_SHOWN, (*self._hits(nodes), query_id))
            )
        )

    def feedback(
        self,
        query_id: str,
        node_id: str | int | None,
        action: str,
        *,
        user_id: str | None = None,
        value: float | None = None,
        message: str | None = None,
    ) -> bool:
        """Write what a user, or a model that cites, did with a node.

        Args:
            query_id: what `record` returned.
            node_id: the node; None if it is about the whole answer.
            action: "click", "cite", "thumbs_up", "thumbs_down", "copy" or another word.
            user_id: who did it, better a pseudonym.
            value: a finite number to keep with it.
            message: a comment; redacted as queries are.

        Returns:
            Whether it was written; `lost` counts what was not.

        Raises:
            TypeError: arguments of the wrong type.
            ValueError: a blank id or action; a value that is not finite.
        """
        key = checked_id(query_id, "query_id")
        node = None if node_id is None else checked_id(node_id, "node_id")
        checked_text(action, "action")
        number = None if value is None else checked_grade(float(value) if isinstance(value, bool) else value, "value")
        user = self._user(user_id)

        def write() -> None:
            text = None if message is None else self._redacted(message)

            def insert(connection: sqlite3.Connection) -> None:
                shown_by, attributes = event_attributes(connection, key, node)
                details = json.dumps(attributes, ensure_ascii=False)
                row = (self.application, action, shown_by, user, user, now(), text, details, node, number)
                connection.execute(WRITE_EVENT, row)

            self._database.run(insert)

        return self._attempt(write)

    def log(self, since: float | None = None) -> FeedbackLog:
        """Read what was recorded.

        Args:
            since: seconds since 1970; only later rows.

        Raises:
            sqlite3.Error: the file cannot be read.
        """
        after = -1 if since is None else int(since * 1e6)
        return self._database.read(lambda connection: read_log(connection, after))

    def compare(self, since: float | None = None) -> InterleavingResult:
        """Tell which of two interleaved rankings users prefer (`NudgeRetriever(..., interleave=nudge)` shows them).

        Args:
            since: seconds since 1970; only later retrievals.

        Raises:
            sqlite3.Error: the file cannot be read.
        """
        return compare_teams(self.log(since))

    def purge(self, older_than_days: float | None = None) -> int:
        """Delete old rows, and overwrite their content in the file.

        Args:
            older_than_days: ``retention_days`` without it.

        Returns:
            The number of rows deleted; 0 as well if the database refused (`lost` counts that).
        """
        days = self.retention_days if older_than_days is None else older_than_days
        if days is None:
            raise ValueError("pass older_than_days, or retention_days to the recorder")
        deleted = [0]

        def work() -> None:
            deleted[0] = self._database.run(lambda connection: delete_before(connection, days, None))
            self._database.checkpoint()

        self._attempt(work)
        return deleted[0]

    def check(self) -> RecorderCheck:
        """Count what is recorded and what was lost, and check the file.

        Raises:
            sqlite3.Error: the file cannot be read.
        """
        return check_database(self._database, self.lost, self.last_error)

    def close(self) -> None:
        """Close the file; a later call opens it again."""
        self._database.close()

    def count_failure(self, error: BaseException) -> None:
        """Count something that could not be recorded; the first one warns."""
        with self._database.counting:
            self.lost += 1
            self.last_error = f"{type(error).__name__}: {error}"
            first = self.lost == 1
        if first:
            message = f"{self.path}: could not record ({self.last_error}); recorder.lost counts such events"
            # Under -W error the warning itself would raise into the retrieval.
            with warnings.catch_warnings():
                warnings.simplefilter("always")
                warnings.warn(message, stacklevel=4)

    def _attempt(self, write: Callable[[], object]) -> bool:
        try:
            write()
        except Exception as error:  # whatever it is, the retrieval goes on
            self.count_failure(error)
            return False
        with self._database.counting:
            self._writes += 1
            due = self._writes % WRITES_BETWEEN_PURGES == 0
        if due and self.retention_days is not None:
            days = self.retention_days
            with contextlib.suppress(Exception):  # it is tried again later
                self._database.run(lambda connection: delete_before(connection, days, ROWS_A_PURGE))
        return True

    def _redacted(self, text: str) -> str | None:
        return text if self._redact is None else self._redact(text)

    def _user(self, user_id: str | None) -> str | None:
        if user_id is None:
            return None
        user = checked_id(user_id, "user_id")
        return self._redacted(user) if self._hash_users else user

    def _hits(self, nodes: Sequence[ShownNode]) -> tuple[str, str]:
        """The ids shown, and all that is known of them; texts only of nodes without an id."""
        hits = [
            [node.node_id, node.score, node.team, self._redacted(node.text or "") if node.node_id is None else None]
            for node in nodes
        ]
        return json.dumps([hit[0] for hit in hits], ensure_ascii=False), json.dumps(hits, ensure_ascii=False)
