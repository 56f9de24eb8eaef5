"""A process that records while something is in its way, and prints what came of it as JSON.

Usage: troubled_recording.py TROUBLE DATABASE [BALLAST]
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

from nudge_rag.feedback.recorder import Recorder
from tests.support.killed_worker import fill_disk, limit_files

NOBODY = 65534
EVENTS = 20
TEXT = "a question that is long enough to fill pages " * 100


def record(recorder: Recorder, name: str) -> list[str]:
    """Record a few queries; return the ids of those that were acknowledged."""
    found = [recorder.record(TEXT, ["a", "b"], query_id=f"{name}-{number}") for number in range(EVENTS)]
    return [query_id for query_id in found if query_id is not None]


def main(trouble: str, path: str, ballast: str = "") -> None:
    if trouble == "read-only" and os.geteuid() == 0:
        os.setuid(NOBODY)
    recorder = Recorder(path)
    acknowledged = [] if trouble == "read-only" else record(recorder, "before")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        if trouble == "full":
            fill_disk(Path(ballast))
        elif trouble == "limited":
            hard = limit_files(Path(path).stat().st_size)
        during = record(recorder, "during")
        refused = recorder.feedback("before-0", "a", "click")
    if trouble == "full":
        Path(ballast).unlink()
    elif trouble == "limited":
        limit_files(hard)
    after = [] if trouble == "read-only" else record(recorder, "after")
    said = {
        "acknowledged": [*acknowledged, *during, *after],
        "during": len(during),
        "after": len(after),
        "fed": refused,
        "lost": recorder.lost,
        "last_error": recorder.last_error,
        "warnings": [str(warning.message) for warning in warned],
    }
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
