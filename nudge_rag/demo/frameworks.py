"""Choose a framework and a store for the demo, and build its application with them."""

from __future__ import annotations

from pathlib import Path

from nudge_rag.demo.application import Application
from nudge_rag.demo.attack import Attack
from nudge_rag.demo.encoder import CachedEncoder
from nudge_rag.errors import MissingPackageError

__all__ = ["STORES", "build_application", "check_choice"]

STORES = {"llama-index": ("chroma", "simple"), "langchain": ("chroma", "in-memory")}


def check_choice(framework: str, store: str | None) -> str:
    """Return the store to use, the framework's first one if ``store`` is None.

    Raises:
        ValueError: an unknown framework, or a store that it does not have.
    """
    if framework not in STORES:
        raise ValueError(f"framework must be one of {', '.join(STORES)}, got {framework!r}")
    chosen = store or STORES[framework][0]
    if chosen not in STORES[framework]:
        raise ValueError(f"{framework} has the stores {' and '.join(STORES[framework])}, got {chosen!r}")
    return chosen


def build_application(framework: str, store: str, attack: Attack, encoder: CachedEncoder, folder: Path) -> Application:
    """Index the techniques in ``folder`` with ``framework``.

    Raises:
        MissingPackageError: the framework or its store is not installed.
    """
    try:
        if framework == "llama-index":
            from nudge_rag.demo.llama_index import build
        else:
            from nudge_rag.demo.langchain import build
    except ImportError as error:
        raise MissingPackageError(
            f"the demo ({error})", "nudge-rag[demo] llama-index-retrievers-nudge langchain-nudge"
        ) from error
    return build(store, attack, encoder, folder)
