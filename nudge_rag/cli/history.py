"""``switch``, ``status``, ``versions``, ``rollback``, ``reapply``: what was pushed, and undoing it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from nudge_rag.cli.outcome import DONE, NO, PARTLY, Outcome, UsageError
from nudge_rag.cli.resources import add_store, add_yes, confirm, journal_of, load_model, open_named_store
from nudge_rag.cli.texts import add_texts, load_texts

if TYPE_CHECKING:
    from nudge_rag.journal.versions import Version
    from nudge_rag.stores.base import EmbeddingStore

__all__ = ["add_commands"]


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the parsers of the group."""
    _add_looking(commands, common)
    _add_changing(commands, common)
    _add_mending(commands, common)


def _add_looking(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the commands that write nothing."""
    status = commands.add_parser("status", help="where the nodes of the last push are now", parents=[common])
    add_store(status)
    add_texts(status)
    status.set_defaults(run=_status)

    versions = commands.add_parser("versions", help="list all pushes", parents=[common])
    add_store(versions)
    versions.set_defaults(run=_versions)


def _add_changing(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the commands that change which vectors are live."""
    switch = commands.add_parser("switch", help="make what was pushed side by side live", parents=[common])
    add_store(switch)
    switch.add_argument("--accept-gap", action="store_true", help="also if the store is not found for a moment")
    add_yes(switch)
    switch.set_defaults(run=_switch)

    rollback = commands.add_parser("rollback", help="give nudged nodes their original vectors back", parents=[common])
    add_store(rollback)
    rollback.add_argument("--version", metavar="NAME", help="undo this push and all later ones only")
    add_yes(rollback)
    rollback.set_defaults(run=_rollback)

    reapply = commands.add_parser("reapply", help="write the nudge again to nodes that lost it", parents=[common])
    add_store(reapply)
    add_texts(reapply)
    reapply.add_argument("--model", metavar="MODEL", help="the embedding model, which is compared with the nudge's")
    add_yes(reapply)
    reapply.set_defaults(run=_reapply)


def _add_mending(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the commands that see to the history itself."""
    prune = commands.add_parser("prune", help="remove records of pushes that are over", parents=[common])
    add_store(prune)
    prune.add_argument("--keep", type=int, default=0, metavar="N", help="how many of the newest such records stay")
    add_yes(prune)
    prune.set_defaults(run=_prune)

    drop_copies = commands.add_parser(
        "drop-copies", help="remove copies that side-by-side pushes left beside the live version", parents=[common]
    )
    add_store(drop_copies)
    drop_copies.add_argument("--force", action="store_true", help="also copies that somebody writes to")
    add_yes(drop_copies)
    drop_copies.set_defaults(run=_drop_copies)

    repair = commands.add_parser("repair", help="finish or undo what died, set aside damaged records", parents=[common])
    add_store(repair)
    repair.add_argument("--yes", action="store_true", help="do not ask; needed if standard input is no terminal")
    repair.set_defaults(run=_repair)

    take_over = commands.add_parser(
        "take-over", help="bring a store its history: of a folder, or one that it has left behind", parents=[common]
    )
    add_store(take_over)
    take_over.add_argument(
        "--force", action="store_true", help="if originals are lost, take what is there for the nodes' own"
    )
    take_over.add_argument("--yes", action="store_true", help="do not ask; needed if standard input is no terminal")
    take_over.set_defaults(run=_take_over)


def _status(arguments: argparse.Namespace) -> Outcome:
    """Compare what was pushed with what the store holds; ends with 1 if nothing is pushed, 4 if nodes are not so."""
    from nudge_rag import status

    texts = load_texts(arguments.texts, arguments.store)
    found = status(open_named_store(arguments.store), **journal_of(arguments), texts=texts)
    names = (
        "nudged",
        "lost",
        "changed",
        "missing",
        "edited",
        "unmapped",
        "returned",
        "returned_from",
        "outdated",
        "away",
        "mapped",
    )
    result: dict[str, Any] = {"version": found.version, "state": found.state, "ready": found.ready}
    result |= {name: list(getattr(found, name)) for name in names}
    is_partly = found.lost or found.changed or found.missing or found.unmapped or found.returned or found.outdated
    is_partly = is_partly or found.mapped
    code = PARTLY if is_partly else NO if found.version is None else DONE
    return Outcome(str(found), result, code)


def _versions(arguments: argparse.Namespace) -> Outcome:
    """List the pushes, oldest first."""
    from nudge_rag import versions

    found = versions(open_named_store(arguments.store), **journal_of(arguments))
    text = "\n".join(str(version) for version in found) or "nothing was pushed"
    return Outcome(text, {"versions": [_describe(version) for version in found]})


def _describe(version: Version) -> dict[str, Any]:
    return {
        "name": version.name,
        "state": version.state,
        "live": version.is_live,
        "created": version.manifest.get("created"),
        "nodes": version.n_nodes,
        "model": version.model,
    }


def _switch(arguments: argparse.Namespace) -> Outcome:
    """Make the copy live."""
    from nudge_rag import status, switch

    store, where = open_named_store(arguments.store), journal_of(arguments)
    ready = status(store, **where).ready
    if ready is None:
        return Outcome("Nothing waits to be switched to: push --side-by-side first.", {"switched": False}, NO)
    if arguments.dry_run:
        return Outcome(f"Version {ready} would be made live.", {"would_switch": ready})
    if not confirm(arguments, f"Make version {ready} of {store.name} live?"):
        return Outcome("Nothing was switched.", {"switched": False}, NO)
    receipt = switch(store, **where, accept_gap=arguments.accept_gap)
    return Outcome(str(receipt), {"switched": True, "version": receipt.version, "nodes": receipt.nodes})


def _rollback(arguments: argparse.Namespace) -> Outcome:
    """Undo pushes; ends with 1 if nothing is live or vectors are not exact, 4 if nodes were left alone."""
    from nudge_rag import versions
    from nudge_rag.journal.manifest import SUPERSEDED
    from nudge_rag.journal.rollback import rollback

    store, where = open_named_store(arguments.store), journal_of(arguments)
    recorded = versions(store, **where)
    live = [version for version in recorded if version.is_live]
    has_older = len(live) > 1 or any(version.state == SUPERSEDED for version in recorded)
    what, nodes = f"version {arguments.version} and later ones", live[-1].n_nodes if live else 0
    if arguments.version is None and live:
        what = f"version {live[-1].name}" + (" and those before it" if has_older else "")
    elif arguments.version is None:
        what, nodes = _describe_returned(store, where)
    if not what:
        return Outcome("Nothing was rolled back: no push is live.", {"restored": 0, "version": None}, NO)
    if arguments.dry_run:
        return Outcome(f"{what} would be rolled back, {nodes:,} nodes.", {"would_roll_back": what, "nodes": nodes})
    if not confirm(arguments, f"Roll back {what} of {store.name}?"):
        return Outcome("Nothing was rolled back.", {"restored": 0, "version": None}, NO)
    receipt = rollback(store, **where, version=arguments.version)
    result = {
        "restored": receipt.restored,
        "version": receipt.version,
        "exact": receipt.exact,
        "changed_since": list(receipt.changed_since),
        "missing": list(receipt.missing),
    }
    code = NO if not receipt.exact or (receipt.version is None and not receipt.restored) else DONE
    if code == DONE and (receipt.changed_since or receipt.missing):
        code = PARTLY
    return Outcome(str(receipt), result, code)


def _describe_returned(store: EmbeddingStore, where: dict[str, Any]) -> tuple[str, int]:
    """Name the vectors that a rollback undoes although nothing is live, and count their nodes; empty if there are none.

    Those of a version that is over, and of nodes that were mapped as they were added or had been away.
    """
    from nudge_rag import status

    found = status(store, **where)
    if found.returned:
        return f"what came back of version {' or '.join(found.returned_from)}", len(found.returned)
    if found.mapped:
        return "nodes that were mapped as they were added", len(found.mapped)
    return ("nodes that had been away", len(found.away)) if found.away else ("", 0)


def _reapply(arguments: argparse.Namespace) -> Outcome:
    """Write the nudge to nodes that an ingestion pipeline added again, under whatever ids."""
    from nudge_rag import reapply, status
    from nudge_rag.common.text import preview

    store, where = open_named_store(arguments.store), journal_of(arguments)
    texts = load_texts(arguments.texts, arguments.store)
    found = status(store, **where)
    wanting = [*found.lost, *found.returned, *found.unmapped, *found.mapped] if found.version is not None else []
    looked_for = found.missing if texts is not None else ()
    if not wanting and not looked_for:
        return Outcome("No node has lost its nudge.", {"written": []}, NO)
    what = [f"{len(wanting):,} node(s) would get their nudge: {preview(wanting)}."] if wanting else []
    if looked_for:
        what.append(f"{len(looked_for):,} missing node(s) would be looked for by their texts: {preview(looked_for)}.")
    if arguments.dry_run:
        return Outcome(" ".join(what), {"would_write": wanting, "would_look_for": list(looked_for)})
    if not confirm(arguments, f"Write the nudge to nodes of {store.name} again? {' '.join(what)}"):
        return Outcome("Nothing was written.", {"written": []}, NO)
    embed = None if arguments.model is None else load_model(arguments.model)
    written = reapply(store, **where, texts=texts, embed_queries=embed)
    if not written:
        return Outcome("No node was found that has lost its nudge.", {"written": []}, NO)
    return Outcome(f"{len(written):,} node(s) have their nudge again: {preview(written)}.", {"written": list(written)})


def _prune(arguments: argparse.Namespace) -> Outcome:
    """Remove records that no rollback needs; ends with 1 if there are none."""
    from nudge_rag import prune, versions
    from nudge_rag.common.text import preview

    if arguments.keep < 0:
        raise UsageError(f"--keep must be 0 or more, got {arguments.keep}")
    store, where = open_named_store(arguments.store), journal_of(arguments)
    over = [version.name for version in versions(store, **where) if version.state in ("superseded", "rolled back")]
    over = over[: max(0, len(over) - arguments.keep)]
    if not over:
        return Outcome("No record is over.", {"removed": []}, NO)
    if arguments.dry_run:
        return Outcome(f"Up to {len(over)} record(s) would be removed: {preview(over)}.", {"would_remove": over})
    if not confirm(arguments, f"Remove up to {len(over)} record(s) of pushes to {store.name}?"):
        return Outcome("Nothing was removed.", {"removed": []}, NO)
    removed = prune(store, keep=arguments.keep, **where)
    text = f"{len(removed)} record(s) removed: {preview(removed)}." if removed else "Nothing could be removed yet."
    return Outcome(text, {"removed": list(removed)}, DONE if removed else NO)


def _drop_copies(arguments: argparse.Namespace) -> Outcome:
    """Remove copies; ends with 1 if there are none."""
    from nudge_rag import drop_copies, versions
    from nudge_rag.common.text import preview
    from nudge_rag.journal.manifest import ROLLED_BACK

    store, where = open_named_store(arguments.store), journal_of(arguments)
    if arguments.dry_run:
        recorded = versions(store, **where)
        beside = [version.name for version in recorded if version.is_beside and version.state != ROLLED_BACK]
        text = (
            f"Copies of {len(beside)} version(s) would be removed: {preview(beside)}."
            if beside
            else "There is no copy."
        )
        return Outcome(text, {"would_drop": beside})
    if not confirm(arguments, f"Remove the copies that are beside the live version of {store.name}?"):
        return Outcome("Nothing was removed.", {"dropped": []}, NO)
    dropped = drop_copies(store, force=arguments.force, **where)
    text = (
        f"The copies of {len(dropped)} version(s) removed: {preview(dropped)}." if dropped else "No copy was removed."
    )
    return Outcome(text, {"dropped": list(dropped)}, DONE if dropped else NO)


def _repair(arguments: argparse.Namespace) -> Outcome:
    """Mend the history; ends with 1 if there was nothing to mend, 4 if records were damaged."""
    from nudge_rag import repair

    store = open_named_store(arguments.store)
    if not confirm(arguments, f"Repair the history of {store.name}?"):
        return Outcome("Nothing was repaired.", {"found": []}, NO)
    report = repair(store, **journal_of(arguments))
    code = PARTLY if report.set_aside else DONE if report.found else NO
    return Outcome(str(report), {"found": list(report.found), "set_aside": list(report.set_aside)}, code)


def _take_over(arguments: argparse.Namespace) -> Outcome:
    """Bring a history to the store; ends with 1 if no version came with it."""
    from nudge_rag import take_over
    from nudge_rag.common.text import preview

    store = open_named_store(arguments.store)
    if not confirm(arguments, f"Take over the history of {store.name}?"):
        return Outcome("Nothing was taken over.", {"versions": []}, NO)
    names = take_over(store, force=arguments.force, **journal_of(arguments))
    text = f"{len(names)} version(s) taken over: {preview(names)}." if names else "No version was taken over."
    return Outcome(text, {"versions": list(names)}, DONE if names else NO)
