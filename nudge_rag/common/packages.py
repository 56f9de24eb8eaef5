"""Import optional packages, with one error if they are not installed."""

from __future__ import annotations

import importlib
from typing import Any

from nudge_rag.errors import MissingPackageError

__all__ = ["import_package"]


def import_package(module: str, purpose: str, extra: str) -> Any:
    """Import an optional module.

    Args:
        module: its dotted name.
        purpose: what needs it, such as ``"ChromaStore.open"``.
        extra: the extra of nudge-rag that installs it.

    Returns:
        The module.

    Raises:
        MissingPackageError: it is not installed; names the pip command.

    Example:
        >>> import_package("json", "this example", "simple").__name__
        'json'
        >>> import_package("no_such_module", "it", "simple")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        nudge_rag.errors.MissingPackageError: ...
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackageError(purpose, f"nudge-rag[{extra}]") from error
