"""The state of a recorder's file."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from nudge_rag.feedback.database import EventDatabase, has_wal_reset_fault

__all__ = ["RecorderCheck", "check_database"]


@dataclass(frozen=True)
class RecorderCheck:
    """The state of a recorder.

    Attributes:
        path: the file.
        retrievals: recorded retrievals.
        feedback: recorded feedback events.
        lost: retrievals and events that this process could not write.
        last_error: why the last one was lost, None if none was.
        integrity: "ok", or what SQLite finds wrong with the file.
        journal_mode: "wal"; another one on file systems without shared memory, where each write is slower.
        sqlite_version: of the library in use.
        wal_reset_fault: whether that version has the WAL-reset fault, which the recorder's lock keeps from happening
            unless other programs write to the file.
    """

    path: Path
    retrievals: int
    feedback: int
    lost: int
    last_error: str | None
    integrity: str
    journal_mode: str
    sqlite_version: str
    wal_reset_fault: bool

    def __str__(self) -> str:
        lost = f", {self.lost} lost ({self.last_error})" if self.lost else ""
        fault = (
            "; this SQLite has the WAL-reset fault (https://sqlite.org/wal.html#walresetbug): let no other program "
            "write to the file, or use 3.51.3 or later"
            if self.wal_reset_fault
            else ""
        )
        return (
            f"{self.path}: {self.retrievals} retrievals, {self.feedback} feedback events{lost}; integrity: "
            f"{self.integrity}; journal mode {self.journal_mode}, SQLite {self.sqlite_version}{fault}"
        )


def check_database(database: EventDatabase, lost: int, last_error: str | None) -> RecorderCheck:
    """Count the rows and let SQLite check the file.

    Raises:
        sqlite3.Error: the file cannot be read.
    """

    def count(connection: sqlite3.Connection) -> tuple[int, int, str]:
        retrievals = connection.execute("SELECT count(*) FROM ubi_queries").fetchone()[0]
        events = connection.execute("SELECT count(*) FROM ubi_events").fetchone()[0]
        integrity = "; ".join(row[0] for row in connection.execute("PRAGMA integrity_check(5)"))
        return retrievals, events, integrity

    retrievals, events, integrity = database.read(count)
    return RecorderCheck(
        path=database.path,
        retrievals=retrievals,
        feedback=events,
        lost=lost,
        last_error=last_error,
        integrity=integrity,
        journal_mode=database.journal_mode,
        sqlite_version=sqlite3.sqlite_version,
        wal_reset_fault=has_wal_reset_fault(sqlite3.sqlite_version_info[:3]),
    )
