"""Copies that catch up with the live version before they are switched to, and a mixin that delegates copies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np

from nudge_rag.common.arrays import BoolArray, FloatArray

__all__ = [
    "CatchingUpStore",
    "CopiesMixin",
    "CopyNotes",
    "DerivedNodes",
    "DerivingStore",
    "MovedNodes",
    "NodesOfCopy",
    "StoreOfCollections",
    "SwitchableCopies",
    "unknown_copy",
]


@dataclass(frozen=True)
class MovedNodes:
    """The nodes by which a copy is to differ from the live version.

    Attributes:
        ids: of the nodes, each once.
        live: (len(ids), d) their vectors in the live version, of the store's dtype.
        copy: (len(ids), d) their vectors in the copy.
    """

    ids: Sequence[str]
    live: FloatArray
    copy: FloatArray

    @cached_property
    def rows(self) -> dict[str, int]:
        """Row of each id."""
        return {node_id: row for row, node_id in enumerate(self.ids)}

    def reversed(self) -> MovedNodes:
        """The same nodes, seen from the copy."""
        return MovedNodes(self.ids, self.copy, self.live)

    def wanted(
        self,
        names: Sequence[str],
        live: FloatArray,
        same: Callable[[FloatArray, FloatArray], Sequence[bool] | BoolArray],
        copied: FloatArray | None = None,
    ) -> FloatArray:
        """Say what the copy must hold: its own vector of a node that has not changed, the live one of all others.

        Args:
            names: ids of nodes.
            live: (len(names), d) the vectors that the live version holds now.
            same: compares two arrays row by row, to the store's rounding.
            copied: (len(names), d) those of the copy; not needed.

        Returns:
            Array (len(names), d).

        Example:
            >>> moved = MovedNodes(["a", "b"], np.eye(2), np.eye(2)[::-1])
            >>> now = np.array([[1.0, 0.0], [5.0, 5.0], [7.0, 7.0]])
            >>> moved.wanted(["a", "b", "c"], now, lambda one, other: (one == other).all(axis=1)).tolist()
            [[0.0, 1.0], [5.0, 5.0], [7.0, 7.0]]
        """
        vectors = np.array(live)
        here = [place for place, name in enumerate(names) if name in self.rows]
        there = [self.rows[names[place]] for place in here]
        if here:
            for place, row, unchanged in zip(here, there, same(vectors[here], self.live[there]), strict=True):
                if unchanged:
                    vectors[place] = self.copy[row]
        return vectors


@dataclass(frozen=True)
class DerivedNodes:
    """All nodes, of which one version's vectors are made of the other's.

    Attributes:
        make: ids and vectors (n, d) of the one version to those of the other, as the store keeps them.
        is_made: vectors as found and as made, to whether they are the same but for last bits, row by row.
        to_copy: whether the copy is made of the live version; else the live version was made of the copy.

    Example:
        >>> double = DerivedNodes(lambda names, rows: 2 * rows, lambda one, other: (one == other).all(axis=1))
        >>> double.wanted(["a"], np.array([[3.0]]), None, np.array([[np.nan]])).tolist()
        [[6.0]]
        >>> double.reversed().wanted(["a", "b"], np.array([[6.0], [7.0]]), None, np.array([[3.0], [3.0]])).tolist()
        [[3.0], [7.0]]
    """

    make: Callable[[Sequence[str], FloatArray], FloatArray]
    is_made: Callable[[FloatArray, FloatArray], BoolArray]
    to_copy: bool = True

    def reversed(self) -> DerivedNodes:
        """The same nodes, seen from the copy."""
        return DerivedNodes(self.make, self.is_made, not self.to_copy)

    def wanted(
        self,
        names: Sequence[str],
        live: FloatArray,
        same: object,
        copied: FloatArray,
    ) -> FloatArray:
        """Say what the copy must hold: what is made of the live vectors, or its own if those were made of it.

        If the live vector was not made of that of the copy, it is newer, and the copy gets it as it is.

        Args:
            names: ids of nodes.
            live: (len(names), d) the vectors that the live version holds now.
            same: not needed.
            copied: (len(names), d) those of the copy; NaN for a node that it does not have.

        Returns:
            Array (len(names), d).
        """
        if self.to_copy:
            wanted = self.make(names, live)
            kept = self.is_made(copied, wanted)
        else:
            wanted = np.array(live)
            kept = self.is_made(live, self.make(names, copied))
        wanted[kept] = copied[kept]
        return wanted


# The nodes by which a copy is to differ from the live version.
NodesOfCopy: TypeAlias = MovedNodes | DerivedNodes


@runtime_checkable
class DerivingStore(Protocol):
    """A store that makes every vector of a copy while it copies, in bounded memory."""

    def derive_copy(self, label: str, make: Callable[[Sequence[str], FloatArray], FloatArray]) -> int:
        """Write ``make`` of the ids and vectors of all nodes to a copy ``label``; gives the number of nodes.

        A leftover of that label is replaced.
        """
        ...


class CopyNotes(Protocol):
    """What is remembered of a copy from one call to the next, durably."""

    def read(self) -> bytes | None:
        """Read what was noted; None if nothing was."""
        ...

    def write(self, content: bytes) -> None:
        """Note ``content``, in place of what was there."""
        ...


@runtime_checkable
class CatchingUpStore(Protocol):
    """A store whose copies catch up with the live version when they are switched to."""

    def catch_up_and_switch(self, label: str, moved: NodesOfCopy, notes: CopyNotes) -> int:
        """Bring nodes added, changed and deleted since the copy was made into the copy ``label``, and swap the two.

        What is written while they are swapped is in the version that is live afterwards. A node of ``moved`` that no
        longer has its vector in ``moved.live`` was changed by somebody else, whose vector it keeps.

        Args:
            label: of the copy.
            moved: the nodes by which the two may differ.
            notes: of this copy.

        Returns:
            How many nodes were caught up.

        Raises:
            ValueError: no copy of that label.
            StoreError: the database does not allow it; nothing was switched.
        """
        ...


@runtime_checkable
class StoreOfCollections(Protocol):
    """A store whose copies are collections, to which somebody who opened one before a switch may still write."""

    def bring_late_writes(self, label: str, moved: NodesOfCopy, notes: CopyNotes) -> int | None:
        """Bring what was written to the copy ``label`` since it ceased to be live to the live version.

        A node that was changed in the live version as well keeps that vector.

        Args:
            label: of the copy.
            moved: the nodes by which the two differ.
            notes: of this copy.

        Returns:
            How many nodes were brought over; None if nothing is noted of the copy, so that nothing can be told.
        """
        ...


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
