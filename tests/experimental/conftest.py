"""The stores whose databases cannot be run here, on doubles of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.opening import quietly
from tests.doubles.registry import every
from tests.store_builders.common import Servers, calls
from tests.store_builders.registry import BUILDERS, STARTERS, STORE_OF, builders

# In the main environment none of their packages is installed; the end of the run says so.
collect_ignore_glob = [] if builders(experimental=True) else ["test_*.py"]


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Doubles on loopback, each started at its first use and stopped at the end."""
    running = Servers(STARTERS, tmp_path_factory)
    yield running
    running.stop()


@pytest.fixture
def build(request: pytest.FixtureRequest, tmp_path: Path, servers: Servers) -> Callable[[str, int], Any]:
    """Build a store by name with n nodes."""

    def make(name: str, n: int) -> Any:
        builder, options = BUILDERS[name]
        request.node.user_properties.append(("store", STORE_OF[name]))
        made = builder(tmp_path, n, servers, **options)
        calls.clear()
        return made

    return make


@pytest.fixture(params=every())
def built(request: pytest.FixtureRequest, build: Callable[[str, int], Any]) -> Any:
    """Every store in turn, with 60 nodes."""
    return build(request.param, 60)


@pytest.fixture
def quiet() -> Iterator[None]:
    """Opening an experimental store warns; `test_opening.py` has that."""
    with quietly():
        yield
