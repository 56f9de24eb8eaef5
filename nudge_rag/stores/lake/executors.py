"""`map_fragments`: call a function on every fragment, on any executor; a worker that dies is replaced."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import pickle
import secrets
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from nudge_rag.common.blas_threads import one_blas_thread
from nudge_rag.common.packages import import_package
from nudge_rag.errors import NudgeError, StoreError

__all__ = ["map_fragments"]

F = TypeVar("F")
Q = TypeVar("Q")
R = TypeVar("R")

TRIES = 3
QUESTIONS_KEPT = 2
# A worker's answer that it does not know the question.
UNKNOWN = "nudge-rag: question unknown"
_QUESTIONS: dict[str, Any] = {}
_LOCK = threading.Lock()


def map_fragments(
    function: Callable[[F, Q], R], fragments: Sequence[F], question: Q, executor: Executor | None
) -> Iterator[tuple[int, R]]:
    """Call ``function(fragment, question)`` on every fragment, and give each number and result when it is there.

    The question is sent once a worker: as a file that the workers of this machine read, or with a fragment to those
    that cannot see the file. While workers compute, each has one thread for linear algebra.

    A fragment whose worker dies is given to another one. A `ProcessPoolExecutor` that lost a process gives up all that
    its processes were doing, and is replaced for the rest by one like it, which ends with the call.

    Args:
        function: of a module, so that it can be pickled.
        fragments: what it is called on; they can be pickled.
        question: what it is told with each of them.
        executor: calls it; None for this process, one fragment after the other.

    Raises:
        StoreError: the workers of a fragment died, or it could not be read, three times; the executor was shut down.
        Exception: whatever ``function`` raises of `ValueError`, `TypeError` and our own errors.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> with ThreadPoolExecutor(2) as pool:
        ...     sorted(map_fragments(pow, [2, 3], 2, pool))
        [(0, 4), (1, 9)]
    """
    if executor is None:
        for number, fragment in enumerate(fragments):
            yield number, function(fragment, question)
        return
    if not isinstance(executor, Executor):
        raise TypeError(f"executor must be a concurrent.futures.Executor or None, got {type(executor).__name__}")
    import_package("threadpoolctl", "a scan on an executor", "lake")
    # Threads of this process share its limit: whoever ends first would lift it for the others.
    limit = one_blas_thread() if isinstance(executor, ThreadPoolExecutor) else nullcontext()
    with limit, _question_file(question) as (token, place, content):
        calls = _Calls(executor)
        try:
            for number, fragment in enumerate(fragments):
                calls.submit(number, _run, function, fragment, token, place, None)
            for number, answer in calls.answers():
                if isinstance(answer, str) and answer == UNKNOWN:
                    calls.submit(number, _run, function, fragments[number], token, place, content)
                else:
                    yield number, answer
        finally:
            calls.close()


@dataclass(frozen=True)
class _Call:
    """A call that an executor has been given."""

    arguments: tuple[Any, ...]
    executor: Executor
    future: Future[Any]


class _Calls:
    """Calls by number, and their answers.

    Args:
        executor: the user's.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._own: ProcessPoolExecutor | None = None
        self._done: SimpleQueue[tuple[int, Future[Any]]] = SimpleQueue()
        self._pending: dict[int, _Call] = {}
        self._tries: Counter[int] = Counter()
        self._deaths = 0
        self._numbers = itertools.count(secrets.randbits(48))

    def submit(self, number: int, function: Callable[..., Any], *arguments: Any) -> None:
        """Give the executor a call."""
        while True:
            executor = self._executor
            try:
                # A number of its own: dask takes calls of one function with the same arguments for one call.
                future = executor.submit(function, *arguments, next(self._numbers))
            except BrokenExecutor as error:
                self._replace(executor, error)
            except RuntimeError as error:
                raise StoreError(f"the executor takes no calls ({error}): give one that was not shut down") from error
            else:
                break
        self._pending[number] = _Call((function, *arguments), executor, future)
        future.add_done_callback(lambda done: self._done.put((number, done)))

    def answers(self) -> Iterator[tuple[int, Any]]:
        """Each call's number and answer; a call whose worker died is made again."""
        while self._pending:
            number, future = self._done.get()
            call = self._pending.pop(number)
            error = CancelledError() if future.cancelled() else future.exception()
            if error is None:
                self._deaths = 0
                yield number, future.result()
                continue
            if isinstance(error, ValueError | TypeError | NudgeError):
                raise error
            if not isinstance(error, BrokenExecutor):
                self._count_try(number, error)
            elif call.executor is self._executor:
                self._replace(call.executor, error)
            self.submit(number, *call.arguments)

    def close(self) -> None:
        """Cancel what has not begun, and end the executor that took the place of the user's."""
        for call in self._pending.values():
            call.future.cancel()
        if self._own is not None:
            self._own.shutdown(cancel_futures=True)

    def _count_try(self, number: int, error: BaseException) -> None:
        self._tries[number] += 1
        if self._tries[number] >= TRIES:
            told = f"{type(error).__name__}: {error}"
            raise StoreError(f"a fragment could not be read in {TRIES} tries ({told})") from error

    def _replace(self, broken: Executor, error: BaseException) -> None:
        self._deaths += 1
        if self._deaths >= TRIES or not isinstance(broken, ProcessPoolExecutor):
            raise StoreError(
                f"the executor's workers died {self._deaths} time(s) without finishing a fragment ({error}): have they"
                " the memory for one?"
            ) from error
        # Its public face does not say what it was made of.
        pool: Any = broken
        made_of = pool._max_workers, pool._mp_context, pool._initializer, pool._initargs
        if self._own is not None:
            self._own.shutdown(wait=False)
        self._executor = self._own = ProcessPoolExecutor(*made_of)


@contextmanager
def _question_file(question: Any) -> Iterator[tuple[str, str, bytes]]:
    """A question's token, the file that holds it while the context lasts, and its content."""
    content = pickle.dumps(question, protocol=pickle.HIGHEST_PROTOCOL)
    token = hashlib.sha256(content).hexdigest()
    with contextlib.ExitStack() as cleaning:
        place = ""
        # Without room for a file, the question goes with the fragments.
        with contextlib.suppress(OSError):
            place = _shared_place(cleaning.enter_context(tempfile.TemporaryDirectory(prefix="nudge-rag-")))
            Path(place).write_bytes(content)
        yield token, place, content


def _shared_place(folder: str) -> str:
    return str(Path(folder) / "question")


def _run(
    function: Callable[[Any, Any], Any], fragment: Any, token: str, place: str, content: bytes | None, number: int
) -> Any:
    """In a worker: answer for one fragment, or that the question is not known here."""
    question = _known_question(token, place, content)
    if question is UNKNOWN:
        return UNKNOWN
    with one_blas_thread():
        return function(fragment, question)


def _known_question(token: str, place: str, content: bytes | None) -> Any:
    with _LOCK:
        if token not in _QUESTIONS:
            if content is None:
                with contextlib.suppress(OSError):
                    content = Path(place).read_bytes()
            # A file of that name on another machine is not ours.
            if content is None or hashlib.sha256(content).hexdigest() != token:
                return UNKNOWN
            _QUESTIONS[token] = pickle.loads(content)
            for old in list(_QUESTIONS)[:-QUESTIONS_KEPT]:
                del _QUESTIONS[old]
        return _QUESTIONS[token]
