"""What the caller gives to embed texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from numpy.typing import ArrayLike

__all__ = ["EmbedQueries"]

# Texts to (m, d) query embeddings, by the model that the application searches with.
EmbedQueries: TypeAlias = Callable[[list[str]], ArrayLike]
