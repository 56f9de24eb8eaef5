"""The forms in which applications name a node that was shown."""

from __future__ import annotations

from nudge_rag.feedback.log import ShownNode
from nudge_rag.feedback.reading import checked_id

__all__ = ["Shown", "as_shown"]

Shown = ShownNode | tuple[str, float | None] | str


def as_shown(node: Shown) -> ShownNode:
    """Make a `ShownNode` of (node id, score) or a node id.

    Raises:
        TypeError: an id or a score of the wrong type.
        ValueError: a blank id.
    """
    if isinstance(node, ShownNode):
        return node
    if isinstance(node, tuple):
        return ShownNode(checked_id(node[0], "node_id"), None if node[1] is None else float(node[1]))
    return ShownNode(checked_id(node, "node_id"))
