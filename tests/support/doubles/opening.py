"""How a builder on a double opens its store: without the warning that it is experimental."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import langchain_nudge
from llama_index.retrievers import nudge as llama_index_nudge

from nudge_rag.stores import EmbeddingStore
from tests.support.builders.common import Built

EMBEDDING_STORE: dict[str, Callable[[Any], EmbeddingStore]] = {
    "llama-index": llama_index_nudge.embedding_store,
    "langchain": langchain_nudge.embedding_store,
}


@contextmanager
def quietly() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*adapter is experimental")
        yield


class OfFramework(Built):
    """A store under test whose tests use its framework's vector store as well."""

    framework: Any


def opened(framework: Any, by: str, *args: Any) -> OfFramework:
    """The store of the vector store ``framework``; ``args`` are what `Built` takes after it."""
    with quietly():
        built = OfFramework(EMBEDDING_STORE[by](framework), *args)
    built.framework = framework
    return built
