"""Labelled sets found through the environment, temporary files in memory, and what was tested where."""

from __future__ import annotations

import gc
import inspect
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# A deadline is time on the wall, which the first example, that imports, or a busy machine exceeds.
hypothesis.settings.register_profile("busy", deadline=None)
hypothesis.settings.load_profile("busy")

# They hold no tests, and only some of their clients are installed; those of the tests that use them say which.
collect_ignore_glob = ["support/*"]

# In the names of the kinds of stores that are tested.
SERVED = ("server", "postgres", "pgvector", "redis")
STORES = pytest.StashKey[dict[str, Any]]()
# Memory as a file system, and how much of it must be free.
MEMORY = Path("/dev/shm")
FREE_BYTES = 6 << 30
# Files of tests that passed: of this run, to be written, and of another environment, which are not run again here.
WRITE_PASSED = "NUDGE_RAG_WRITE_PASSED"
PASSED_ELSEWHERE = "NUDGE_RAG_PASSED_ELSEWHERE"
# So many new objects, rather than 700, start a collection of garbage.
OBJECTS_PER_COLLECTION = 10_000


def pytest_configure(config: pytest.Config) -> None:
    """Keep temporary files in memory if it has room: they outlive no power cut, so a sync of a file may cost nothing.

    ``TMPDIR`` says otherwise. A worker of pytest-xdist has it from the process that started it.

    Until the tests begin, no garbage is looked for: what is imported until then stays. Clients of servers on loopback
    find no certificates of authorities, a hundred and more, which each client would read.
    """
    gc.disable()
    os.environ.pop("SSL_CERT_FILE", None)
    os.environ["SSL_CERT_DIR"] = os.devnull
    if "TMPDIR" in os.environ or not MEMORY.is_dir() or shutil.disk_usage(MEMORY).free < FREE_BYTES:
        return
    os.environ["TMPDIR"] = str(MEMORY)
    tempfile.tempdir = None  # asks anew where it is


@pytest.fixture(scope="session", autouse=True)
def no_memory_held(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give memory back at the end, unless a test failed whose files somebody may want to see.

    Not after each test: the next would be given the name of its folder, by which clients of databases know theirs.
    """
    yield
    folder = tmp_path_factory.getbasetemp()
    if not request.session.testsfailed and folder.is_relative_to(MEMORY):
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def beir_data() -> Path:
    """Folder with scifact, nfcorpus and stackfaq in BEIR layout, each with all-MiniLM-L6-v2.npz."""
    folder = os.environ.get("NUDGE_RAG_DATA", "")
    if not folder:
        pytest.skip("NUDGE_RAG_DATA is not set: it names a folder of BEIR data sets (scifact, stackfaq, nfcorpus)")
    path = Path(folder)
    if not (path / "scifact").is_dir():
        pytest.skip(f"NUDGE_RAG_DATA={folder} holds no scifact folder")
    return path


def refuse_addresses(items: list[pytest.Item]) -> None:
    """Refuse tests that are named by an object's address: each process has other names, and pytest-xdist runs none.

    Raises:
        pytest.UsageError: there are such tests.
    """
    named = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if named:
        raise pytest.UsageError(f"give these parameters ids: {', '.join(named)}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what has passed elsewhere, and mark the tests that start a database server.

    These ask for one, or for a kind of store that lives in one.
    """
    refuse_addresses(items)
    if elsewhere := os.environ.get(PASSED_ELSEWHERE):
        passed = set(json.loads(Path(elsewhere).read_text()))
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid in passed])
        items[:] = [item for item in items if item.nodeid not in passed]
    for item in items:
        asked = inspect.signature(item.obj).parameters if isinstance(item, pytest.Function) else {}
        values = getattr(getattr(item, "callspec", None), "params", {}).values()
        kinds = " ".join(value for value in values if isinstance(value, str)).lower()
        if "servers" in asked or any(word in kinds for word in SERVED):
            item.add_marker(pytest.mark.server)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Note which stores this process could build; a worker of pytest-xdist tells the process that reports.

    Collections of garbage begin, and leave alone the millions of objects of modules and tests.
    """
    gc.freeze()
    gc.set_threshold(OBJECTS_PER_COLLECTION, 10, 10)
    gc.enable()
    registry = sys.modules.get("tests.support.builders.registry")
    if registry is None:
        return
    stores = {
        "missing": dict(registry.MISSING),
        "known": sorted({*registry.MISSING, *registry.STORE_OF.values()}),
        "experimental": list(registry.EXPERIMENTAL),
    }
    session.config.stash[STORES] = stores
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["stores"] = stores


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Take what a worker noted; all of them collect the same tests."""
    if stores := getattr(node, "workeroutput", {}).get("stores"):
        node.config.stash[STORES] = stores


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say which stores were tested in this run, which were not, and why; also to the file NUDGE_RAG_STORES_REPORT."""
    if elsewhere := os.environ.get(PASSED_ELSEWHERE):
        terminalreporter.write_line(
            f"not run again here: {len(json.loads(Path(elsewhere).read_text()))} that passed elsewhere"
        )
    if passed_file := os.environ.get(WRITE_PASSED):
        Path(passed_file).parent.mkdir(parents=True, exist_ok=True)
        Path(passed_file).write_text(json.dumps(sorted({report.nodeid for report in terminalreporter.stats["passed"]})))
    stores = config.stash.get(STORES, None)
    if stores is None:
        return
    known = set(stores["known"])
    reasons: dict[str, str] = {}
    tested = set()
    for outcome, reports in terminalreporter.stats.items():
        for report in reports:
            store = dict(getattr(report, "user_properties", ())).get("store")
            if store and outcome == "skipped":
                reasons[store] = str(report.longrepr[2]).removeprefix("Skipped: ")
            elif store in known:  # tests of faults have names of their own
                tested.add(store)
    for store in known - tested:
        reasons.setdefault(store, stores["missing"].get(store, "no test was chosen"))
    left_out = {store: reasons[store] for store in sorted(set(reasons) - tested)}
    named = [f"{store} (a double)" if store in stores["experimental"] else store for store in sorted(tested)]
    terminalreporter.write_line(f"stores tested here: {', '.join(named) or 'none'}")
    shown = ", ".join(f"{store} ({reason})" for store, reason in left_out.items())
    terminalreporter.write_line(f"stores not tested here: {shown or 'none'}")
    if report_file := os.environ.get("NUDGE_RAG_STORES_REPORT"):
        Path(report_file).parent.mkdir(parents=True, exist_ok=True)
        Path(report_file).write_text(json.dumps({"tested": sorted(tested), "left_out": left_out}))
