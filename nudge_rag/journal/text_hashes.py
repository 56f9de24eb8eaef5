"""Hashes of node texts, that tell a node whose text was edited from one that is as it was."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from typing import TypeAlias

__all__ = ["TextsOf", "hash_text", "hash_texts", "skip_unreadable_texts"]

# Node ids to their texts, in the same order; None for a node that has none.
TextsOf: TypeAlias = Callable[[list[str]], Sequence[str | None]]

HEX_DIGITS = 16


def hash_texts(texts_of: TextsOf, ids: Sequence[str]) -> dict[str, str]:
    """The first 16 hex digits of SHA-256 of each node's text; nodes without a text are left out.

    Raises:
        TypeError: ``texts_of`` returns something else than texts and None.
        ValueError: ``texts_of`` does not return one text, or None, per id.

    Example:
        >>> hash_texts(lambda ids: ["some text", None], ["a", "b"])
        {'a': 'b94f6f125c79e3a5'}
    """
    texts = list(texts_of(list(ids)))
    if len(texts) != len(ids):
        raise ValueError(f"texts gave {len(texts)} texts for {len(ids)} ids: one per id is expected, None for no text")
    for text in texts:
        if text is not None and not isinstance(text, str):
            raise TypeError(f"texts must give strings or None, got {type(text).__name__}")
    pairs = zip(ids, texts, strict=True)
    return {node_id: hash_text(text) for node_id, text in pairs if text is not None}


def skip_unreadable_texts(texts_of: TextsOf) -> TextsOf:
    """The same texts; none, with a warning, if they cannot be read: a record without hashes is better than none.

    Warns:
        UserWarning: what failed.
    """

    def texts(ids: list[str]) -> Sequence[str | None]:
        try:
            return texts_of(ids)
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            warnings.warn(f"texts cannot be read, edits of them will not be noticed ({what})", stacklevel=4)
            return [None] * len(ids)

    return texts


def hash_text(text: str) -> str:
    """Return the first 16 hex digits of SHA-256 of ``text``."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:HEX_DIGITS]
