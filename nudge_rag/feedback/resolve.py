"""Finds the nodes that texts belong to, for sources that record texts without node ids."""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

from nudge_rag.common.text import preview
from nudge_rag.feedback.log import FeedbackLog, ShownNode
from nudge_rag.feedback.rows import fold

__all__ = ["Resolution", "TextResolver"]

# Shorter texts are in many nodes by chance.
SHORTEST_PART = 20
SEPARATOR = "\x00"


@dataclass(frozen=True)
class Resolution:
    """What became of the texts that were looked for.

    Attributes:
        exact: texts that are a node's, character for character.
        normalised: texts that are a node's but for case, spacing and compatibility characters.
        contained: texts that are part of one node's, or have one node's as a part.
        ambiguous: texts that several nodes fit, with their ids; none of them was chosen.
        missing: texts that no node fits.
    """

    exact: int = 0
    normalised: int = 0
    contained: int = 0
    ambiguous: tuple[tuple[str, tuple[str, ...]], ...] = ()
    missing: tuple[str, ...] = ()

    def __str__(self) -> str:
        found = self.exact + self.normalised + self.contained
        parts = [f"{found} texts found ({self.exact} exact, {self.normalised} normalised, {self.contained} contained)"]
        if self.ambiguous:
            text, nodes = self.ambiguous[0]
            parts.append(f"{len(self.ambiguous)} fit several nodes, such as {text[:60]!r}: {preview(nodes)}")
        if self.missing:
            parts.append(f"{len(self.missing)} fit none, such as {self.missing[0][:60]!r}")
        return "; ".join(parts)


class TextResolver:
    """Looks up the node of a text: the same text, the same but for case and spacing, or a unique part of it.

    Args:
        texts: node id to its text; nodes without one are left out.

    Example:
        >>> resolver = TextResolver({"a": "How to leave the contract early", "b": "How to pay", "c": "How to pay"})
        >>> resolver.find("how to  LEAVE the contract early"), resolver.find("How to pay"), resolver.find("else")
        ('a', None, None)
        >>> print(resolver.resolution)
        1 texts found (0 exact, 1 normalised, 0 contained); 1 fit several nodes, such as 'How to pay': 'b', 'c'; 1 fit
        none, such as 'else'
    """

    def __init__(self, texts: Mapping[str, str | None]) -> None:
        self._exact: dict[str, list[str]] = {}
        self._normalised: dict[str, list[str]] = {}
        for node, text in texts.items():
            if text is not None and text.strip():
                self._exact.setdefault(text, []).append(node)
                self._normalised.setdefault(fold(text), []).append(node)
        self._joined = SEPARATOR.join(self._normalised)
        self._starts = [0, *accumulate(len(text) + 1 for text in self._normalised)]
        self._in_order = list(self._normalised)
        self._counts = {"exact": 0, "normalised": 0, "contained": 0}
        self._answers: dict[str, tuple[str, ...]] = {}

    def find(self, text: str) -> str | None:
        """Return the node of a text; None if none or several fit."""
        nodes = self.candidates(text)
        return nodes[0] if len(nodes) == 1 else None

    def candidates(self, text: str) -> tuple[str, ...]:
        """Return all nodes that fit a text, by the strictest of the three rules by which any does."""
        if text not in self._answers:
            rule, nodes = self._look_up(text)
            self._answers[text] = tuple(nodes)
            if len(nodes) == 1:
                self._counts[rule] += 1
        return self._answers[text]

    @property
    def resolution(self) -> Resolution:
        """What became of all texts looked for so far, each counted once."""
        several = tuple((text, nodes) for text, nodes in self._answers.items() if len(nodes) > 1)
        return Resolution(
            **self._counts, ambiguous=several, missing=tuple(text for text, nodes in self._answers.items() if not nodes)
        )

    def resolve(self, log: FeedbackLog) -> tuple[FeedbackLog, Resolution]:
        """Give the nodes of a log that were recorded by text their ids."""

        def node_of(node: ShownNode) -> str | None:
            return node.node_id if node.node_id is not None or not node.text else self.find(node.text)

        return log.map_nodes(node_of), self.resolution

    def _look_up(self, text: str) -> tuple[str, list[str]]:
        if text in self._exact:
            return "exact", self._exact[text]
        folded = fold(text)
        if folded in self._normalised:
            return "normalised", self._normalised[folded]
        if len(folded) < SHORTEST_PART:
            return "contained", []
        found = [self._in_order[row] for row in self._rows_with(folded)]
        if not found:
            found = [node for node in self._in_order if len(node) >= SHORTEST_PART and node in folded]
        return "contained", [node for text in found for node in self._normalised[text]]

    def _rows_with(self, part: str) -> list[int]:
        """Rows of the texts that a part is in."""
        rows = []
        place = self._joined.find(part)
        while place >= 0:
            row = bisect.bisect_right(self._starts, place) - 1
            rows.append(row)
            place = self._joined.find(part, self._starts[row + 1])
        return rows
