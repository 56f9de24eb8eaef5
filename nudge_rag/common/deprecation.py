"""Old names that go on working, with a warning that points at the caller."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from nudge_rag.common.caller import warn_caller

__all__ = ["renamed_argument", "warn_renamed"]

P = ParamSpec("P")
R = TypeVar("R")


def warn_renamed(old: str, new: str) -> None:
    """Warn that ``old`` is the former name of ``new``."""
    warn_caller(f"{old} is deprecated: use {new}", DeprecationWarning)


def renamed_argument(old: str, new: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function take the keyword ``old`` for ``new``, with a DeprecationWarning.

    Raises:
        TypeError: at the call, if both are given.

    Example:
        >>> import warnings
        >>> @renamed_argument("root", "versions")
        ... def rollback(versions): return versions
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     rollback(root="folder")
        'folder'
        >>> print(caught[0].message)
        rollback(root=) is deprecated: use versions=
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        name = function.__qualname__.removesuffix(".__init__")

        @functools.wraps(function)
        def with_old_name(*args: P.args, **kwargs: P.kwargs) -> R:
            if old in kwargs:
                if new in kwargs:
                    raise TypeError(f"{name}() got {new}= and also {old}=, its deprecated name")
                warn_renamed(f"{name}({old}=)", f"{new}=")
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return with_old_name

    return decorate
