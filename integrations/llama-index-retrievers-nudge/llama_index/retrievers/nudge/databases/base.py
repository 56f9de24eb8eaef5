"""What each database's integration calls its parts: its adapter, its filters, and how its nodes are fetched by id."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llama_index.core.schema import BaseNode

from nudge_rag.stores import EmbeddingStore

__all__ = ["Database", "get_nodes"]


@dataclass(frozen=True)
class Database:
    """How to work with one LlamaIndex vector store class.

    Attributes:
        adapter: vector store to `EmbeddingStore`.
        where: vector store, query and the retriever's ``vector_store_kwargs`` to the adapter's filter.
        nodes: vector store and ids to nodes, in any order; None where text is kept in the docstore.
        keeps_no_metadata: whether filters look into the index's docstore, which ``where`` is then given.
    """

    adapter: Callable[[Any], EmbeddingStore]
    where: Callable[..., Any]
    nodes: Callable[[Any, list[str]], list[BaseNode]] | None
    keeps_no_metadata: bool = False


def get_nodes(vector_store: Any, ids: list[str]) -> list[BaseNode]:
    """Fetch nodes by id, as the integration itself does."""
    nodes: list[BaseNode] = vector_store.get_nodes(node_ids=ids)
    return nodes
