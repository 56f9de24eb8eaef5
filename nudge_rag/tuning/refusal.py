"""Why a push of a nudge would write nothing: no step helps, or something would be lost."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

from nudge_rag.journal.journal import Journal
from nudge_rag.solvers import Candidate
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.tuning.gate import LiveComparison, count_forgotten

__all__ = ["describe_losses", "describe_no_step", "why_nothing_moves"]


def describe_no_step(tried: Sequence[Candidate]) -> str:
    """Say why a nudge moves nothing.

    Args:
        tried: the settings that it was chosen from, if there were several.

    Example:
        >>> describe_no_step([])
        'gamma is 0: no step helped on the validation queries'
    """
    reasons = {
        "tolerance": "no step that helps spares the queries whose answers have no label (tune with a larger"
        " uncovered_tolerance= to allow for that)",
        "uncovered": "what queries with labelled answers would gain, those without would lose (tune with"
        " uncovered_share= if you know how many these are)",
        "validation": "no step helped on the validation queries",
    }
    return f"gamma is 0: {reasons[why_nothing_moves(tried)]}"


def why_nothing_moves(tried: Sequence[Candidate]) -> Literal["tolerance", "uncovered", "validation"]:
    """What kept every setting from being chosen: the tolerance, what uncovered queries lose, or that none helps.

    Example:
        >>> why_nothing_moves([Candidate("nudge-n", 0.1, 0.8, covered=0.02, expected=-0.01, allowed=True)])
        'uncovered'
    """
    held_back = [setting for setting in tried if not setting.allowed and (setting.gamma or setting.expected)]
    # Archives of before have no expected gain.
    if any(setting.expected is None or setting.expected > 0 for setting in held_back):
        return "tolerance"
    if any(setting.expected is not None and (setting.covered or 0.0) > 0 for setting in tried):
        return "uncovered"
    return "validation"


def describe_losses(
    store: EmbeddingStore, versions: Path | None, compared: LiveComparison | None, query_hashes: Collection[str]
) -> str | None:
    """Say what a push would make worse; None if it makes nothing worse.

    Args:
        store: the vector store.
        versions: folder of the history of its pushes; None for its own.
        compared: the new vectors against those that were live when they were made; None if nothing was.
        query_hashes: of the queries that the new vectors were made from.

    Raises:
        JournalError: the history cannot be read.
    """
    reasons = []
    live = Journal.open(store, versions).live if query_hashes or compared is not None else None
    if compared is not None and compared.is_worse and live is not None and compared.version in (None, live.name):
        reasons.append(f"it is worse than what is live: {compared.scores}")
    forgotten, known = (0, 0)
    if live is not None and query_hashes:
        forgotten, known = count_forgotten(live.manifest["details"], query_hashes)
    if live is not None and forgotten:
        reasons.append(
            f"it would forget {forgotten:,} of the {known:,} queries that version {live.name}, which is live, was"
            " made from: tune again, on their pairs as well"
        )
    return "; ".join(reasons) or None
