"""Measure what is live beside the originals and the new vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.caller import warn_caller
from nudge_rag.journal.fingerprints import differing_models
from nudge_rag.journal.journal import Journal
from nudge_rag.tuning.adapters import ADAPTER, unpack_adapter
from nudge_rag.tuning.gate import find_seen, live_queries
from nudge_rag.tuning.trial import Trial

__all__ = ["with_live"]


def with_live(
    trial: Trial,
    versions: Path | None,
    held_out: Mapping[str, str],
    read_current: Callable[[], FloatArray],
    model: Mapping[str, Any],
) -> Trial:
    """Return ``trial`` with what the live version of its store holds, if an earlier push is live.

    Args:
        trial: the originals, and the queries they are measured on.
        versions: the folder of the history; None for the store's own.
        held_out: query id to text of those queries.
        read_current: (n, d) vectors that the store holds of the nodes of the trial; called if a version is live.
        model: of `nudge_rag.journal.fingerprints.describe_model`.

    Raises:
        CorruptArchiveError: the history is damaged.
        JournalError: it is elsewhere, or cannot be read.
        StoreError: the store failed.

    Warns:
        UserWarning: the live version was made for another embedding model.
    """
    live = Journal.open(trial.store, versions).live
    if live is None:
        return trial
    details = live.manifest["details"]
    known, packed = live_queries(details), details.get(ADAPTER)
    differing = differing_models(details, model)
    if differing is not None:
        warn_caller(
            f"version {live.name}, which is live, was made for {differing}. Roll back first if the nodes were embedded"
            " again; a push over it is refused"
        )
    return replace(
        trial,
        live=read_current(),
        live_adapter=None if packed is None else unpack_adapter(packed),
        live_version=live.name,
        seen=find_seen(held_out, known),
    )
