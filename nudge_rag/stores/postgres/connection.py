"""Connections of the PostgreSQL adapter: from an address, or an application's own SQLAlchemy engine."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from types import SimpleNamespace
from typing import Any, Protocol, TypeVar

from nudge_rag.errors import StoreError

__all__ = ["Connections", "SessionCursor", "connections_of"]

T = TypeVar("T")
# A connection that was idle for longer is asked whether it still lives.
SECONDS_BEFORE_LOOK = 1.0
# Of libpq: routers forget connections that nothing goes over for some minutes.
KEPT_ALIVE: dict[str, Any] = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 6}
# Since PostgreSQL 14 there is such a setting.
NEVER_TOO_IDLE = "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'"


class Connections(Protocol):
    """Cursors on one database, each in a transaction."""

    def cursor(self) -> Any:
        """Context manager of a cursor in a transaction; inside another one of this thread, in a savepoint of it."""
        ...

    def stream(self, query: Any, batch_size: int) -> Iterator[list[Any]]:
        """The rows of a query without parameters, in batches, on a connection of their own."""
        ...

    def session(self) -> Any:
        """Context manager of a cursor on a connection of its own, in which each statement is a transaction."""
        ...

    def side_by_side(self, most: int) -> Any:
        """Context manager of a list of at most ``most`` `Connections`, this first, that threads use at once."""
        ...


def connections_of(given: Any, loop: Any = None) -> Connections:
    """Return the connections that ``given`` stands for.

    Args:
        given: psycopg's connection string, an SQLAlchemy ``Engine`` or ``AsyncEngine``, or `Connections`.
        loop: the event loop, running in another thread, that the connections of an ``AsyncEngine`` belong to. Without
            it a loop of our own runs them, on a pool of its own with the engine's creator, arguments and events.

    Raises:
        TypeError: anything else.
    """
    if isinstance(given, str):
        return AddressConnections(given)
    if isinstance(given, AddressConnections | EngineConnections):
        return given
    try:
        from sqlalchemy import Engine
        from sqlalchemy.ext.asyncio import AsyncEngine
    except ImportError:
        Engine = AsyncEngine = ()  # type: ignore[assignment, misc]
    if isinstance(given, Engine):
        return _shared(given, lambda: EngineConnections(given, lambda call: call()))
    if isinstance(given, AsyncEngine):
        return _shared(given.sync_engine, lambda: _on_a_loop(given.sync_engine, loop))
    raise TypeError(f"expected a connection string or an SQLAlchemy engine, got {type(given).__name__}")


def _check_conninfo(conninfo: str) -> None:
    """Raise ValueError if psycopg cannot parse a connection string: it would show a part, such as a password."""
    import psycopg

    try:
        psycopg.conninfo.conninfo_to_dict(conninfo)
    except psycopg.ProgrammingError as error:
        unknown = re.fullmatch(
            r'invalid (?:connection option|URI query parameter):? "([a-z_]{1,20})"', str(error).strip()
        )
        why = f"it has an unknown option, {unknown[1]}" if unknown else "it is neither a URL nor name=value pairs"
        raise ValueError(f"psycopg does not take this connection string: {why}") from None


class AddressConnections:
    """Connections of psycopg's, by address: one that is kept, and one for each stream."""

    def __init__(self, conninfo: str) -> None:
        _check_conninfo(conninfo)
        self._conninfo = conninfo
        self._lock = threading.RLock()
        self._kept: Any = None
        self._used = 0.0

    @contextmanager
    def cursor(self) -> Iterator[Any]:
        """A cursor in a transaction of its own, on the connection that is kept while it lives."""
        import psycopg

        with self._lock:
            if not self._is_kept():
                self._kept = psycopg.connect(self._conninfo, autocommit=True)
            try:
                with self._kept.transaction(), self._kept.cursor(binary=True) as cursor:
                    yield cursor
            finally:
                self._used = time.monotonic()

    def _is_kept(self) -> bool:
        """Whether there is a connection that lives: one that was idle may have been ended by the server, or a proxy."""
        import psycopg

        kept = self._kept
        if kept is None or kept.closed or kept.broken:
            return False
        is_idle = kept.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        if not is_idle or time.monotonic() - self._used < SECONDS_BEFORE_LOOK:
            return True
        try:
            kept.execute("SELECT 1")
        except psycopg.OperationalError:
            kept.close()
            return False
        return True

    def stream(self, query: Any, batch_size: int) -> Iterator[list[Any]]:
        """The rows of a query, through a cursor on the server."""
        import psycopg

        with psycopg.connect(self._conninfo) as connection, connection.cursor("nudge_rag_scan", binary=True) as cursor:
            cursor.execute(query, [])
            while rows := cursor.fetchmany(batch_size):
                yield rows

    @contextmanager
    def session(self) -> Iterator[Any]:
        """A cursor on a connection of its own, in which each statement is a transaction; it may be idle for hours."""
        import psycopg

        given = psycopg.conninfo.conninfo_to_dict(self._conninfo)
        alive = {name: value for name, value in KEPT_ALIVE.items() if name not in given}
        connection = psycopg.connect(self._conninfo, autocommit=True, **alive)
        try:
            connection.execute(NEVER_TOO_IDLE)
            with connection.cursor(binary=True) as cursor:
                yield cursor
        finally:
            connection.close()

    @contextmanager
    def side_by_side(self, most: int) -> Iterator[list[Connections]]:
        """This one, and others that are closed afterwards.

        There are no others inside a transaction, which they would not see, nor if the server gives no more.
        """
        import psycopg

        others: list[AddressConnections] = []
        try:
            if self._kept is not None and self._kept.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
                with suppress(psycopg.OperationalError):
                    for _ in range(most - 1):
                        other = AddressConnections(self._conninfo)
                        other._kept = psycopg.connect(self._conninfo, autocommit=True)
                        others.append(other)
            yield [self, *others]
        finally:
            for other in others:
                other._kept.close()


