"""What the caller gives to embed texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from numpy.typing import ArrayLike

__all__ = ["EmbedQueries", "model_name_of"]

# Texts to (m, d) query embeddings, by the model that the application searches with.
EmbedQueries: TypeAlias = Callable[[list[str]], ArrayLike]

# The name that LlamaIndex gives a model without one.
NAMELESS = "unknown"


def model_name_of(model: Any) -> str | None:
    """Return the name of a framework's embedding model, or None if it has none.

    Example:
        >>> import types
        >>> model_name_of(types.SimpleNamespace(model_name="all-MiniLM-L6-v2"))
        'all-MiniLM-L6-v2'
        >>> model_name_of(types.SimpleNamespace(model_name="unknown")) is None
        True
    """
    name = getattr(model, "model_name", None) or getattr(model, "model", None)
    return name if isinstance(name, str) and name != NAMELESS else None
