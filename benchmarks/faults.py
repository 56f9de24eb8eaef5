"""What the tests do to stores and journals, how often, and what was lost: the tables in benchmarks/README.md.

    python benchmarks/faults.py                     # every part, for an hour or two
    python benchmarks/faults.py races writers       # some of them: each has a table of its own
    python benchmarks/faults.py kills --only "duckdb or redis"  # of some stores, as pytest's -k takes them

NUDGE_RAG_KILL_EVERY=2 kills at every second step only, NUDGE_RAG_KILL_STEPS at so many of each process that shares
nothing but the store (a quarter of them on stores that take long), NUDGE_RAG_KILL_ROUNDS at random moments for each
store. NUDGE_RAG_RACE_ROUNDS calls of each of three processes, NUDGE_RAG_ROUNDS pushes beside a process that writes,
NUDGE_RAG_FUZZ damaged journals, NUDGE_RAG_MODEL_STEPS steps against a model. Redis is tested in its own environment,
which `make bench-faults` sets up. A table is written only if every test of its part passes.
"""

from __future__ import annotations

import argparse
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
REDIS = ROOT / ".venv-redis-langchain" / "bin" / "python"
DEFAULTS = {
    "NUDGE_RAG_KILL_EVERY": "1",
    "NUDGE_RAG_KILL_STEPS": "100",
    "NUDGE_RAG_KILL_ROUNDS": "100",
    "NUDGE_RAG_RACE_ROUNDS": "40",
    "NUDGE_RAG_FUZZ": "500000",
    "NUDGE_RAG_ROUNDS": "50",
    "NUDGE_RAG_MODEL_STEPS": "10000",
}
PACKAGES = ("chromadb", "faiss-cpu", "lancedb", "llama-index-core", "psycopg", "numpy")
SECONDS_PER_TEST = 7200
COUNTS = ("times", "steps", "met", "refused", "lost")


@dataclass(frozen=True)
class Part:
    """Tests whose outcome is one table.

    Attributes:
        title: of the table.
        tests: files of tests.
        told: what the table shows; names of settings in braces.
        has_redis: whether they have cases for Redis.
    """

    title: str
    tests: tuple[str, ...]
    told: str
    has_redis: bool = False


LOST = (
    "A vector is lost that is afterwards none of those that its node had before or in a recorded version, or that\n"
    "`rollback` does not bring back."
)
PARTS = {
    "kills": Part(
        "Processes that are killed",
        ("tests/faults/test_killed_with_history.py",),
        "Processes that share nothing but the store push, roll back, recover and switch, and are killed (SIGKILL): at\n"
        "{NUDGE_RAG_KILL_STEPS} steps of each (a quarter of them on Chroma and Milvus), evenly spread, or at all if"
        " there are fewer, and\n{NUDGE_RAG_KILL_ROUNDS} times at random. " + LOST,
        has_redis=True,
    ),
    "folders": Part(
        "Processes that are killed, with histories in folders",
        ("tests/faults/test_killed_processes.py",),
        "The same with `versions=PATH`: at one step in {NUDGE_RAG_KILL_EVERY}, and {NUDGE_RAG_KILL_ROUNDS} times at"
        " random.",
    ),
    "servers": Part(
        "Servers that are killed",
        ("tests/faults/test_killed_servers.py",),
        "A database's server is killed while vectors are pushed and rolled back, at one step in {NUDGE_RAG_KILL_EVERY}"
        " and\n{NUDGE_RAG_KILL_ROUNDS} times at random, and started again.",
    ),
    "races": Part(
        "Races",
        ("tests/faults/test_races.py", "tests/faults/test_two_at_once.py"),
        "Three processes make {NUDGE_RAG_RACE_ROUNDS} calls each at once (push, side-by-side push, switch, rollback,"
        " reapply, drop), and\nshare nothing but the store. DuckDB, Milvus Lite and Qdrant's local mode can be open in"
        " one process at a time.\n" + LOST,
        has_redis=True,
    ),
    "writers": Part(
        "Beside a process that writes",
        ("tests/faults/test_steady_writes.py",),
        "{NUDGE_RAG_ROUNDS} pushes and rollbacks each while another process adds, changes and deletes nodes by the"
        " database's own client,\n30 a second (2 a second where each write rewrites the whole file). Lost are its"
        " writes that the store does not hold in the end.",
    ),
    "model": Part(
        "Against a model",
        ("tests/faults/test_model.py",),
        "Pushes, tunes, switches, rollbacks, ingestion, restored backups and deaths in any order, by the adapter and by"
        " either\nframework's object; lost are disagreements with a small model.",
        has_redis=True,
    ),
    "damage": Part(
        "Damaged and hostile",
        (
            "tests/faults/test_full_disks.py",
            "tests/faults/test_hostile_archives.py",
            "tests/faults/test_hostile_collections.py",
            "tests/faults/test_hostile_journals.py",
            "tests/faults/test_hostile_names.py",
            "tests/faults/test_recorder_faults.py",
            "tests/stores/test_url_secrets.py",
        ),
        "Where a journal is damaged, the last column counts writes to the store; one that is not refused reads as it\n"
        "was, or as a whole record where checksums were made to fit. Of URLs with secrets it counts those printed.",
    ),
}


