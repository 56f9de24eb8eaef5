"""The stores whose databases cannot be run here, on doubles of their REST APIs: skipped where a client is missing."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CLIENTS = {
    "elasticsearch": ("search_engines", ["langchain_elasticsearch", "llama_index.vector_stores.elasticsearch"]),
    "opensearch": ("search_engines", ["opensearchpy", "llama_index.vector_stores.opensearch"]),
    "pinecone": ("pinecone", ["langchain_pinecone", "llama_index.vector_stores.pinecone"]),
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
]


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Doubles on loopback, each started at its first use and stopped at the end."""
    for package in [name for _, packages in CLIENTS.values() for name in packages]:
        pytest.importorskip(package, reason=f"{package} is not installed: pip install -e '.[test-experimental]'")
    from tests.store_builders.common import Servers

    modules = {importlib.import_module(f"tests.store_builders.{name}") for name, _ in CLIENTS.values()}
    starters = {name: start for module in modules for name, start in module.STARTERS.items()}
    running = Servers(starters, tmp_path_factory)
    yield running
    running.stop()


@pytest.fixture
def build(tmp_path: Path, servers: Any) -> Callable[[str, int], Any]:
    """Build a store by name with n nodes."""
    from tests.store_builders.common import calls

    def make(name: str, n: int) -> Any:
        module = importlib.import_module(f"tests.store_builders.{CLIENTS[name.partition('-')[0]][0]}")
        builder, options = module.BUILDERS[name]
        made = builder(tmp_path, n, servers, **options)
        calls.clear()
        return made

    return make


@pytest.fixture(params=NAMES)
def built(request: pytest.FixtureRequest, build: Callable[[str, int], Any]) -> Any:
    """Every store in turn, with 60 nodes."""
    return build(request.param, 60)
