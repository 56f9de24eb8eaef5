"""What the caller gives to embed texts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from numpy.typing import ArrayLike

__all__ = ["EmbedQueries", "ModelQueries", "model_name_of"]

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


@dataclass(frozen=True, eq=False)
class ModelQueries:
    """Query embeddings by a framework's model, which is known by the object.

    Attributes:
        model: the framework's object.
        embed: texts to (m, d) query embeddings by it.
        probe: the same without a cache, for a few texts that the model is known by; None for ``embed``.

    Example:
        >>> ModelQueries(object(), lambda texts: [[1.0]] * len(texts))(["text"])
        [[1.0]]
    """

    model: Any
    embed: EmbedQueries
    probe: EmbedQueries | None = None

    def __call__(self, texts: list[str]) -> ArrayLike:
        """Embed query texts."""
        return self.embed(texts)