class EngineConnections:
    """Connections of an SQLAlchemy engine: its pool, its events, its roles and settings, whatever its driver.

    Args:
        engine: the synchronous engine, or the synchronous side of an asynchronous one.
        call: runs a function in a context that can use the engine's connections.
    """

    def __init__(self, engine: Any, call: Callable[[Callable[[], Any]], Any]) -> None:
        self._engine, self._call = engine, call
        # Threads search side by side, as far as the pool lets them.
        self._of_thread = threading.local()

    @contextmanager
    def cursor(self) -> Iterator[EngineCursor]:
        """A cursor in a transaction of its own; inside another one of this thread, in a savepoint of that."""
        outer = getattr(self._of_thread, "connection", None)
        if outer is not None:
            cursor = EngineCursor(outer, self._call)
            with cursor.transaction():
                yield cursor
            return
        kept = getattr(self._of_thread, "kept", None)
        connection = self._of_thread.connection = self._call(self._connect) if kept is None else kept
        try:
            with _transaction(self._call, connection.begin):
                yield EngineCursor(connection, self._call)
        finally:
            self._of_thread.connection = None
            if kept is None:
                self._call(connection.close)

    def stream(self, query: Any, batch_size: int) -> Iterator[list[Any]]:
        """The rows of a query, through a cursor on the server if the driver has such."""
        connection = self._call(self._connect)
        try:
            # Of the statement, not of the connection: listeners to "begin" run statements that no cursor can hold.
            cursor = EngineCursor(connection, self._call, {"stream_results": True}).execute(query)
            while rows := cursor.fetchmany(batch_size):
                yield rows
        finally:
            self._call(connection.close)

    @contextmanager
    def session(self) -> Iterator[SessionCursor]:
        """A cursor of which each statement is a transaction, on a connection that all cursors of this thread share.

        A pool need not have a second one for them. Listeners that begin a transaction find it as they left it.
        """
        if getattr(self._of_thread, "kept", None) is not None:
            yield SessionCursor(self)
            return
        kept = self._of_thread.kept = self._call(self._connect)
        try:
            yield SessionCursor(self)
        finally:
            self._of_thread.kept = None
            self._call(kept.close)

    @contextmanager
    def side_by_side(self, most: int) -> Iterator[list[Connections]]:
        """This one alone: the application's pool need not have others."""
        yield [self]

    def _connect(self) -> Any:
        from sqlalchemy.exc import TimeoutError as PoolTimeoutError

        try:
            connection = self._engine.connect()
        except (PoolTimeoutError, AssertionError) as error:
            raise StoreError(
                f"the engine's {type(self._engine.pool).__name__} gives no second connection, which reading a table"
                f" beside other statements needs: let it have two ({str(error).partition(chr(10))[0]})"
            ) from error
        levels = (
            self._engine.get_execution_options().get("isolation_level"),
            self._engine.dialect._on_connect_isolation_level,
        )
        if "AUTOCOMMIT" in levels:
            # A push is one transaction, whatever the application's own statements are.
            return connection.execution_options(isolation_level="READ COMMITTED")
        return connection


