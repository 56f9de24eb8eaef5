"""Every store, made by the framework that ships it, with the same nodes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support import fixtures as store_fixtures
from tests.support.builders.common import Built
from tests.support.builders.registry import builders

build = store_fixtures.build
build_once = store_fixtures.build_once
built_stores = store_fixtures.built_stores
servers = store_fixtures.servers


@pytest.fixture(params=builders())
def built(request: pytest.FixtureRequest, build: Callable[[str, int], Built]) -> Built:
    """Every store in turn, with 60 nodes."""
    return build(request.param, 60)


@pytest.fixture(params=builders())
def untouched(request: pytest.FixtureRequest, build_once: Callable[[str, int], Built]) -> Built:
    """Every store in turn, with 60 nodes, shared by the tests that change nothing in it."""
    return build_once(request.param, 60)
