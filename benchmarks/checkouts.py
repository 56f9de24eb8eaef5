"""Run a benchmark's script in a process that imports another checkout of the project."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["commit_of", "run_in"]


def commit_of(checkout: Path) -> str:
    """The checkout's commit, abbreviated."""
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def run_in(checkout: Path, script: str, arguments: list[str], cwd: Path | None = None) -> dict[str, Any]:
    """What ``script`` prints as JSON on its last line, run with ``checkout`` first on the path."""
    # The checkout first; the script's own folder has the report.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(checkout), str(Path(script).parent)])}
    command = [sys.executable, script, *arguments]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=cwd)
    if told.returncode:
        sys.exit(f"{' '.join(arguments)} in {checkout}: {told.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(told.stdout.splitlines()[-1])
    return result
