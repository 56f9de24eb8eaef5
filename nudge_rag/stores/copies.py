"""What of a side-by-side store is another object's work, whatever the database."""

from __future__ import annotations

from typing import Protocol

__all__ = ["CopiesMixin", "SwitchableCopies"]


class SwitchableCopies(Protocol):
    """The versions beside a live one, by label."""

    def labels(self) -> list[str]:
        """Labels of all versions."""
        ...

    def switch(self, label: str) -> None:
        """Swap the live version and the one at ``label``."""
        ...

    def drop(self, label: str) -> None:
        """Remove the version ``label``."""
        ...


class CopiesMixin:
    """The part of a `SideBySideStore` that goes to ``_beside`` as it is."""

    _beside: SwitchableCopies

    def copy_labels(self) -> list[str]:
        """Labels of the versions beside the live one."""
        return self._beside.labels()

    def switch(self, label: str) -> None:
        """Swap the live version and the one at ``label``.

        Raises:
            StoreError: more than vectors would be lost.
        """
        self._beside.switch(label)

    def drop_copy(self, label: str) -> None:
        """Remove the version ``label``.

        Raises:
            ValueError: there is none.
        """
        self._beside.drop(label)
