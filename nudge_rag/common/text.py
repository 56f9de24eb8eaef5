"""Wording that messages share."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["preview"]


def preview(ids: Sequence[str], shown: int = 5) -> str:
    """Name the first few of ``ids`` and say how many more there are.

    Example:
        >>> preview(["a", "b"])
        "'a', 'b'"
        >>> preview(list("abcdefg"), 2)
        "'a', 'b' and 5 more"
    """
    more = f" and {len(ids) - shown} more" if len(ids) > shown else ""
    return ", ".join(repr(node_id) for node_id in ids[:shown]) + more
