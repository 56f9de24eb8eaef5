"""Every error of the library, with one base to catch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

__all__ = [
    "CorruptArchiveError",
    "JournalAccessError",
    "JournalError",
    "LockedError",
    "LostHistoryError",
    "MissingPackageError",
    "NudgeError",
    "PushError",
    "StoreError",
    "UnknownIdError",
]


class NudgeError(Exception):
    """Base of the errors that nudge-rag raises itself; bad arguments are a plain TypeError or ValueError.

    Example:
        >>> issubclass(StoreError, NudgeError), issubclass(MissingPackageError, ImportError)
        (True, True)
    """


class CorruptArchiveError(NudgeError, ValueError):
    """Raised if a manifest or its arrays are missing, malformed, or do not belong together."""


class LockedError(NudgeError, RuntimeError):
    """Raised if another process holds a lock for longer than the caller is willing to wait."""


class MissingPackageError(NudgeError, ImportError):
    """Raised if an optional package is not installed; names the command that installs it.

    Args:
        purpose: what needs the package, such as ``"the demo"``.
        requirement: what pip is to install, such as ``"nudge-rag[demo]"``; several if separated by a space.

    Example:
        >>> print(MissingPackageError("chroma://", "nudge-rag[chroma]"))
        chroma:// needs a package that is not installed: pip install 'nudge-rag[chroma]'
    """

    def __init__(self, purpose: str, requirement: str) -> None:
        quoted = " ".join(f"'{part}'" if "[" in part else part for part in requirement.split())
        super().__init__(f"{purpose} needs a package that is not installed: pip install {quoted}")


class PushError(NudgeError, RuntimeError):
    """Raised if a store did not take the vectors, or must not; says what state it was left in."""


class JournalError(PushError, OSError):
    """Raised if the journal cannot be written to, such as on a full disk; says what it still records."""


class JournalAccessError(JournalError, PermissionError):
    """Raised if the system lets the journal not be read or written to."""


class LostHistoryError(JournalError):
    """Raised if a store holds what a push wrote, and has no history of it, or an older one: it would pass for original.

    Attributes:
        folder: the history as the store's file names it, if it is there; None otherwise.
    """

    def __init__(self, problem: str, folder: Path | None = None) -> None:
        super().__init__(problem)
        self.folder = folder


class StoreError(NudgeError, RuntimeError):
    """Raised if a database fails: a lost connection, or an answer that does not fit the question."""


class UnknownIdError(NudgeError, ValueError):
    """Raised if ids are not in the store; names the first few and counts them all.

    Attributes:
        ids: the unknown ids, all of them.

    Example:
        >>> print(UnknownIdError(["a", "b"], "chroma"))
        2 id(s) are not in chroma: 'a', 'b'
    """

    def __init__(self, ids: Sequence[str], store: str) -> None:
        self.ids = list(ids)
        # As `nudge_rag.common.text.preview`, which stands a floor above.
        more = f" and {len(ids) - 5} more" if len(ids) > 5 else ""
        super().__init__(f"{len(ids)} id(s) are not in {store}: {', '.join(map(repr, self.ids[:5]))}{more}")
