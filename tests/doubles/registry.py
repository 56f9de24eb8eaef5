"""The builders on doubles whose packages are installed here; of the others, why they are left out."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.store_builders.common import Built

# Each is a file of tests/store_builders.
STORES = ("elasticsearch", "opensearch", "pinecone", "weaviate")
BUILDERS: dict[str, tuple[Callable[..., Built], dict[str, Any]]] = {}
STARTERS: dict[str, Callable[[Path], tuple[Any, Any]]] = {}
# The store to which each builder belongs.
STORE_OF: dict[str, str] = {}
# Stores whose packages are not installed, and why that is known.
MISSING: dict[str, str] = {}
# Stores that must be tested: where one is not, that is an error and no omission.
REQUIRED = set(os.environ.get("NUDGE_RAG_STORES", "").split())
OURS = ("tests", "nudge_rag", "langchain_nudge", "llama_index.retrievers")


def load(store: str) -> None:
    try:
        found = importlib.import_module(f"tests.store_builders.{store}")
    except ModuleNotFoundError as error:
        if str(error.name).startswith(OURS):
            raise
        MISSING[store] = f"no module named {error.name}"
        return
    BUILDERS.update(found.BUILDERS)
    STORE_OF.update(dict.fromkeys(found.BUILDERS, store))
    if hasattr(found, "start_server"):
        STARTERS[store] = found.start_server


for name in STORES:
    load(name)
if lost := sorted(REQUIRED & set(MISSING)):
    reasons = "; ".join(f"{store}: {MISSING[store]}" for store in lost)
    raise pytest.UsageError(f"NUDGE_RAG_STORES names stores that cannot be tested here: {reasons}")


def only(names: list[str]) -> list[Any]:
    """Parameters for those builders that are here, and for each other one a skip with the reason."""
    return [
        name if name in BUILDERS else pytest.param(name, marks=pytest.mark.skip(reason=why(name.partition("-")[0])))
        for name in names
    ]


def every() -> list[Any]:
    """All builders that are here, and for each store that has none a skip with the reason."""
    skips = [pytest.param(store, marks=pytest.mark.skip(reason=why(store))) for store in MISSING]
    return [*BUILDERS, *skips]


def why(store: str) -> str:
    return f"{store}: {MISSING.get(store, 'no such builder')}; pip install -e '.[test-experimental]'"
