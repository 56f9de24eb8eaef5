"""What a store must know of a framework's object in memory: its dictionary, its file and its stamps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nudge_rag.stores.stamps import Stamps

__all__ = ["FrameworkObject"]


class FrameworkObject(ABC):
    """How one framework's object keeps its nodes; a subclass for each framework says it.

    Attributes:
        vector_store: the live object.
    """

    vector_store: Any

    @abstractmethod
    def _contents(self) -> dict[str, Any]:
        """The dictionary by node id that is live."""

    @abstractmethod
    def _assign(self, contents: dict[str, Any]) -> None:
        """Make ``contents`` the live ones, in one assignment."""

    @abstractmethod
    def _holding(self, vectors: Mapping[str, list[float]]) -> dict[str, Any]:
        """Return the live contents in a new dictionary, with ``vectors`` for the nodes that are among them."""

    @abstractmethod
    def _object_with(self, contents: dict[str, Any]) -> Any:
        """An object like the framework's, with these contents."""

    @abstractmethod
    def _vectors_of(self, held: Any) -> Mapping[str, list[float]]:
        """Vectors by node id in such an object."""

    @abstractmethod
    def _writer(self, held: Any) -> Callable[[str], Any]:
        """Writes such an object to a file."""

    @abstractmethod
    def _loaded(self, path: Path) -> Any:
        """Such an object from a file."""

    @abstractmethod
    def _entries(self, held: Any) -> dict[str, Any]:
        """All that such an object knows of each node, to be compared."""

    @abstractmethod
    def _take(self, names: list[str], held: Any) -> None:
        """Put nodes of such an object into the live one, with all that it knows of them."""

    @abstractmethod
    def _stamps(self, held: Any) -> Stamps:
        """The stamps in such an object, as it was loaded from a file."""

    @abstractmethod
    def _put_stamps(self, held: Any, stamps: Stamps) -> None:
        """Let such an object have these stamps alone."""

    @abstractmethod
    def _with_own_entries(self, held: Any) -> Any:
        """Return an object like that, whose stamps can be set without a change to it."""

    @abstractmethod
    def _forget(self, names: list[str]) -> None:
        """Remove nodes from the live object."""
