"""What the demo asks of an application, whatever framework it is built with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nudge_rag.feedback.pairs import Split
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.tuning.nudge import Nudge

__all__ = ["Application", "Search"]

Search = Callable[[str, int], list[str]]


@dataclass(frozen=True)
class Application:
    """A small RAG application, seen from the demo.

    Attributes:
        store: the adapter of its vector store.
        tune: labelled pairs and a solver's name to a nudge, through the framework's own embedding model.
        search: query and k to node ids, through the framework's `NudgeRetriever`.
        contents: node id to text and metadata as the framework stores them, for proving that nothing else changed.
    """

    store: EmbeddingStore
    tune: Callable[[Split, str], Nudge]
    search: Search
    contents: Callable[[], dict[str, str]]
