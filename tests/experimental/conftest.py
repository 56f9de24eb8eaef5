"""The stores whose databases cannot be run here, on doubles of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.doubles import registry
from tests.doubles.opening import quietly
from tests.store_builders.common import Servers, calls

# In the main environment none of their packages is installed; the end of the run says so.
collect_ignore_glob = [] if registry.BUILDERS else ["test_*.py"]


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Doubles on loopback, each started at its first use and stopped at the end."""
    running = Servers(registry.STARTERS, tmp_path_factory)
    yield running
    running.stop()


@pytest.fixture
def build(request: pytest.FixtureRequest, tmp_path: Path, servers: Servers) -> Callable[[str, int], Any]:
    """Build a store by name with n nodes."""

    def make(name: str, n: int) -> Any:
        builder, options = registry.BUILDERS[name]
        request.node.user_properties.append(("store", registry.STORE_OF[name]))
        made = builder(tmp_path, n, servers, **options)
        calls.clear()
        return made

    return make


@pytest.fixture(params=registry.every())
def built(request: pytest.FixtureRequest, build: Callable[[str, int], Any]) -> Any:
    """Every store in turn, with 60 nodes."""
    return build(request.param, 60)


@pytest.fixture
def quiet() -> Iterator[None]:
    """Opening an experimental store warns; `test_opening.py` has that."""
    with quietly():
        yield


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Which experimental stores were tested in this run, which were not, and why."""
    tested = {
        store
        for reports in terminalreporter.stats.values()
        for report in reports
        for key, store in getattr(report, "user_properties", ())
        if key == "store" and store in registry.STORES
    }
    left_out = [
        f"{store} ({registry.MISSING.get(store, 'no test was chosen')})"
        for store in registry.STORES
        if store not in tested
    ]
    terminalreporter.write_line(f"experimental stores tested on doubles: {', '.join(sorted(tested)) or 'none'}")
    terminalreporter.write_line(f"experimental stores not tested: {', '.join(left_out) or 'none'}")
