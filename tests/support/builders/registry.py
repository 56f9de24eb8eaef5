"""Every builder whose packages are installed here; of the others, why they are left out."""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders.common import Built

# Stores whose databases cannot be run here: they are built on doubles, and tested in tests/stores/experimental.
EXPERIMENTAL = ("elasticsearch", "opensearch", "pinecone", "weaviate")
BUILDERS: dict[str, tuple[Callable[..., Built], dict[str, Any]]] = {}
STARTERS: dict[str, Callable[[Path], tuple[Any, Any]]] = {}
# The store, named as its file of builders is, to which each builder belongs.
STORE_OF: dict[str, str] = {}
# Stores whose packages are not installed, and why that is known.
MISSING: dict[str, str] = {}
# Stores that must be tested: where one is not, that is an error and no omission.
REQUIRED = set(os.environ.get("NUDGE_RAG_STORES", "").split())
OURS = ("tests", "nudge_rag", "langchain_nudge", "llama_index.retrievers")


def load(module: str) -> None:
    store = module.replace("_", "-")
    try:
        found = importlib.import_module(f"tests.support.builders.{module}")
    except ModuleNotFoundError as error:
        if str(error.name).startswith(OURS):
            raise
        MISSING[store] = f"no module named {error.name}"
        return
    BUILDERS.update(getattr(found, "BUILDERS", {}))
    STORE_OF.update(dict.fromkeys(getattr(found, "BUILDERS", {}), store))
    if hasattr(found, "start_server"):
        STARTERS[module] = found.start_server


for file in pkgutil.iter_modules([str(Path(__file__).parent)]):
    if file.name not in ("common", "registry"):
        load(file.name)
lost = sorted(REQUIRED - set(STORE_OF.values()))
if lost:
    reasons = "; ".join(f"{store}: {MISSING.get(store, 'there is no such file of builders')}" for store in lost)
    raise pytest.UsageError(f"NUDGE_RAG_STORES names stores that cannot be tested here: {reasons}")


def here(kinds: dict[str, str]) -> list[str]:
    """Those kinds of vector store, given with the file of builders that shares their packages, that can be made."""
    return [kind for kind, store in kinds.items() if store not in MISSING]


def builders(*, experimental: bool = False) -> list[str]:
    """The builders that are here, on real databases or else on doubles."""
    return [name for name, store in STORE_OF.items() if (store in EXPERIMENTAL) == experimental]
