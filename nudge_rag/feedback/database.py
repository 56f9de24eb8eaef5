"""The recorder's SQLite file: one writer at a time across processes, and nothing acknowledged is lost.

SQLite before 3.51.3 (3.50.7, 3.44.6) can corrupt a file in WAL mode when two connections checkpoint while a third one
commits (https://sqlite.org/wal.html#walresetbug). Here every commit, checkpoint and close holds a lock on a file beside
the database, so that the three never overlap among processes that use this module.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

from nudge_rag.common.lock import unlock
from nudge_rag.feedback.file_lock import wait_for_lock

__all__ = ["EventDatabase", "has_wal_reset_fault"]

T = TypeVar("T")

SCHEMA_VERSION = 1
# The columns of UBI 1.3.0 (https://github.com/o19s/ubi); ours are hits, version, user_id and session_id of a query.
TABLES = (
    "CREATE TABLE IF NOT EXISTS ubi_queries (query_id TEXT PRIMARY KEY, application TEXT, client_id TEXT, "
    "user_query TEXT, query_attributes TEXT, object_id_field TEXT, timestamp INTEGER NOT NULL, query_response_id TEXT, "
    "query_response_hit_ids TEXT NOT NULL, hits TEXT NOT NULL, version TEXT, user_id TEXT, session_id TEXT)",
    "CREATE TABLE IF NOT EXISTS ubi_events (id INTEGER PRIMARY KEY, application TEXT, action_name TEXT NOT NULL, "
    "query_id TEXT NOT NULL, session_id TEXT, client_id TEXT, user_id TEXT, timestamp INTEGER NOT NULL, "
    "message_type TEXT, message TEXT, user_query TEXT, event_attributes TEXT NOT NULL, object_id TEXT, value REAL)",
    "CREATE TABLE IF NOT EXISTS nudge_meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS ubi_queries_by_time ON ubi_queries (timestamp)",
    "CREATE INDEX IF NOT EXISTS ubi_events_by_time ON ubi_events (timestamp)",
)
SECONDS_TO_WAIT_FOR_FORK = 5.0
PAGES_BEFORE_CHECKPOINT = 4_000
COMMITS_BETWEEN_LOOKS = 64

_open_databases: weakref.WeakSet[EventDatabase] = weakref.WeakSet()
_forking: list[EventDatabase] = []
# A connection that a fork carried over may be neither used nor closed: it is kept, so that nothing finalises it.
_inherited: list[Any] = []


def has_wal_reset_fault(version: tuple[int, int, int]) -> bool:
    """Tell whether a version of SQLite has the WAL-reset fault.

    Example:
        >>> [has_wal_reset_fault(v) for v in [(3, 40, 1), (3, 44, 6), (3, 50, 4), (3, 50, 7), (3, 51, 2), (3, 51, 3)]]
        [True, False, True, False, True, False]
    """
    if version < (3, 7, 0):
        return False
    fixed_in_line = {44: 6, 50: 7}.get(version[1])
    return version < (3, 51, 3) and not (fixed_in_line is not None and version[2] >= fixed_in_line)


class EventDatabase:
    """A SQLite file that threads, forks and processes write to.

    Args:
        path: the file; it and its folder are made, the file readable by its owner alone.
        timeout: seconds that a write waits for other processes.

    Raises:
        sqlite3.Error: the file is no database, or of a later version.
        OSError: it cannot be made or opened.
    """

    def __init__(self, path: Path, timeout: float) -> None:
        self.path, self.timeout = path, timeout
        self.journal_mode = ""
        self.counting = threading.Lock()
        self._thread_lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._lock_files: tuple[IO[bytes], IO[bytes]] | None = None
        self._held_for_fork = False
        self._commits = 0
        self.run(lambda connection: None)
        _open_databases.add(self)

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do ``work`` in one transaction that only its owner sees before it is complete.

        Raises:
            TimeoutError: other processes hold the file for longer than the timeout.
            sqlite3.Error: the database refuses; nothing of ``work`` was written.
        """
        with self._exclusive() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
            self._commits += 1
            if self._commits % COMMITS_BETWEEN_LOOKS == 0 and self._wal_pages() > PAGES_BEFORE_CHECKPOINT:
                # A reader in the way only postpones it.
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            return result

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do ``work`` in one read transaction, which stops nobody."""
        with self._thread_lock:
            connection = self._ready()
            connection.execute("BEGIN")
            try:
                return work(connection)
            finally:
                connection.execute("ROLLBACK")

    def checkpoint(self) -> None:
        """Move the write-ahead log into the file and empty it, so that deleted texts are gone from both."""
        with self._exclusive() as connection:
            connection.execute("PRAGMA incremental_vacuum")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close the connection; a later call opens it again."""
        with self._thread_lock:
            if self._connection is None:
                return
            # SQLite checkpoints when the last connection closes, hence the lock.
            with contextlib.suppress(OSError, sqlite3.Error), self._exclusive() as connection:
                connection.close()
            self._drop_connection()

    @contextmanager
    def _exclusive(self) -> Iterator[sqlite3.Connection]:
        if not self._thread_lock.acquire(timeout=self.timeout):
            raise TimeoutError(f"another thread is writing to {self.path} for {self.timeout} s")
        try:
            queue, lock = self._opened_lock_files()
            deadline = time.monotonic() + self.timeout
            # Whoever heads the queue comes next, so that a process that writes without a pause starves no other.
            wait_for_lock(queue, self.path, deadline)
            try:
                wait_for_lock(lock, self.path, deadline)
            finally:
                unlock(queue)
            try:
                yield self._ready()
            finally:
                unlock(lock)
        finally:
            self._thread_lock.release()

    def _opened_lock_files(self) -> tuple[IO[bytes], IO[bytes]]:
        if self._lock_files is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            queue, lock = (
                os.fdopen(os.open(f"{self.path}{end}", os.O_RDWR | os.O_CREAT, 0o600), "r+b", buffering=0)
                for end in (".queue", ".lock")
            )
            self._lock_files = queue, lock
        return self._lock_files

    def _ready(self) -> sqlite3.Connection:
        if self._connection is None:
            _make_private(self.path)
            connection = sqlite3.connect(self.path, self.timeout, isolation_level=None, check_same_thread=False)
            try:
                self.journal_mode = _prepare(connection, self.path)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _wal_pages(self) -> int:
        try:
            return self.path.with_name(self.path.name + "-wal").stat().st_size // 4096
        except OSError:
            return 0

    def _drop_connection(self) -> None:
        """Let go of what a closed connection needs."""
        self._connection = None
        for file in self._lock_files or ():
            file.close()
        self._lock_files = None

    def before_fork(self) -> None:
        """Close the file and keep threads from opening it, because SQLite's state must not be carried over a fork."""
        self._held_for_fork = self._thread_lock.acquire(timeout=SECONDS_TO_WAIT_FOR_FORK)
        if self._held_for_fork:
            self.close()

    def after_fork_in_parent(self) -> None:
        """Let threads write again."""
        if self._held_for_fork:
            self._thread_lock.release()

    def after_fork_in_child(self) -> None:
        """Begin anew, with locks that no thread of the parent holds."""
        self.counting = threading.Lock()
        self._thread_lock = threading.RLock()
        if self._connection is not None:
            _inherited.append(self._connection)
            self._drop_connection()


