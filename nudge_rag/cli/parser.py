"""The parser: options that every command has, and the groups of commands."""

from __future__ import annotations

import argparse
from typing import NoReturn

from nudge_rag.cli import completion, demo, feedback, history, nightly, pairs, report, tuning
from nudge_rag.cli.outcome import UsageError
from nudge_rag.cli.version import ShowVersion

__all__ = ["Parser", "build_parser"]

EPILOG = """\
STORE is the URL of a store (chroma:///data?collection=docs, postgresql://user@host/db?table=docs, ...),
module:object for one that Python code opens, or env:NAME for either in an environment variable; ${NAME} in a URL
is taken from the environment. MODEL is a sentence-transformers folder or module:object.

exit status: 0 done; 1 the answer is no (not better, nothing to do, refused); 2 arguments or packages that do
not fit; 3 failed (store, journal, network, lock); 4 done in part (nodes that changed were left alone);
130 interrupted"""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are exceptions, so that ``--json`` answers on them too."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of writing and exiting."""
        raise UsageError(f"{message}; {self.prog} --help lists what there is")


def build_parser() -> Parser:
    """Return the parser of the whole command."""
    parser = Parser(
        "nudge-rag",
        description="Better retrieval from the feedback you already have.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action=ShowVersion, nargs=0, help="show the version; with --json also what it runs on"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    common = _common_options()
    for group in (tuning, history, report, nightly, pairs, feedback, demo, completion):
        group.add_commands(commands, common)
    return parser


def _common_options() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    options = common.add_argument_group("output")
    options.add_argument("--json", action="store_true", help="answer with one JSON document, also on failure")
    options.add_argument("-q", "--quiet", action="store_true", help="no progress, no warnings")
    options.add_argument("-v", "--verbose", action="store_true", help="tell on stderr what is being done")
    options.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return common
