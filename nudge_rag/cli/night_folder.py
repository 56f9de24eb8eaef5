"""The folder of the nights: the state of the one under way, the log of all, and a folder for each."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path
from typing import Any

from nudge_rag.common.files import write_synced
from nudge_rag.errors import CorruptArchiveError

__all__ = [
    "STEPS",
    "Night",
    "last_labels",
    "log_event",
    "new_name",
    "read_log",
    "read_state",
    "remove_old",
    "write_state",
]

STEPS = ("labels", "tune", "gate", "push", "report")
STATE, LOG = "state.json", "log.jsonl"


@dataclass
class Night:
    """What is known of a night, as its state file has it.

    Attributes:
        name: when it began.
        done: the steps that are done.
        attempts: how often it was begun or gone on with.
        facts: what the steps found.
    """

    name: str
    done: list[str]
    attempts: int
    facts: dict[str, Any]

    def next_step(self) -> str | None:
        """Return the first step that is not done, None after the last or once the night is over."""
        if self.facts.get("over"):
            return None
        return next((step for step in STEPS if step not in self.done), None)


def new_name(folder: Path, now: datetime) -> str:
    """Return the time, and a number if a night has that name: clocks are set back, nights last less than a second."""
    name = now.strftime("%Y%m%dT%H%M%SZ")
    logged = {entry["night"] for entry in read_log(folder)}
    numbered = (f"{name}-{number}" for number in count(2))
    return next(free for free in chain([name], numbered) if free not in logged and not (folder / free).exists())


def last_labels(folder: Path) -> str | None:
    """Return the digest of the labels of the last night that pushed."""
    digests: dict[str, str] = {}
    last = None
    for entry in read_log(folder):
        if entry.get("event") == "labels" and "labels" in entry:
            digests[entry["night"]] = entry["labels"]
        if entry.get("event") == "push" and entry.get("pushed"):
            last = digests.get(entry["night"], last)
    return last


def read_log(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the entries of the log, oldest first; a line that a process died over is left out."""
    path = folder / LOG
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("night"), str):
            yield entry


def read_state(folder: Path) -> Night | None:
    """Return the night that the state file tells of, None if there is no file.

    Raises:
        CorruptArchiveError: the file is not what a night writes.
    """
    path = folder / STATE
    if not path.exists():
        return None
    try:
        night = Night(**json.loads(path.read_text(encoding="utf-8")))
        kinds = {"name": str, "done": list, "attempts": int, "facts": dict}
        wrong = [name for name, kind in kinds.items() if not isinstance(getattr(night, name), kind)]
        if wrong or Path(night.name).name != night.name:
            raise ValueError(f"{', '.join(wrong) or 'the name'} does not fit")
    except (ValueError, TypeError) as error:
        raise CorruptArchiveError(
            f"{path} is not what a night writes ({error}): remove it, and a night begins"
        ) from error
    return night


def write_state(folder: Path, night: Night) -> None:
    """Write what is known of a night, as a whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_synced(folder / STATE, json.dumps(vars(night), indent=1, default=str).encode())


def log_event(folder: Path, night: Night, event: str, facts: dict[str, Any]) -> None:
    """Add a line to the log."""
    entry = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "night": night.name, "event": event, **facts}
    with (folder / LOG).open("ab+") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
        # A process that died over its line would spoil the next one.
        begin = b"" if file.read(1) in (b"", b"\n") else b"\n"
        file.write(begin + json.dumps(entry, default=str).encode() + b"\n")


def remove_old(folder: Path, night: Night, keep: int) -> None:
    """Keep the folders of the newest ``keep`` nights; the log stays whole."""
    order = {entry["night"]: number for number, entry in enumerate(read_log(folder))}  # a clock may be set back
    folders = (path for path in folder.iterdir() if path.is_dir() and path.name[:8].isdigit())
    nights = sorted(folders, key=lambda path: (order.get(path.name, -1), path.name))
    for path in nights[: max(0, len(nights) - keep)]:
        if path.name != night.name:
            shutil.rmtree(path, ignore_errors=True)
