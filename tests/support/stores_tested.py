"""Say which stores ``make test`` tested: ``python tests/support/stores_tested.py FOLDER``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def lines(reports: dict[str, Any]) -> list[str]:
    """One line per store: the jobs that tested it, or why neither the main job nor the store's own did."""
    found = []
    for store in sorted({store for report in reports.values() for part in report.values() for store in part}):
        jobs = [job for job, report in reports.items() if store in report["tested"]]
        reasons = [
            f"{job}: {reports[job]['left_out'][store]}" for job in ("main", store) if job in reports and not jobs
        ]
        found.append(f"{store}: tested in {', '.join(jobs)}" if jobs else f"{store}: not tested ({'; '.join(reasons)})")
    return found


if __name__ == "__main__":
    read = {file.stem: json.loads(file.read_text()) for file in sorted(Path(sys.argv[1]).glob("*.json"))}
    sys.stdout.write("\n".join(lines(read)) + "\n")
