"""Mixin for adapters that delegate their copies to a helper object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

__all__ = ["CopiesMixin", "SwitchableCopies", "unknown_copy"]


class SwitchableCopies(Protocol):
    """The copies of a store, by label."""

    def labels(self) -> list[str]:
        """Labels of all copies."""
        ...

    def switch(self, label: str) -> None:
        """Swap the live version and the copy ``label``."""
        ...

    def drop(self, label: str) -> None:
        """Remove the copy ``label``."""
        ...


class CopiesMixin:
    """The part of a `SideBySideStore` that is passed on to ``_copies``."""

    _copies: SwitchableCopies

    def copy_labels(self) -> list[str]:
        """Labels of the copies."""
        return self._copies.labels()

    def switch(self, label: str) -> None:
        """Swap the live version and the copy ``label``.

        Raises:
            ValueError: no copy of that label.
            StoreError: more than vectors would be lost.
        """
        self._copies.switch(label)

    def drop_copy(self, label: str) -> None:
        """Remove the copy ``label``.

        Raises:
            ValueError: there is none.
        """
        self._copies.drop(label)


def unknown_copy(label: str, labels: Sequence[str], of: str) -> ValueError:
    """The error for a copy that does not exist.

    Args:
        label: the label that was asked for.
        labels: those that exist.
        of: name of the thing that was copied, such as a collection.

    Example:
        >>> print(unknown_copy("c", ["a", "b"], "docs"))
        there is no version 'c' of 'docs'; there are a, b
    """
    return ValueError(f"there is no version {label!r} of {of!r}; there are {', '.join(labels) or 'none'}")
