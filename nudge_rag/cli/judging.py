"""``--judge``: the application's own pipeline decides, as ``tune(judge=)``."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nudge_rag.cli.outcome import UsageError
from nudge_rag.cli.resources import framework_of, load_object, open_framework_store

if TYPE_CHECKING:
    from nudge_rag.tuning.judge import Judge

__all__ = ["load_judge"]

# What each framework's judge is called with.
VIEWS = {"llama_index.retrievers.nudge": "JudgedIndex", "langchain_nudge": "JudgedVectorStore"}


def load_judge(name: str | None, store: str, model: str, versions: Any = None) -> Judge | None:
    """Return the function that ``module:function`` names, which takes a store and returns a retriever over it.

    If STORE is an object of a framework, the function gets what the framework's ``tune(judge=)`` gives it: a view with
    ``as_retriever(...)``. Queries are embedded by MODEL if that is an object of the framework too, else by the store's
    own model.

    Args:
        name: ``module:function``; None for no judge.
        store: STORE, as the command line names it.
        model: MODEL, likewise.
        versions: folder of the history of pushes.

    Raises:
        UsageError: nothing of that name, or no function.
    """
    if name is None:
        return None
    judge = load_object(name, "the judge")
    if not callable(judge):
        raise UsageError(f"the judge {name} is a {type(judge).__name__} and no function from a store to a retriever")
    framework_store = open_framework_store(store)
    if framework_store is None:
        own: Judge = judge
        return own
    package = framework_of(framework_store)
    view = getattr(importlib.import_module(f"{package}.tuning"), VIEWS[package])
    embedder = _embedder(model, package)
    return lambda judged: judge(view(framework_store, judged.laid_over, embedder, versions))


def _embedder(model: str, package: str) -> Any:
    """The model, if it is an object of the framework; None for the store's own."""
    if ":" not in model:
        return None
    found = load_object(model, "the model")
    found = found() if isinstance(found, type) else found
    method = "embed_query" if package == "langchain_nudge" else "get_query_embedding"
    return found if callable(getattr(found, method, None)) else None