@dataclass
class Fault:
    """Sums over the tests of one fault; None for what none of them counts."""

    stores: set[str] = field(default_factory=set)
    times: int | None = None
    steps: int | None = None
    met: int | None = None
    refused: int | None = None
    lost: int | None = None

    def add(self, properties: dict[str, str]) -> None:
        self.stores |= {properties["store"]} - {""}
        for name in COUNTS:
            if name in properties:
                setattr(self, name, (getattr(self, name) or 0) + int(properties[name]))

    def cells(self, name: str) -> list[str]:
        times = f"{self.times:,}"
        if self.met is not None:
            times += f", {self.met:,} of them put before a store"
        if self.steps is not None:
            times += f", of {self.steps:,} steps"
        counts = ["" if count is None else f"{count:,}" for count in (self.refused, self.lost)]
        return [name, ", ".join(sorted(self.stores)), times, *counts]


def run_tests(python: Path | str, part: Part, report: Path, settings: dict[str, str], *options: str) -> int:
    # Properties of tests are no part of the newer family of reports.
    options = (*options, "--timeout", str(SECONDS_PER_TEST), "--junitxml", str(report), "-o", "junit_family=xunit1")
    command = [str(python), "-m", "pytest", "-q", *part.tests, *options]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **settings}, check=False).returncode


def sums(suites: list[ElementTree.Element]) -> dict[str, Fault]:
    """What the tests recorded, by fault, in the order of the tests."""
    faults: dict[str, Fault] = {}
    for case in (case for suite in suites for case in suite.iter("testcase")):
        properties = {p.attrib["name"]: p.attrib["value"] for p in case.iter("property")}
        if "fault" in properties:
            faults.setdefault(properties["fault"], Fault()).add(properties)
    return faults


def head(name: str, suites: list[ElementTree.Element], settings: dict[str, str], minutes: float) -> list[str]:
    every = [suite for found in suites for suite in found.iter("testsuite")]
    tests, skipped = (sum(int(suite.attrib[kind]) for suite in every) for kind in ("tests", "skipped"))
    return [
        f"`benchmarks/faults.py {name}`: {tests} tests ({skipped} skipped), {minutes:.0f} minutes.",
        PARTS[name].told.format(**settings),
        machine(*PACKAGES),
        "",
        "| fault | stores | times | refused | lost |",
        "|---|---|---|---|---|",
    ]


def run_part(name: str, settings: dict[str, str], only: str | None) -> bool:
    """Run a part's tests and write its table; whether all passed."""
    part, started = PARTS[name], time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        reports = [Path(folder) / "main.xml"]
        failed = run_tests(sys.executable, part, reports[0], settings, *(["-k", only] if only else []))
        if part.has_redis and (only is None or "redis" in only):
            reports.append(Path(folder) / "redis.xml")
            failed = run_tests(REDIS, part, reports[1], settings, "-k", "redis") or failed
        if failed:
            return False
        suites = [ElementTree.parse(report).getroot() for report in reports]
    lines = head(name, suites, settings, (time.perf_counter() - started) / 60)
    if only:
        lines[0] = lines[0].replace(f"{name}`", f"{name} --only '{only}'`")
    lines += [f"| {' | '.join(fault.cells(kind))} |" for kind, fault in sums(suites).items()]
    write_section(f"faults-{name}", f"Faults: {part.title}", lines)
    sys.stdout.write("\n".join([*lines, ""]))
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description="What is done to stores and journals, and what is lost by it.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; default all")
    parser.add_argument("--only", metavar="EXPRESSION", help="which of their tests, as pytest's -k takes it")
    options = parser.parse_args()
    chosen = options.parts or list(PARTS)
    unknown = sorted(set(chosen) - set(PARTS))
    if unknown:
        parser.error(f"unknown parts {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if not REDIS.exists() and any(PARTS[name].has_redis for name in chosen):
        parser.error(f"{REDIS} is missing: python scripts/environment.py redis-langchain")
    settings = {name: os.environ.get(name, default) for name, default in DEFAULTS.items()}
    failed = [name for name in chosen if not run_part(name, settings, options.only)]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
