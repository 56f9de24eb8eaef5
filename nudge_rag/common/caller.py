"""Warnings that point at the caller's line, however deep in the library they are raised."""

from __future__ import annotations

import sys
import warnings
from types import FrameType

__all__ = ["OWN_PACKAGES", "warn_caller"]

OWN_PACKAGES = ("nudge_rag", "langchain_nudge", "llama_index.retrievers.nudge")
# A context manager's body runs below a frame of the standard library, and a retriever below frames of its framework:
# what it does at its start below those of pydantic, and a search in LlamaIndex below those that trace it.
FRAMEWORKS = ("pydantic", "langchain_core", "llama_index.core", "llama_index_instrumentation", "wrapt")
SKIPPED = (*OWN_PACKAGES, "contextlib", *FRAMEWORKS)


def warn_caller(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn with the first frame outside the library as the place, as pandas does.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warn_caller("old name", DeprecationWarning)
        >>> print(caught[0].category.__name__, caught[0].message)
        DeprecationWarning old name
    """
    warnings.warn(message, category, stacklevel=_levels_above())


def _levels_above() -> int:
    """Number of frames from `warn_caller` to the first one outside the library, counted as ``stacklevel`` does."""
    level = 1
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_skipped(frame):
        frame = frame.f_back
        level += 1
    return level


def _is_skipped(frame: FrameType) -> bool:
    module = frame.f_globals.get("__name__", "")
    return any(module == package or module.startswith(f"{package}.") for package in SKIPPED)