def _prepare(connection: sqlite3.Connection, path: Path) -> str:
    """Set the file up; return its journal mode, which is not "wal" on file systems without shared memory."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise sqlite3.DatabaseError(f"{path} is of a later nudge-rag: schema {version}, here {SCHEMA_VERSION}")
    if not version:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    mode = str(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
    for setting in ("synchronous = NORMAL", "secure_delete = ON", "wal_autocheckpoint = 0", "mmap_size = 0"):
        connection.execute(f"PRAGMA {setting}").fetchall()
    if not version:
        for table in TABLES:
            connection.execute(table)
        connection.execute("INSERT OR IGNORE INTO nudge_meta VALUES ('salt', ?)", (os.urandom(16).hex(),))
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    return mode


def _make_private(path: Path) -> None:
    """Make the file before SQLite does, so that at no time others can read it; its companions get the same mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    if os.name != "nt" and path.stat().st_mode & 0o077:
        with contextlib.suppress(OSError):
            path.chmod(0o600)


def _before_fork() -> None:
    _forking.extend(_open_databases)
    for database in _forking:
        database.before_fork()


def _after_fork_in_parent() -> None:
    while _forking:
        _forking.pop().after_fork_in_parent()


def _after_fork_in_child() -> None:
    while _forking:
        _forking.pop().after_fork_in_child()


def _close_all() -> None:
    for database in list(_open_databases):
        database.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
atexit.register(_close_all)
