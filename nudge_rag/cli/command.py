"""Parse the command line, run the command, and answer as text or as one JSON document."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from typing import Any

from nudge_rag.cli.outcome import DONE, FAILED, INTERRUPTED, USAGE, Outcome, UsageError
from nudge_rag.cli.parser import build_parser
from nudge_rag.cli.secrets import mask_secrets, secrets_of
from nudge_rag.cli.streams import as_document, as_plain, show_lines, silence, write_stream
from nudge_rag.cli.version import VersionAsked, describe_version

__all__ = ["SCHEMA", "main"]

SCHEMA = "nudge-rag/cli/1"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    0 done; 1 the answer is no; 2 arguments or packages that do not fit; 3 failed; 4 done in part; 130 interrupted.

    Example:
        >>> main(["demo", "--framework", "langchain", "--store", "simple"])
        2
    """
    return _Call(list(sys.argv[1:] if argv is None else argv)).run()


class _Call:
    """One run of the command: what it prints, where, and with which secrets left out."""

    def __init__(self, given: list[str]) -> None:
        self.given = given
        # As argparse takes it, abbreviated too: what cannot be parsed is answered as a document as well.
        self.json = any(len(part) > 3 and "--json".startswith(part.partition("=")[0]) for part in given)
        self.debug = "--debug" in given
        self.quiet = "--quiet" in given or "-q" in given
        self.verbose = False
        self.command = ""
        self.warnings: list[str] = []
        self.secrets: set[str] = secrets_of(given)

    def run(self) -> int:
        try:
            outcome = self._outcome()
        except _HelpShown:
            return self._deliver("", DONE)
        except KeyboardInterrupt:
            message = "interrupted; a push that was under way is finished or undone by the next call"
            return self._fail(INTERRUPTED, "KeyboardInterrupt", message)
        except BaseException as error:  # also a panic of Rust code, a cancelled task, a user's module that exits
            return self._fail_with(error)
        return self._answer(outcome)

    def _outcome(self) -> Outcome:
        parser = build_parser()
        try:
            arguments = parser.parse_args(self.given)
        except SystemExit:
            raise _HelpShown from None
        except VersionAsked:
            return describe_version()
        self.json = getattr(arguments, "json", False) is True
        self.command = " ".join(filter(None, (arguments.command, getattr(arguments, "verb", None))))
        arguments.parser = parser  # completion describes it
        self.verbose = bool(getattr(arguments, "verbose", False))
        self._set_progress()
        # Standard output is the answer's alone; what others print, such as the user's modules, goes beside it.
        aside = redirect_stdout(sys.stderr) if self.json else nullcontext()
        with aside, warnings.catch_warnings(), _shown_log(self._say if self.verbose else None):
            warnings.simplefilter("default", UserWarning)
            warnings.showwarning = self._show_warning
            outcome: Outcome = arguments.run(arguments)
        return outcome

    def _answer(self, outcome: Outcome) -> int:
        if self.json:
            return self._deliver(self._document(outcome.code, {"result": dict(outcome.result)}), outcome.code)
        shown = show_lines(self._masked(outcome.text)) + "\n" if outcome.text else ""
        return self._deliver(shown, outcome.code)

    def _fail_with(self, error: BaseException) -> int:
        if self.debug:
            import traceback

            self._say("".join(traceback.format_exception(error)).rstrip())
        return self._fail(_code_of(error), type(error).__name__, _describe(error))

    def _fail(self, code: int, kind: str, message: str) -> int:
        hint = "" if self.debug or code != FAILED else " (--debug shows where)"
        self._say(f"nudge-rag: {message}{hint}")
        if not self.json:
            return code
        return self._deliver(self._document(code, {"error": {"type": kind, "message": message}}), code)

    def _document(self, code: int, content: dict[str, Any]) -> str:
        found = as_plain({**content, "warnings": self.warnings}, self._masked)
        return as_document({"schema": SCHEMA, "command": self.command, "exit_code": code, **found})

    def _deliver(self, text: str, code: int) -> int:
        """Write the answer; a reader that has seen enough is no error, but an answer that nobody can get is one."""
        try:
            write_stream(sys.stdout, text)
        except BrokenPipeError:
            silence(sys.stdout)
        except OSError as error:
            silence(sys.stdout)
            self._say(f"nudge-rag: the answer cannot be written to standard output: {error.strerror or error}")
            return code or FAILED
        return code

    def _masked(self, text: str) -> str:
        return mask_secrets(text, self.secrets)

    def _say(self, text: str) -> None:
        try:
            write_stream(sys.stderr, show_lines(self._masked(text)) + "\n")
        except OSError:  # nobody listens, and the answer does not depend on it
            silence(sys.stderr)

    def _show_warning(self, message: Warning | str, category: type[Warning], *place: Any, **options: Any) -> None:
        text = " ".join(str(message).split())
        if issubclass(category, UserWarning) and text not in self.warnings:
            self.warnings.append(self._masked(text))
            if not self.quiet:
                self._say(f"warning: {text}")

    def _set_progress(self) -> None:
        """Show bars on a terminal only; tqdm reads this when it is imported."""
        plain = os.environ.get("TERM") == "dumb" or "CI" in os.environ
        # Python has no stream if the process was started without one.
        if self.quiet or self.json or plain or sys.stderr is None or not sys.stderr.isatty():
            os.environ["TQDM_DISABLE"] = "1"


@contextmanager
def _shown_log(say: Callable[[str], None] | None) -> Iterator[None]:
    """Pass what the library logs to ``say``, in this call alone; None passes nothing."""
    if say is None:
        yield
        return
    import logging

    class Shown(logging.Handler):
        def __init__(self, write: Callable[[str], None]) -> None:
            super().__init__()
            self.write = write

        def emit(self, record: logging.LogRecord) -> None:
            self.write(f"{record.name.removeprefix('nudge_rag.')}: {record.getMessage()}")

    logger, handler = logging.getLogger("nudge_rag"), Shown(say)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class _HelpShown(Exception):
    """Raised after ``--help``."""


def _code_of(error: BaseException) -> int:
    """2 for what the caller can put right in the command, 3 for what went wrong on the way."""
    from nudge_rag.errors import NudgeError

    if isinstance(error, UsageError | ImportError):
        return USAGE
    if isinstance(error, NudgeError | OSError):
        return FAILED
    return USAGE if isinstance(error, ValueError | TypeError) else FAILED


def _describe(error: BaseException) -> str:
    """One line; the kind of error where its text alone does not say what went wrong."""
    from nudge_rag.errors import NudgeError

    message, kind = " ".join(str(error).split()), type(error).__name__
    speaks = isinstance(error, UsageError | NudgeError | OSError | ImportError | ValueError | TypeError)
    return message if speaks and message else f"{kind}: {message}" if message else kind
