"""``switch``, ``status``, ``versions``, ``rollback``, ``reapply``: what was pushed, and undoing it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from nudge_rag.cli.outcome import DONE, NO, PARTLY, Outcome
from nudge_rag.cli.resources import add_store, add_yes, confirm, journal_of, open_named_store

if TYPE_CHECKING:
    from nudge_rag.journal.versions import Version

__all__ = ["add_commands"]


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the parsers of the group."""
    status = commands.add_parser("status", help="where the nodes of the last push are now", parents=[common])
    add_store(status)
    status.set_defaults(run=_status)

    versions = commands.add_parser("versions", help="list all pushes", parents=[common])
    add_store(versions)
    versions.set_defaults(run=_versions)

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
    add_yes(reapply)
    reapply.set_defaults(run=_reapply)


def _status(arguments: argparse.Namespace) -> Outcome:
    """Compare what was pushed with what the store holds; ends with 1 if nothing is pushed, 4 if nodes lost it."""
    from nudge_rag.journal.status import status

    found = status(open_named_store(arguments.store), *journal_of(arguments).values())
    names = ("nudged", "lost", "changed", "missing", "edited")
    result: dict[str, Any] = {"version": found.version, "state": found.state, "ready": found.ready}
    result |= {name: list(getattr(found, name)) for name in names}
    code = NO if found.version is None else PARTLY if found.lost or found.changed or found.missing else DONE
    return Outcome(str(found), result, code)


def _versions(arguments: argparse.Namespace) -> Outcome:
    """List the pushes, oldest first."""
    from nudge_rag.journal.versions import versions

    found = versions(open_named_store(arguments.store), *journal_of(arguments).values())
    text = "\n".join(str(version) for version in found) or "nothing was pushed"
    return Outcome(text, {"versions": [_describe(version) for version in found]})


def _describe(version: Version) -> dict[str, Any]:
    return {
        "name": version.name,
        "state": version.state,
        "live": version.is_live,
        "created": version.manifest.get("created"),
        "nodes": len(version.ids),
        "model": version.model,
    }


def _switch(arguments: argparse.Namespace) -> Outcome:
    """Make the copy live."""
    from nudge_rag.journal.status import status
    from nudge_rag.journal.switch import switch

    store, where = open_named_store(arguments.store), journal_of(arguments).values()
    ready = status(store, *where).ready
    if ready is None:
        return Outcome("Nothing waits to be switched to: push --side-by-side first.", {"switched": False}, NO)
    if arguments.dry_run:
        return Outcome(f"Version {ready} would be made live.", {"would_switch": ready})
    if not confirm(arguments, f"Make version {ready} of {store.name} live?"):
        return Outcome("Nothing was switched.", {"switched": False}, NO)
    receipt = switch(store, *where, accept_gap=arguments.accept_gap)
    return Outcome(str(receipt), {"switched": True, "version": receipt.version, "nodes": receipt.nodes})


def _rollback(arguments: argparse.Namespace) -> Outcome:
    """Undo pushes; ends with 1 if nothing is live or vectors are not exact, 4 if nodes were left alone."""
    from nudge_rag.journal.rollback import rollback
    from nudge_rag.journal.versions import versions

    store, where = open_named_store(arguments.store), journal_of(arguments).values()
    live = [version for version in versions(store, *where) if version.is_live]
    if not live and arguments.version is None:
        return Outcome("Nothing was rolled back: no push is live.", {"restored": 0, "version": None}, NO)
    what = f"version {arguments.version} and later ones" if arguments.version else f"version {live[-1].name}"
    if arguments.dry_run:
        nodes = len(live[-1].ids) if live else 0
        return Outcome(f"{what} would be rolled back, {nodes:,} nodes.", {"would_roll_back": what, "nodes": nodes})
    if not confirm(arguments, f"Roll back {what} of {store.name}?"):
        return Outcome("Nothing was rolled back.", {"restored": 0, "version": None}, NO)
    receipt = rollback(store, *where, version=arguments.version)
    result = {
        "restored": receipt.restored,
        "version": receipt.version,
        "exact": receipt.exact,
        "changed_since": list(receipt.changed_since),
        "missing": list(receipt.missing),
    }
    code = NO if not receipt.exact or receipt.version is None else DONE
    if code == DONE and (receipt.changed_since or receipt.missing):
        code = PARTLY
    return Outcome(str(receipt), result, code)


def _reapply(arguments: argparse.Namespace) -> Outcome:
    """Write the nudge to nodes that an ingestion pipeline added again."""
    from nudge_rag.common.text import preview
    from nudge_rag.journal.status import reapply, status

    store, where = open_named_store(arguments.store), journal_of(arguments).values()
    lost = status(store, *where).lost
    if not lost:
        return Outcome("No node has lost its nudge.", {"written": []}, NO)
    if arguments.dry_run:
        return Outcome(
            f"{len(lost):,} node(s) would get their nudge back: {preview(lost)}.", {"would_write": list(lost)}
        )
    if not confirm(arguments, f"Write the nudge to {len(lost):,} node(s) of {store.name} again?"):
        return Outcome("Nothing was written.", {"written": []}, NO)
    written = reapply(store, *where)
    return Outcome(f"{len(written):,} node(s) have their nudge again: {preview(written)}.", {"written": list(written)})
