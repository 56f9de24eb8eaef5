"""Refuse keyword arguments that do not exist, and name the one that may be meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

__all__ = ["refuse_unknown_options"]


def refuse_unknown_options(function: str, given: Iterable[str], known: Sequence[str]) -> None:
    """Refuse the first name that is ``given`` to ``function`` and is not ``known``.

    Raises:
        TypeError: there is one.

    Example:
        >>> refuse_unknown_options("tune", ["sed"], ["seed", "solver"])
        Traceback (most recent call last):
        ...
        TypeError: tune() has no option 'sed'; did you mean 'seed'?
    """
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(known)}"
            raise TypeError(f"{function}() has no option {name!r}; {hint}")
