"""Ask any retriever for its answers: one way to call LlamaIndex, LangChain and plain functions."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from nudge_rag.evaluation.answers import NodeIdOf, rank_answer

__all__ = ["SearchRun", "collect_answers", "resolve_search", "run_coroutine"]

Result = TypeVar("Result")
Progress = Callable[[], None]
Ask = Callable[[str], Any]


@dataclass(frozen=True)
class Search:
    """How a retriever is asked: by a call, by an awaited call, or by both."""

    call: Callable[[str], Any] | None
    acall: Callable[[str], Awaitable[Any]] | None


@dataclass(frozen=True)
class SearchRun:
    """What one retriever answered.

    Attributes:
        rankings: query id to node ids, best first; without the queries that failed.
        failures: query id to the error, as ``type: message``.
        duplicates: query id to the number of repeated nodes that were removed.
    """

    rankings: Mapping[str, list[str]]
    failures: Mapping[str, str]
    duplicates: Mapping[str, int]


def resolve_search(retriever: Any, name: str) -> Search:
    """Return how to ask ``retriever``.

    Raises:
        TypeError: neither a retriever, a query engine nor a function.
    """
    if callable(getattr(retriever, "query", None)) and callable(getattr(retriever, "retrieve", None)):
        return _query_engine(retriever)
    for plain, awaited in (("retrieve", "aretrieve"), ("invoke", "ainvoke"), ("query", "aquery")):
        if callable(getattr(retriever, plain, None)):
            return Search(getattr(retriever, plain), getattr(retriever, awaited, None))
    if inspect.iscoroutinefunction(retriever) or inspect.iscoroutinefunction(getattr(retriever, "__call__", None)):  # noqa: B004
        return Search(None, retriever)
    if callable(retriever):
        return Search(retriever, None)
    raise TypeError(
        f"retriever {name!r} must be a LlamaIndex or LangChain retriever, a query engine or a function of a query's "
        f"text, got {type(retriever).__name__}"
    )


def _query_engine(engine: Any) -> Search:
    """Ask for the nodes without an answer by the language model, if the engine can retrieve alone."""
    from llama_index.core.base.base_query_engine import BaseQueryEngine
    from llama_index.core.schema import QueryBundle

    if type(engine).retrieve is BaseQueryEngine.retrieve:  # the base class only says that it cannot
        return Search(engine.query, engine.aquery)
    awaited = getattr(engine, "aretrieve", None)
    return Search(
        lambda text: engine.retrieve(QueryBundle(text)),
        None if awaited is None else lambda text: awaited(QueryBundle(text)),
    )


def collect_answers(search: Search, queries: Mapping[str, str], node_id: NodeIdOf | None, tick: Progress) -> SearchRun:
    """Ask one query after the other."""
    call = search.call
    if call is None:
        return run_coroutine(lambda: collect_answers_at_once(search, queries, node_id, tick, 1))
    rankings: dict[str, list[str]] = {}
    failures: dict[str, str] = {}
    duplicates: dict[str, int] = {}
    for place, (query, text) in enumerate(queries.items()):
        try:
            answer = _read(call(text))
        except Exception as error:
            failures[query] = _describe(error)
            answer = None
        if inspect.isawaitable(answer):  # a function that is no coroutine function may return a coroutine
            if inspect.iscoroutine(answer):
                answer.close()
            left = dict(list(queries.items())[place:])
            found = run_coroutine(partial(collect_answers_at_once, Search(None, call), left, node_id, tick, 1))
            return SearchRun(
                {**rankings, **found.rankings}, {**failures, **found.failures}, {**duplicates, **found.duplicates}
            )
        if query not in failures:
            _keep(query, answer, node_id, rankings, duplicates)
        tick()
    return SearchRun(rankings, failures, duplicates)


async def collect_answers_at_once(
    search: Search, queries: Mapping[str, str], node_id: NodeIdOf | None, tick: Progress, limit: int
) -> SearchRun:
    """Ask up to ``limit`` queries at once; a retriever without an asynchronous call is asked in threads."""
    rankings: dict[str, list[str]] = {}
    failures: dict[str, str] = {}
    duplicates: dict[str, int] = {}
    slots = asyncio.Semaphore(limit)

    async def ask(query: str, text: str) -> None:
        async with slots:
            try:
                answer = _read(await _answer(search, text))
            except Exception as error:
                failures[query] = _describe(error)
            else:
                _keep(query, answer, node_id, rankings, duplicates)
            tick()

    try:
        async with asyncio.TaskGroup() as group:
            for query, text in queries.items():
                group.create_task(ask(query, text))
    except BaseExceptionGroup as errors:
        raise _first_of(errors) from None
    return SearchRun(_in_order(rankings, queries), _in_order(failures, queries), _in_order(duplicates, queries))


def _in_order(values: Mapping[str, Result], queries: Mapping[str, str]) -> dict[str, Result]:
    return {query: values[query] for query in queries if query in values}


async def _answer(search: Search, text: str) -> Any:
    if search.acall is not None:
        return await search.acall(text)
    if search.call is None:
        raise TypeError("the retriever has no call")
    answer = await asyncio.to_thread(search.call, text)
    return await answer if inspect.isawaitable(answer) else answer


def _first_of(error: BaseException) -> BaseException:
    """The error that is raised if queries are asked one after the other."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _read(answer: Any) -> Any:
    """Read an answer that comes item by item: its source may fail on the way, as a call may."""
    return list(answer) if isinstance(answer, Iterator) else answer


def _keep(
    query: str, answer: Any, node_id: NodeIdOf | None, rankings: dict[str, list[str]], duplicates: dict[str, int]
) -> None:
    rankings[query], repeats = rank_answer(answer, node_id)
    if repeats:
        duplicates[query] = repeats


def _describe(error: Exception) -> str:
    first_line = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__


def run_coroutine(start: Callable[[], Awaitable[Result]]) -> Result:
    """Run a coroutine to its end, also under an event loop that is running already, as in a notebook."""

    async def run() -> Result:
        return await start()

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(run())
    outcome: list[Result] = []
    failure: list[BaseException] = []

    def run_in_thread() -> None:
        try:
            outcome.append(asyncio.run(run()))
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run_in_thread)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]
