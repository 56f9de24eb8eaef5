"""Parse the command line, run the command, and answer as text or as one JSON document."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from nudge_rag.cli.outcome import FAILED, INTERRUPTED, USAGE, Outcome, UsageError
from nudge_rag.cli.parser import build_parser
from nudge_rag.cli.secrets import mask_secrets, secrets_of
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
    given = list(sys.argv[1:] if argv is None else argv)
    call = _Call(given)
    try:
        return call.run()
    except BrokenPipeError:
        # Whoever read the output has seen enough; what is still buffered must not fail at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


class _Call:
    """One run of the command: what it prints, where, and with which secrets left out."""

    def __init__(self, given: list[str]) -> None:
        self.given = given
        self.json = any(part == "--json" or part.startswith("--json=") for part in given)
        self.debug = "--debug" in given
        self.quiet = "--quiet" in given or "-q" in given
        self.verbose = False
        self.command = ""
        self.warnings: list[str] = []
        self.secrets: set[str] = secrets_of(given)

    def run(self) -> int:
        parser = build_parser()
        try:
            arguments = parser.parse_args(self.given)
            self.json = bool(getattr(arguments, "json", False))
            self.command = " ".join(filter(None, (arguments.command, getattr(arguments, "verb", None))))
            arguments.parser = parser  # completion describes it
            self.verbose = bool(getattr(arguments, "verbose", False))
            self._set_progress()
            with warnings.catch_warnings(), _shown_log(self._say if self.verbose else None):
                warnings.simplefilter("default", UserWarning)
                warnings.showwarning = self._show_warning
                outcome: Outcome = arguments.run(arguments)
        except SystemExit as end:  # --help
            return int(end.code or 0)
        except VersionAsked:
            outcome = describe_version()
        except KeyboardInterrupt:
            message = "interrupted; a push that was under way is finished or undone by the next call"
            return self._fail(INTERRUPTED, "KeyboardInterrupt", message)
        except Exception as error:
            return self._fail_with(error)
        return self._answer(outcome)

    def _answer(self, outcome: Outcome) -> int:
        if self.json:
            self._print_json(outcome.code, {"result": dict(outcome.result)})
        elif outcome.text:
            self._print(outcome.text)
        return outcome.code

    def _fail_with(self, error: Exception) -> int:
        if self.debug:
            import traceback

            self._say("".join(traceback.format_exception(error)).rstrip())
        message = " ".join(str(error).split()) or type(error).__name__
        return self._fail(_code_of(error), type(error).__name__, message)

    def _fail(self, code: int, kind: str, message: str) -> int:
        if self.json:
            self._print_json(code, {"error": {"type": kind, "message": message}})
        hint = "" if self.debug or code != FAILED else " (--debug shows where)"
        self._say(f"nudge-rag: {message}{hint}")
        return code

    def _print_json(self, code: int, content: dict[str, Any]) -> None:
        document = {"schema": SCHEMA, "command": self.command, "exit_code": code, **content, "warnings": self.warnings}
        masked = _map_strings(document, lambda text: mask_secrets(text, self.secrets))
        sys.stdout.write(json.dumps(masked, indent=2, ensure_ascii=False, default=str) + "\n")
        sys.stdout.flush()

    def _print(self, text: str) -> None:
        sys.stdout.write(mask_secrets(text, self.secrets) + "\n")
        sys.stdout.flush()

    def _say(self, text: str) -> None:
        sys.stderr.write(mask_secrets(text, self.secrets) + "\n")
        sys.stderr.flush()

    def _show_warning(self, message: Warning | str, category: type[Warning], *place: Any, **options: Any) -> None:
        text = " ".join(str(message).split())
        if issubclass(category, UserWarning) and text not in self.warnings:
            self.warnings.append(mask_secrets(text, self.secrets))
            if not self.quiet:
                self._say(f"warning: {text}")

    def _set_progress(self) -> None:
        """Show bars on a terminal only; tqdm reads this when it is imported."""
        plain = os.environ.get("TERM") == "dumb" or "CI" in os.environ
        if self.quiet or self.json or plain or not sys.stderr.isatty():
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


def _code_of(error: Exception) -> int:
    """2 for what the caller can put right in the command, 3 for what went wrong on the way."""
    from nudge_rag.errors import NudgeError

    if isinstance(error, UsageError | ImportError):
        return USAGE
    if isinstance(error, NudgeError | OSError):
        return FAILED
    return USAGE if isinstance(error, ValueError | TypeError) else FAILED


def _map_strings(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(str(name)): _map_strings(part, change) for name, part in value.items()}
    return [_map_strings(part, change) for part in value] if isinstance(value, list | tuple) else value