class EngineCursor:
    """The part of psycopg's cursor that the adapter uses, on a connection of SQLAlchemy's."""

    def __init__(
        self, connection: Any, call: Callable[[Callable[[], Any]], Any], options: dict[str, Any] | None = None
    ) -> None:
        self._connection, self._call = connection, call
        self._options = options or {}
        self._result: Any = None
        self.rowcount = -1

    @property
    def connection(self) -> EngineCursor:
        """The cursor itself: it knows ``transaction`` and ``info``, which are all that is asked of a connection."""
        return self

    @property
    def info(self) -> Any:
        """``host``, ``port`` and ``dbname``, as psycopg tells them."""
        driver = self._connection.connection.driver_connection
        if hasattr(driver, "info") and hasattr(driver.info, "dbname"):
            return driver.info
        url = self._connection.engine.url
        ((name,),) = self.execute("SELECT current_database()::text").fetchall()
        return SimpleNamespace(host=url.host or url.query.get("host", ""), port=url.port or 5432, dbname=name)

    @property
    def adapters(self) -> Any:
        """Those of psycopg, if it is the driver, else None."""
        return getattr(self._connection.connection.driver_connection, "adapters", None)

    def transaction(self) -> Any:
        """Context manager of a savepoint."""
        return _transaction(self._call, self._connection.begin_nested)

    def execute(self, query: Any, values: Sequence[Any] | None = None) -> EngineCursor:
        """Run one statement, written for psycopg: with ``values``, be there any, percent signs are doubled in it."""
        statement, options = self._written(query, values)
        parameters = tuple(values) if values else None
        self._result = self._run(statement, parameters, options)
        self.rowcount = self._result.rowcount
        return self

    def executemany(self, query: Any, rows: Sequence[Sequence[Any]]) -> EngineCursor:
        """Run one statement once a row of ``rows``; ``rowcount`` is the sum."""
        total = 0
        for row in rows:
            total += self.execute(query, row).rowcount
        self.rowcount = total
        return self

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row, or None."""
        row = self._call(self._result.fetchone)
        return None if row is None else _plain(row)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All rows that are left."""
        return [_plain(row) for row in self._call(self._result.fetchall)]

    def fetchmany(self, size: int) -> list[tuple[Any, ...]]:
        """The next rows, none at the end."""
        return [_plain(row) for row in self._call(lambda: self._result.fetchmany(size))]

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self.fetchall())

    def _written(self, query: Any, values: Sequence[Any] | None) -> tuple[str, dict[str, Any]]:
        """The statement with placeholders in the driver's own style, and how to run it."""
        statement = query if isinstance(query, str) else str(query.as_string(None))
        if not values:
            return statement if values is None else statement.replace("%%", "%"), {"no_parameters": True}
        if not self._connection.dialect.paramstyle.startswith("numeric"):
            return statement, {}
        numbers = iter(range(1, len(values) + 1))
        return re.sub("%[%s]", lambda sign: "%" if sign[0] == "%%" else f"${next(numbers)}", statement), {}

    def _run(self, statement: str, parameters: Any, options: dict[str, Any]) -> Any:
        from sqlalchemy.exc import DBAPIError

        try:
            return self._call(
                lambda: self._connection.exec_driver_sql(
                    statement, parameters, execution_options=options | self._options
                )
            )
        except DBAPIError as error:
            raise _as_psycopg(error) from error


class SessionCursor:
    """Statements that are a transaction each, on the connection that this thread keeps."""

    def __init__(self, connections: EngineConnections) -> None:
        self._connections = connections
        self._rows: list[tuple[Any, ...]] = []

    def execute(self, query: Any, values: Sequence[Any] | None = None) -> SessionCursor:
        """Run one statement that gives rows, and commit it."""
        with self._connections.cursor() as cursor:
            self._rows = cursor.execute(query, values).fetchall()
        return self

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row, or None."""
        return self._rows.pop(0) if self._rows else None


@contextmanager
def _transaction(call: Callable[[Callable[[], Any]], Any], begin: Callable[[], Any]) -> Iterator[None]:
    transaction = call(begin)
    try:
        yield
    except BaseException:
        call(transaction.rollback)
        raise
    call(transaction.commit)


def _as_psycopg(error: Any) -> Exception:
    """The error that psycopg would have raised, so that callers know one family of errors."""
    import psycopg

    state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    try:
        kind = psycopg.errors.lookup(state or "")
    except KeyError:
        kind = psycopg.OperationalError
    return kind(str(error.orig).strip())


def _plain(row: Any) -> tuple[Any, ...]:
    """A row as a tuple; psycopg2 gives bytes as views of memory."""
    return tuple(bytes(value) if isinstance(value, memoryview) else value for value in row)


def _shared(engine: Any, make: Callable[[], EngineConnections]) -> EngineConnections:
    """One object for each engine, kept with it: two adapters of one engine share a pool and a transaction."""
    found: EngineConnections = vars(engine).setdefault("_nudge_rag_connections", None) or make()
    engine._nudge_rag_connections = found
    return found


def _on_a_loop(engine: Any, loop: Any) -> EngineConnections:
    """Run the synchronous side of an asynchronous engine on an event loop in another thread."""
    from sqlalchemy.util import greenlet_spawn

    if loop is None or not loop.is_running() or loop is _loop_of_this_thread():
        engine, loop = _with_own_pool(engine), _background_loop()

    async def run(function: Callable[[], T]) -> T:
        return await greenlet_spawn(function)

    return EngineConnections(engine, lambda call: asyncio.run_coroutine_threadsafe(run(call), loop).result())


def _with_own_pool(engine: Any) -> Any:
    """The engine with its dialect, events and creator, and a pool of its own: connections belong to one loop."""
    from sqlalchemy.engine.base import OptionEngine

    class OwnPool(OptionEngine):
        pool: Any = None

    copied = OwnPool(engine, {})
    copied.pool = engine.pool.recreate()
    return copied


def _loop_of_this_thread() -> Any:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


@cache
def _background_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True, name="nudge-rag-postgres").start()
    return loop
