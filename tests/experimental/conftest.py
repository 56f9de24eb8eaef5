"""The stores whose databases cannot be run here, on doubles of them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

MODULES = {
    "elasticsearch": "search_engines",
    "opensearch": "search_engines",
    "pinecone": "pinecone",
    "weaviate": "weaviate",
}
NAMES = [
    "elasticsearch-llama-index-cosine",
    "elasticsearch-llama-index-l2",
    "elasticsearch-langchain-dot",
    "elasticsearch-langchain-exact",
    "opensearch-llama-index-l2",
    "opensearch-llama-index-cosine",
    "opensearch-langchain-dot",
    "opensearch-langchain-cosine",
    "pinecone-llama-index-cosine",
    "pinecone-langchain-dot",
    "pinecone-langchain-l2",
    "weaviate-llama-index-cosine",
    "weaviate-langchain-dot",
    "weaviate-langchain-l2-named",
]


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Doubles on loopback, each started at its first use and stopped at the end."""
    from tests.store_builders.common import Servers

    modules = {importlib.import_module(f"tests.store_builders.{name}") for name in MODULES.values()}
    starters = {name: start for module in modules for name, start in module.STARTERS.items()}
    running = Servers(starters, tmp_path_factory)
    yield running
    running.stop()


@pytest.fixture
def build(tmp_path: Path, servers: Any) -> Callable[[str, int], Any]:
    """Build a store by name with n nodes."""
    from tests.store_builders.common import calls

    def make(name: str, n: int) -> Any:
        module = importlib.import_module(f"tests.store_builders.{MODULES[name.partition('-')[0]]}")
        builder, options = module.BUILDERS[name]
        made = builder(tmp_path, n, servers, **options)
        calls.clear()
        return made

    return make


@pytest.fixture(params=NAMES)
def built(request: pytest.FixtureRequest, build: Callable[[str, int], Any]) -> Any:
    """Every store in turn, with 60 nodes."""
    return build(request.param, 60)
