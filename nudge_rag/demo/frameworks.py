"""What the demo asks of a framework, and how each one builds its index in its own way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nudge_rag.demo.attack import Attack
from nudge_rag.demo.encoder import CachedEncoder
from nudge_rag.feedback.pairs import Split
from nudge_rag.stores import EmbeddingStore
from nudge_rag.tuning.nudge import Nudge

__all__ = ["STORES", "Application", "build_application", "check_choice"]

Search = Callable[[str, int], list[str]]

STORES = {"llama-index": ("chroma", "simple"), "langchain": ("chroma", "in-memory")}


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


def check_choice(framework: str, store: str | None) -> str:
    """The store to use; ValueError for one that the framework does not have."""
    if framework not in STORES:
        raise ValueError(f"framework must be one of {', '.join(STORES)}, got {framework!r}")
    chosen = store or STORES[framework][0]
    if chosen not in STORES[framework]:
        raise ValueError(f"{framework} has the stores {' and '.join(STORES[framework])}, got {chosen!r}")
    return chosen


def build_application(framework: str, store: str, attack: Attack, encoder: CachedEncoder, folder: Path) -> Application:
    """Index the techniques in ``folder`` with ``framework``. ImportError names the command that installs it."""
    try:
        if framework == "llama-index":
            from nudge_rag.demo.llama_index import build
        else:
            from nudge_rag.demo.langchain import build
    except ImportError as error:
        packages = "'nudge-rag[demo]' llama-index-retrievers-nudge langchain-nudge"
        raise ImportError(f"the demo needs its packages: pip install {packages} ({error})") from error
    return build(store, attack, encoder, folder)
