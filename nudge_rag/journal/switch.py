"""Make a version that was pushed side by side live, and clean up after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nudge_rag.common.caller import warn_caller
from nudge_rag.common.deprecation import renamed_argument, warn_renamed
from nudge_rag.errors import PushError
from nudge_rag.journal.copy_notes import LabelNotes
from nudge_rag.journal.copy_recovery import record_as_in_place
from nudge_rag.journal.differences import find_differences
from nudge_rag.journal.late_copies import find_unnoted, settle_late_writes
from nudge_rag.journal.manifest import COMMITTED, SWITCHED
from nudge_rag.journal.recovery import locked_journal
from nudge_rag.journal.side_by_side import (
    drop_copy,
    labels_of,
    require_atomic_switch,
    require_copies,
    require_not_switched,
)
from nudge_rag.journal.swapping import find_outdated, swap
from nudge_rag.journal.versions import Version
from nudge_rag.stores.access import reading
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.stores.copies import CatchingUpStore

__all__ = ["SwitchReceipt", "drop_beside", "drop_copies", "switch"]


@dataclass(frozen=True)
class SwitchReceipt:
    """The result of a switch.

    Attributes:
        version: the version that is live now.
        nodes: number of nodes whose vectors the push moved.
        caught_up: number of nodes that were added, changed or deleted since the push, and were brought over.
    """

    version: str
    nodes: int
    caught_up: int = 0

    def __str__(self) -> str:
        late = f" {self.caught_up:,} nodes written since the push were brought over." if self.caught_up else ""
        return f"Version {self.version} is live; {self.nodes:,} nodes differ from the version before.{late}"


@renamed_argument("root", "versions")
def switch(store: EmbeddingStore, versions: str | Path | None = None, *, accept_gap: bool = False) -> SwitchReceipt:
    """Make the version that ``push(mode="side-by-side")`` wrote live, in one atomic step; `rollback` switches back.

    Readers of the store see one version or the other, never a mixture. Nodes that were added, deleted or embedded again
    since the push are brought over, those that are written during the switch too: the newer vector always wins, mapped
    if all nodes are.

    Args:
        store: the vector store.
        versions: the folder of the history; None for the store's own.
        accept_gap: switch also if the store takes more steps than one for it (``capabilities.atomic_switch``): between
            them, a process that opens the store by its name does not find it. Still nobody sees a mixture. A `rollback`
            has that gap again.

    Raises:
        PushError: nothing waits beside, the store did not switch, or no node has the vector any more that it was made
            from; or another version is live in place than when it was made, since a push or rollback.
        ValueError: a store that can hold no copy, or does not swap it in one step.
        StoreError: the store failed while the two were compared.
        LockedError: another push or rollback is under way.
        JournalError: the history is elsewhere, or cannot be read or written to.
        CorruptArchiveError: the record of a push is damaged.
    """
    require_copies(store)
    if not accept_gap:
        require_atomic_switch(store)
    with locked_journal(store, versions) as journal:
        require_not_switched(_first(journal.versions, SWITCHED))
        ready = _first(journal.versions, COMMITTED)
        if ready is None:
            raise PushError(f"nothing waits beside {journal.name}: push(mode='side-by-side') first")
        with reading(store, "its versions were compared"):
            found: object = find_outdated(journal, ready) or find_unnoted(journal, ready)
            if not found and not isinstance(store, CatchingUpStore):
                copy = require_copies(store).open_copy(ready.label)
                found = find_differences(store, copy, ready.ids, ready.before, ready.after)
        if found:
            raise PushError(
                f"the store is no longer what version {ready.name} was made from ({found}); nothing was switched: push"
                " again, side by side"
            )
        n_caught_up = swap(journal, ready, SWITCHED)
    return SwitchReceipt(ready.name, ready.n_nodes, n_caught_up)


@renamed_argument("root", "versions")
def drop_copies(store: EmbeddingStore, versions: str | Path | None = None, *, force: bool = False) -> tuple[str, ...]:
    """Remove versions that side-by-side pushes left beside the live one, and free their space.

    A version that waited to be switched to is discarded. One that is live stays so, and counts from then on as one that
    was pushed in place: `rollback` writes the original vectors, which are in the journal, back.

    If copies are collections (Chroma, Qdrant, Milvus), somebody who opened one while it was live may go on writing to
    it: what was written there since is brought to the live version first.

    Args:
        store: the vector store.
        versions: the folder of the history; None for the store's own.
        force: drop copies also if somebody writes to them, or if it cannot be told whether anybody has.

    Returns:
        The names of the versions whose copies were removed.

    Raises:
        ValueError: a store that can hold no copy.
        PushError: the store failed, and a later call starts again; somebody is writing to a copy now; or a copy, of
            which nothing is noted, holds what the live version does not.
        StoreError: likewise, while it was read.
        LockedError: another push or rollback is under way.
        JournalError: the history is elsewhere, or cannot be read or written to.
    """
    require_copies(store)
    with locked_journal(store, versions) as journal:
        labels = labels_of(store)
        dropped = [version for version in journal.versions if version.label and version.label in labels]
        for version in dropped:
            n_late = settle_late_writes(journal, version, force=force)
            if n_late:
                warn_caller(
                    f"{n_late} node(s) had been written to the copy of version {version.name} since it was live: they"
                    " are brought over to the live version"
                )
            if version.is_beside and version.state == SWITCHED:
                # First in the journal: a rollback that finds the copy gone writes the vectors back.
                record_as_in_place(journal, version)
            drop_copy(store, version)
            LabelNotes(journal.storage, version.label).forget()
            if version.is_beside:
                version.retire()
        journal.thin_out()
    return tuple(version.name for version in dropped)


@renamed_argument("root", "versions")
def drop_beside(store: EmbeddingStore, versions: str | Path | None = None) -> tuple[str, ...]:
    """Deprecated name of `drop_copies`."""
    warn_renamed("drop_beside()", "drop_copies()")
    return drop_copies(store, versions)


def _first(every: Sequence[Version], state: str) -> Version | None:
    return next((version for version in every if version.is_beside and version.state == state), None)
