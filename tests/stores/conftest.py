"""Every store, made by the framework that ships it, with the same nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.store_builders.common import Built, Servers, calls
from tests.store_builders.registry import BUILDERS, STARTERS, STORE_OF, builders


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Real servers on loopback, each started at its first use and stopped at the end."""
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


@pytest.fixture(params=builders())
def built(request: pytest.FixtureRequest, build: Callable[[str, int], Built]) -> Built:
    """Every store in turn, with 60 nodes."""
    return build(request.param, 60)
