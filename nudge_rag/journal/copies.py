"""The steps of a version beside the live one: write it, compare the two, swap them, and put right what died half-way.

The caller holds the lock of the store's journal.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nudge_rag.common.arrays import FloatArray
from nudge_rag.journal.manifest import (
    COMMITTED,
    IN_PLACE,
    PREPARED,
    ROLLED_BACK,
    SUPERSEDED,
    SWITCHED,
    SWITCHING,
    VERIFIED,
    WRITING,
)
from nudge_rag.journal.versions import JournalError, PushError, Version, versions
from nudge_rag.stores.access import reading, same_vectors
from nudge_rag.stores.base import EmbeddingStore, SideBySideStore, StoreError

__all__ = [
    "compare",
    "drop_copy",
    "keep",
    "labels_of",
    "recover_beside",
    "require_atomic_switch",
    "require_copies",
    "require_not_switched",
    "swap",
    "undo_switch",
    "write_beside",
]

logger = logging.getLogger(__name__)

NODES_PER_STEP = 5_000
STORES = "SimpleVectorStore, InMemoryVectorStore, Chroma, FAISS, PostgreSQL, LanceDB, and by an alias Milvus and Qdrant"


@dataclass
class Differences:
    """Nodes by which two versions differ though they should not; empty lists where there are none."""

    only_live: list[str] = field(default_factory=list)
    only_copy: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.only_live or self.only_copy or self.changed)

    def __str__(self) -> str:
        parts = (self.only_live, "only in the live version"), (self.only_copy, "only in the copy beside it")
        told = [(ids, what) for ids, what in (*parts, (self.changed, "changed")) if ids]
        return ", ".join(
            f"{len(ids)} node(s) {what}: {', '.join(map(repr, ids[:5]))}{' ...' if len(ids) > 5 else ''}"
            for ids, what in told
        )


def require_copies(store: EmbeddingStore) -> SideBySideStore:
    """``store``, where it holds two versions of its vectors. Raises ValueError where it does not."""
    if not store.capabilities.side_by_side or not isinstance(store, SideBySideStore):
        raise ValueError(
            f"this {store.name} store does not hold two versions of its vectors: use mode={IN_PLACE!r}. Side by side"
            f" works on {STORES}"
        )
    return store


def require_atomic_switch(store: EmbeddingStore) -> None:
    """Raise ValueError where ``store`` swaps its versions in more steps than one."""
    if not store.capabilities.atomic_switch:
        raise ValueError(
            f"this {store.name} store cannot swap two versions in one step: while it switches, whoever opens it may"
            " find nothing; pass accept_gap=True to switch all the same"
        )


def require_not_switched(live: Version | None) -> None:
    """Raise PushError where ``live`` was made live by a switch: a push over it could not be switched back."""
    if live is not None and live.is_beside:
        raise PushError(
            f"version {live.name} was made live by switch(): undo it with rollback(), or keep it with drop_beside(),"
            " and push then; nothing was written"
        )


def write_beside(store: EmbeddingStore, version: Version, every: Sequence[Version]) -> None:
    """Copy all nodes, write the moved vectors to the copy, and compare both with what they must hold.

    Raises:
        PushError: the store failed, or was written to in the meantime; the copy is dropped.
    """
    for waiting in every:
        if waiting.is_beside and waiting.state == COMMITTED:
            drop_copy(store, waiting)
            waiting.set_state(ROLLED_BACK)
    version.set_state(WRITING)
    try:
        copy = require_copies(store).create_copy(version.label)
        copy.replace(version.ids, version.after)
        found = compare(store, copy, version.ids, version.before, version.after)
    except Exception as error:
        raise PushError(
            f"{store.name} failed while a copy was written ({error}): {_give_up(store, version)}"
        ) from error
    if found:
        raise PushError(f"the copy is not what it should be ({found}): {_give_up(store, version)}; push again")
    try:
        version.set_state(VERIFIED)
    except JournalError as error:
        raise PushError(f"the journal cannot be written to ({error.__cause__}): {_give_up(store, version)}") from error
    version.set_state(COMMITTED)


def _give_up(store: EmbeddingStore, version: Version) -> str:
    try:
        drop_copy(store, version)
    except Exception as error:
        logger.warning("dropping the copy %s failed: %s", version.label, error)
        return "the live version is as it was; the next push drops the copy"
    with contextlib.suppress(OSError):  # the next call looks again
        version.set_state(ROLLED_BACK)
    return "the live version is as it was, the copy is dropped"


def compare(
    live: EmbeddingStore, copy: EmbeddingStore, ids: Sequence[str], here: FloatArray, there: FloatArray
) -> Differences:
    """Where the two versions differ, but for ``ids``, which must be ``here`` in the live one and ``there`` in the copy.

    Reads both versions once, a few thousand nodes at a time.
    """
    found, at = Differences(), {node_id: place for place, node_id in enumerate(ids)}
    n_live = 0
    for names, vectors in live.scan(NODES_PER_STEP):
        n_live += len(names)
        present = copy.matching(names, None)
        found.only_live += [node_id for node_id in names if node_id not in present]
        rows = [row for row, node_id in enumerate(names) if node_id in present]
        kept = [names[row] for row in rows]
        mine, theirs = vectors[rows], copy.read(kept)
        moved = [(row, at[node_id]) for row, node_id in enumerate(kept) if node_id in at]
        wanted_mine, wanted_theirs = theirs.copy(), theirs.copy()
        for row, place in moved:
            wanted_mine[row], wanted_theirs[row] = here[place], there[place]
        if not (same_vectors(live, mine, wanted_mine) and same_vectors(copy, theirs, wanted_theirs)):
            found.changed += [
                node_id
                for row, node_id in enumerate(kept)
                if not same_vectors(live, mine[row], wanted_mine[row])
                or not same_vectors(copy, theirs[row], wanted_theirs[row])
            ]
    if copy.count() != n_live - len(found.only_live):
        found.only_copy += _absent(live, copy)
    return found


def _absent(live: EmbeddingStore, copy: EmbeddingStore) -> Iterator[str]:
    for names, _ in copy.scan(NODES_PER_STEP):
        present = live.matching(names, None)
        yield from (node_id for node_id in names if node_id not in present)


def swap(store: EmbeddingStore, version: Version, state: str) -> None:
    """Swap the live version and the copy of ``version``, which is then ``state`` (switched, or committed again).

    Raises:
        PushError: the store failed; the journal says which of the two is live.
    """
    version.set_state(SWITCHING)
    try:
        require_copies(store).switch(version.label)
    except Exception as error:
        if settle(store, version) != state:
            raise PushError(f"{store.name} did not switch: {error}") from error
    else:
        version.set_state(state)


def settle(store: EmbeddingStore, version: Version) -> str:
    """Find out from the vectors which of the two versions is live, record it, and return the state.

    Raises:
        PushError: the vectors are those of neither, or the store failed.
    """
    telling = [at for at in range(len(version.ids)) if not same_vectors(store, version.before[at], version.after[at])]
    try:
        present = store.matching([version.ids[at] for at in telling], None)
        telling = [at for at in telling if version.ids[at] in present]
        vectors = store.read([version.ids[at] for at in telling])
    except Exception as error:
        raise PushError(
            f"{store.name} failed while it was asked whether version {version.name} is live ({error}): a later call"
            " asks again"
        ) from error
    # Nodes that were embedded again hold neither; they have no say.
    nudged, original = (
        sum(same_vectors(store, vector, known[at]) for at, vector in zip(telling, vectors, strict=True))
        for known in (version.after, version.before)
    )
    if nudged == original:
        raise PushError(
            f"cannot tell whether version {version.name} is live: {nudged} of its nodes hold what it wrote, {original}"
            f" what was there before"
        )
    version.set_state(SWITCHED if nudged > original else COMMITTED)
    return version.state


def recover_beside(store: EmbeddingStore, root: str | Path) -> None:
    """Put right what died: a copy half written is dropped, a switch is recorded as the store shows it.

    Warns:
        UserWarning: what was found, and what was done.
    """
    every = versions(store, root)
    for version in every:
        if not version.is_beside or version.state == ROLLED_BACK:
            continue
        done = _put_right(store, version, every)
        if done:
            name = version.folder.parent.name
            warnings.warn(f"push {version.name} beside {name} had not finished; {done}", stacklevel=6)


def _put_right(store: EmbeddingStore, version: Version, every: Sequence[Version]) -> str:
    if version.state in (PREPARED, WRITING):
        drop_copy(store, version)
        version.set_state(ROLLED_BACK)
        return "its copy was not complete: it is dropped"
    if version.state == VERIFIED:
        version.set_state(COMMITTED)
        return "it had written everything: it is ready beside the live version"
    done = []
    if version.state == SWITCHING:
        labels_of(store)  # where it puts its own parts of a switch right first, for the vectors to be read
        live = "it" if settle(store, version) == SWITCHED else "the version before"
        done.append(f"it died while it was switched: the store shows that {live} is live")
    if version.label not in labels_of(store):
        if version.state == SWITCHED:
            keep(version, every)
            done.append("the version before is no longer beside it: it is kept as a push in place")
        else:
            version.set_state(ROLLED_BACK)
            done.append("its copy is no longer there: nothing waits to be switched to")
    return "; ".join(done)


def undo_switch(store: EmbeddingStore, root: str | Path, first: int) -> Version | None:
    """Switch back where a version with that number or a later one is live by a switch, and return it.

    Where that would lose nodes, the version is made one that was pushed in place, for the caller to roll back as such.

    Raises:
        PushError, StoreError: the store failed; a later call starts again.

    Warns:
        UserWarning: it is not switched back, and why.
    """
    recover_beside(store, root)
    every = versions(store, root)
    live = next((one for one in every if one.is_beside and one.state == SWITCHED), None)
    if live is None or live.number < first:
        return None
    with reading(store, "its versions were compared"):
        copy = require_copies(store).open_copy(live.label)
        why: object = compare(store, copy, live.ids, live.after, live.before)
    if not why:
        try:
            swap(store, live, COMMITTED)
        except PushError as error:
            if not isinstance(error.__cause__, StoreError):
                # A lost connection is no reason to write back what can be switched back, in one step, later.
                raise
            # What the database itself found to be lost; the version is still live.
            why = error
        else:
            return live
    keep(live, every)
    warnings.warn(
        f"version {live.name} cannot be switched back without a loss ({why}): vectors are written back instead",
        stacklevel=3,
    )
    return None


def keep(version: Version, every: Sequence[Version]) -> None:
    """Record a switched version as one that was pushed in place: rollback writes its originals back."""
    version.manifest["mode"] = IN_PLACE
    version.set_state(COMMITTED)
    for one in every:
        if one.number < version.number and not one.is_beside and one.state == COMMITTED:
            one.set_state(SUPERSEDED)


def labels_of(store: EmbeddingStore) -> list[str]:
    """Labels of the versions beside the live one. Raises StoreError where the store fails."""
    with reading(store, "the versions beside it were listed"):
        return require_copies(store).copy_labels()


def drop_copy(store: EmbeddingStore, version: Version) -> None:
    """Remove the version of that label, where it is still there.

    Raises:
        PushError: the store failed; the journal is as it was, and a later call drops the copy.
        StoreError: the store failed before anything was removed.
    """
    if version.label not in labels_of(store):
        return
    try:
        require_copies(store).drop_copy(version.label)
    except (ValueError, TypeError, StoreError):
        raise
    except Exception as error:
        raise PushError(
            f"{store.name} failed while the copy of version {version.name} was dropped ({error}): a later call drops it"
        ) from error
