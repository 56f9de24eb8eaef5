"""What the tests do to stores and journals, how often, and what was lost: the table in benchmarks/README.md.

    python benchmarks/faults.py                            # kills at every step, 500,000 damaged journals
    NUDGE_RAG_KILL_EVERY=2 python benchmarks/faults.py     # quicker: kills at every second step

NUDGE_RAG_KILL_ROUNDS kills at random moments for each store, NUDGE_RAG_FUZZ damaged journals, NUDGE_RAG_ROUNDS pushes
beside a process that writes, NUDGE_RAG_MODEL_STEPS steps against a model. Nothing is written unless every test passes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from report import machine, write_section

ROOT = Path(__file__).parent.parent
TESTS = ("tests/faults", "tests/faults/test_killed_processes.py")
DEFAULTS = {
    "NUDGE_RAG_KILL_EVERY": "1",
    "NUDGE_RAG_KILL_ROUNDS": "100",
    "NUDGE_RAG_FUZZ": "500000",
    "NUDGE_RAG_ROUNDS": "50",
    "NUDGE_RAG_MODEL_STEPS": "10000",
}
PACKAGES = ("chromadb", "faiss-cpu", "lancedb", "llama-index-core", "psycopg", "numpy")
SECONDS_PER_TEST = 7200
COUNTS = ("times", "met", "refused", "lost")
MEANING = (
    "none of those that its node had before or in a recorded version. Where a journal is damaged, the last column",
    "counts writes to the store; one that is not refused reads as it was, or as a whole record where checksums were",
    "made to fit.",
)


@dataclass
class Fault:
    """Sums over the tests of one fault; None for what none of them counts."""

    stores: set[str] = field(default_factory=set)
    times: int | None = None
    met: int | None = None
    refused: int | None = None
    lost: int | None = None

    def add(self, properties: dict[str, str]) -> None:
        self.stores |= {properties["store"]} - {""}
        for name in COUNTS:
            if name in properties:
                setattr(self, name, (getattr(self, name) or 0) + int(properties[name]))

    def cells(self, name: str) -> list[str]:
        times = f"{self.times:,}" + (f", {self.met:,} of them put before a store" if self.met is not None else "")
        counts = ["" if count is None else f"{count:,}" for count in (self.refused, self.lost)]
        return [name, ", ".join(sorted(self.stores)), times, *counts]


def run_tests(report: Path, settings: dict[str, str]) -> int:
    # Properties of tests are no part of the newer family of reports.
    options = ["--timeout", str(SECONDS_PER_TEST), "--junitxml", str(report), "-o", "junit_family=xunit1"]
    command = [sys.executable, "-m", "pytest", "-q", *TESTS, *options]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **settings}, check=False).returncode


def sums(suites: ElementTree.Element) -> dict[str, Fault]:
    """What the tests recorded, by fault, in the order of the tests."""
    faults: dict[str, Fault] = {}
    for case in suites.iter("testcase"):
        properties = {p.attrib["name"]: p.attrib["value"] for p in case.iter("property")}
        if "fault" in properties:
            faults.setdefault(properties["fault"], Fault()).add(properties)
    return faults


def head(suites: ElementTree.Element, settings: dict[str, str], minutes: float) -> list[str]:
    every = int(settings["NUDGE_RAG_KILL_EVERY"])
    n = settings["NUDGE_RAG_KILL_ROUNDS"]
    steps, took = "every step" if every == 1 else f"one step in {every}", f"{minutes:.0f} minutes"
    tests, skipped = (
        sum(int(suite.attrib[name]) for suite in suites.iter("testsuite")) for name in ("tests", "skipped")
    )
    return [
        f"`make bench-faults`: {tests} tests of `{'` and `'.join(TESTS)}` ({skipped} skipped),",
        f"{took}. Processes and servers are killed (SIGKILL) at {steps} (`NUDGE_RAG_KILL_EVERY={every}`)",
        f"and at {n} random moments a test (`NUDGE_RAG_KILL_ROUNDS={n}`). A vector is lost that is afterwards",
        *MEANING,
        machine(*PACKAGES),
        "",
        "| fault | stores | times | refused | vectors lost / writes |",
        "|---|---|---|---|---|",
    ]


def main() -> None:
    settings = {name: os.environ.get(name, default) for name, default in DEFAULTS.items()}
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        failed = run_tests(report, settings)
        if failed:
            sys.exit(failed)
        suites = ElementTree.parse(report).getroot()
    lines = head(suites, settings, (time.perf_counter() - started) / 60)
    lines += [f"| {' | '.join(fault.cells(name))} |" for name, fault in sums(suites).items()]
    write_section("faults", "Faults", lines)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
