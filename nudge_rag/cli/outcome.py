"""What a command answers: an exit code, a text, and the same as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

__all__ = ["DONE", "FAILED", "INTERRUPTED", "NO", "PARTLY", "USAGE", "Outcome", "UsageError"]

DONE, NO, USAGE, FAILED, PARTLY, INTERRUPTED = 0, 1, 2, 3, 4, 130


class UsageError(Exception):
    """Raised if arguments, files or packages do not fit; the command ends with 2."""


class Outcome(NamedTuple):
    """The answer of a command; no dataclass, whose import would make ``--help`` slower by a tenth.

    Attributes:
        text: for people.
        result: the same as plain values, for ``--json``.
        code: 0 done, 1 the answer is no, 4 done in part.
    """

    text: str
    result: Mapping[str, Any] = MappingProxyType({})
    code: int = DONE
