"""Wording that messages share, and texts of others without control characters."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

__all__ = ["preview", "printable", "shorten", "write_text"]

# Joiners that many scripts and emoji need; every other format character can make a text look like another.
JOINERS = "\u200c\u200d"


def printable(text: str) -> str:
    r"""Return ``text`` in one line, with control and direction characters shown as escapes.

    Example:
        >>> printable("two\nlines, \x1b[31mred\u202e")
        'two lines, \\x1b[31mred\\u202e'
    """
    return "".join(" " if sign.isspace() else sign if _is_shown(sign) else _escape(sign) for sign in text)


def _is_shown(sign: str) -> bool:
    return sign in JOINERS or unicodedata.category(sign) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


def _escape(sign: str) -> str:
    return sign.encode("unicode_escape", "surrogatepass").decode("ascii")


def shorten(text: str, width: int) -> str:
    """Return ``text``, cut to ``width`` characters with an ellipsis if it is longer.

    Example:
        >>> shorten("a long sentence", 7), shorten("short", 7)
        ('a long…', 'short')
    """
    return text if len(text) <= width else text[: width - 1] + "…"


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


def write_text(path: Path, content: str) -> None:
    """Write a text file in UTF-8, so that readers see the old file or the new one."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(content, encoding="utf-8", errors="backslashreplace", newline="")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
