"""The ``nudge-rag`` command: one file a group of commands, argparse, and imports only where a command needs them."""

from nudge_rag.cli.command import main

__all__ = ["main"]
