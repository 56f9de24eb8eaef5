"""The forms in which applications name a node that was shown."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Real

from nudge_rag.feedback.log import ShownNode
from nudge_rag.feedback.reading import checked_id

__all__ = ["Shown", "known_score", "shown_nodes"]

Shown = ShownNode | tuple[str, float | None] | str


def known_score(score: object) -> float | None:
    """Return a score as a float; None for NaN and the infinities, which say nothing and JSON cannot hold.

    Raises:
        TypeError: it is no number.
    """
    if score is None:
        return None
    if isinstance(score, bool) or not isinstance(score, Real):
        raise TypeError(f"a score must be a number, got {score!r:.200}")
    try:
        number = float(score)
    except OverflowError:  # an integer that no float holds
        return None
    return number if math.isfinite(number) else None


def shown_nodes(nodes: Iterable[Shown]) -> list[ShownNode]:
    """Return the nodes shown, in order.

    Raises:
        TypeError: one text instead of several; an id or a score of the wrong type.
        ValueError: a blank id.
    """
    if isinstance(nodes, str):
        raise TypeError(f"shown must list the nodes shown, got the text {nodes!r:.100}")
    return [_as_shown(node) for node in nodes]


def _as_shown(node: Shown) -> ShownNode:
    """Make a `ShownNode` of (node id, score) or a node id.

    Raises:
        TypeError: an id or a score of the wrong type.
        ValueError: a blank id.
    """
    if isinstance(node, ShownNode):
        return node
    if isinstance(node, tuple):
        if len(node) != 2:
            raise ValueError(f"a node shown must be an id or (id, score), got {node!r:.200}")
        return ShownNode(checked_id(node[0], "node_id"), known_score(node[1]))
    return ShownNode(checked_id(node, "node_id"))
