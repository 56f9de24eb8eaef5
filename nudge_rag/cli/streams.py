"""Write to standard output and error whatever they are: closed, full, or of an encoding that lacks signs."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable
from typing import Any, TextIO

__all__ = ["as_document", "as_plain", "show_lines", "silence", "write_stream"]

# What JSON leaves as it is and a terminal obeys: control characters, directions, and halves of characters.
_OBEYED = re.compile("[\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def write_stream(stream: TextIO | None, text: str) -> None:
    """Write and flush; signs that the stream's encoding lacks are written as escapes.

    Raises:
        OSError: the stream is closed, broken or full.
    """
    if stream is None or stream.closed:  # Python has none if the process was started without
        raise OSError("it is closed")
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()


def silence(stream: TextIO | None) -> None:
    """Let what is still buffered go nowhere, for it would fail again when the process ends."""
    try:
        if stream is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):  # a stream of a test or a notebook has no file
        return


def show_lines(text: str) -> str:
    r"""Return ``text`` with its lines, and with control and direction characters of others as escapes.

    Example:
        >>> show_lines("a node:\n\x1b[2Jgone")
        'a node:\n\\x1b[2Jgone'
    """
    from nudge_rag.common.text import printable

    return "\n".join(printable(line) for line in text.split("\n"))


def as_document(values: Any) -> str:
    r"""Return JSON that every reader takes and no terminal obeys.

    Example:
        >>> as_document({"id": "\x9b2J"})
        '{\n  "id": "\\u009b2J"\n}\n'
    """
    document = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False, default=str)
    return _OBEYED.sub(lambda match: f"\\u{ord(match.group()):04x}", document) + "\n"


def as_plain(value: Any, change: Callable[[str], str]) -> Any:
    """Return plain values with every text changed, and None for a number that JSON does not know.

    Names of fields stay, for programs read them; what is no identifier may be a text of others, and is changed.
    """
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {
            name if str(name).isidentifier() else change(str(name)): as_plain(part, change)
            for name, part in value.items()
        }
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return [as_plain(part, change) for part in value] if isinstance(value, list | tuple) else value
