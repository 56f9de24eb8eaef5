"""Fixtures that build any store; imported by the conftest.py of every folder of tests that does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.builders.common import Built, Servers, calls
from tests.support.builders.registry import BUILDERS, STARTERS, STORE_OF
from tests.support.doubles.opening import quietly

__all__ = ["build", "build_once", "quiet", "servers"]


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Servers on loopback, each started at its first use and stopped at the end."""
    running = Servers(STARTERS, tmp_path_factory)
    yield running
    running.stop()


@pytest.fixture
def build(request: pytest.FixtureRequest, tmp_path: Path, servers: Servers) -> Callable[[str, int], Built]:
    """Build a store by name with n nodes."""

    def make(name: str, n: int) -> Built:
        builder, options = BUILDERS[name]
        request.node.user_properties.append(("store", STORE_OF[name]))
        built = builder(tmp_path, n, servers, **options)
        calls.clear()
        return built

    return make


@pytest.fixture(scope="session")
def built_stores() -> dict[tuple[str, int], Built]:
    """Stores that were built once for all tests of this process that change nothing."""
    return {}


@pytest.fixture
def build_once(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    servers: Servers,
    built_stores: dict[tuple[str, int], Built],
) -> Callable[[str, int], Built]:
    """Build a store by name with n nodes, or give the one that another test asked for: change nothing in it."""

    def make(name: str, n: int) -> Built:
        builder, options = BUILDERS[name]
        request.node.user_properties.append(("store", STORE_OF[name]))
        if (name, n) not in built_stores:
            built_stores[name, n] = builder(tmp_path_factory.mktemp(name), n, servers, **options)
        calls.clear()
        return built_stores[name, n]

    return make


@pytest.fixture
def quiet() -> Iterator[None]:
    """Opening an experimental store warns; `test_opening.py` has that."""
    with quietly():
        yield
