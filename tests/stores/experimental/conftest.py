"""The stores whose databases cannot be run here, on doubles of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support import fixtures as store_fixtures
from tests.support.builders.registry import builders
from tests.support.doubles.registry import every

build = store_fixtures.build
build_once = store_fixtures.build_once
built_stores = store_fixtures.built_stores
quiet = store_fixtures.quiet
servers = store_fixtures.servers

# In the main environment none of their packages is installed; the end of the run says so.
collect_ignore_glob = [] if builders(experimental=True) else ["test_*.py"]


@pytest.fixture(params=every())
def built(request: pytest.FixtureRequest, build: Callable[[str, int], Any]) -> Any:
    """Every store in turn, with 60 nodes."""
    return build(request.param, 60)


@pytest.fixture(params=every())
def untouched(request: pytest.FixtureRequest, build_once: Callable[[str, int], Any]) -> Any:
    """Every store in turn, with 60 nodes, shared by the tests that change nothing in it."""
    return build_once(request.param, 60)
