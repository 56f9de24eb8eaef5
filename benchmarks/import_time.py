"""Time ``import nudge_rag`` beyond what numpy itself takes: ``python -m benchmarks.import_time``."""

from __future__ import annotations

import statistics
import subprocess
import sys

ROUNDS = 15
STATEMENTS = ("import nudge_rag", "from nudge_rag import open_store", "from nudge_rag import tune")


def seconds(statement: str) -> float:
    """Median time of a statement in a fresh interpreter that has numpy already."""
    code = f"import numpy, time; start = time.perf_counter(); {statement}; print(time.perf_counter() - start)"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, check=True) for _ in range(ROUNDS)]
    return statistics.median(float(run.stdout) for run in runs)


def modules(statement: str) -> int:
    """How many of our own modules a statement loads."""
    code = f"import sys; {statement}; print(sum(name.startswith('nudge_rag') for name in sys.modules))"
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)


def main() -> None:
    """Print one line a statement."""
    for statement in STATEMENTS:
        line = f"{statement:<35}{1000 * seconds(statement):7.1f} ms beyond numpy {modules(statement):4} own modules"
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
