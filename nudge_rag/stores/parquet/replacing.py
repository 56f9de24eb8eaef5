"""Rewrite files of a store, and let the new ones count in place of the old ones, in one step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from nudge_rag.stores.base import StoreError
from nudge_rag.stores.lake.executors import map_fragments
from nudge_rag.stores.parquet.counting import CountingFiles
from nudge_rag.stores.parquet.fragments import ChangedError, ParquetFragment
from nudge_rag.stores.parquet.rewriting import Rewrite
from nudge_rag.stores.parquet.snapshots import Replacement

__all__ = ["TRIES", "rewrite_files"]

TRIES = 5


def rewrite_files(
    files: CountingFiles,
    affected: Callable[[dict[str, ParquetFragment]], set[str] | None],
    function: Callable[[Rewrite, Any], Any],
    question: Any,
    label: str,
    executor: Executor | None,
) -> list[Any]:
    """Rewrite files of this version, and let the new ones count in the version ``label``.

    Args:
        files: of this version.
        affected: says which of the files, by the paths of the user's; None for all.
        function: writes one anew.
        question: what it is told.
        label: of the version in which they count.
        executor: calls it.

    Returns:
        The function's results.
    """
    for _ in range(TRIES):
        with contextlib.suppress(ChangedError):
            results = _try_to_rewrite(files, affected, function, question, label, executor)
            if results is not None:
                return results
    raise StoreError(f"others write to the files of {files.source.root} again and again: nothing was written")


def _try_to_rewrite(
    files: CountingFiles,
    affected: Callable[[dict[str, ParquetFragment]], set[str] | None],
    function: Callable[[Rewrite, Any], Any],
    question: Any,
    label: str,
    executor: Executor | None,
) -> list[Any] | None:
    """As `rewrite_files`; None if somebody else wrote to one of the files meanwhile."""
    folder = files.beside()
    states = files.source.now()
    whole = files.whole_files(states=states)
    chosen = affected(whole)
    paths = [path for path in whole if chosen is None or path in chosen]
    new = folder.new_folder()
    targets = [f"{new}/{files.name_of(path)}" for path in paths]
    tasks = [Rewrite(whole[path], target) for path, target in zip(paths, targets, strict=True)]
    results = [result for _, result in sorted(map_fragments(function, tasks, question, executor))]
    now = files.source.now()
    if any(now.get(path) != states.get(path) for path in paths):
        return None
    snapshots = folder.load()
    made = {
        files.key_of(path): Replacement(target, states[path])
        for path, target, result in zip(paths, targets, results, strict=True)
        if result or chosen is None
    }
    base = {} if chosen is None else snapshots.view(label)
    folder.save(snapshots.changed({**snapshots.views, label: {**base, **made}}))
    return results
