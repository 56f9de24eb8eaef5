"""The builders on doubles that are here, as parameters of tests; for the others, skips that say why."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.builders.registry import BUILDERS, EXPERIMENTAL, MISSING, builders


def only(names: list[str]) -> list[Any]:
    """Parameters for those builders that are here, and for each other one a skip with the reason."""
    return [
        name if name in BUILDERS else pytest.param(name, marks=pytest.mark.skip(reason=why(name.partition("-")[0])))
        for name in names
    ]


def every() -> list[Any]:
    """All builders that are here, and for each store that has none a skip with the reason."""
    missing = [store for store in EXPERIMENTAL if store in MISSING]
    skips = [pytest.param(store, marks=pytest.mark.skip(reason=why(store))) for store in missing]
    return [*builders(experimental=True), *skips]


def why(store: str) -> str:
    return f"{store}: {MISSING.get(store, 'no such builder')}; python scripts/environment.py experimental"
