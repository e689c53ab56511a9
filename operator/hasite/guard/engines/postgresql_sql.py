"""SQL without blocking the event loop: one connection and one thread, both given up when the server does not answer."""

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from hasite.guard.engines.base import EngineError
from hasite.guard.engines.postgresql_settings import conninfo

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection
    from psycopg2.extensions import cursor as Cursor

T = TypeVar("T")


_PASSING = ("starting up", "shutting down", "in recovery mode", "not yet accepting", "not accepting connections")


class NotAnswering(EngineError):
    """Nobody listens, or it took too long. ``refused``: the server was there and said no; ``passing``: because it is
    on its way up or down. ``late``: it was given up."""

    def __init__(self, text: str, *, late: bool = False) -> None:
        super().__init__(text)
        self.refused = "FATAL" in text
        self.passing = self.refused and any(words in text for words in _PASSING)
        self.late = late


class Session:
    """A connection that is made when it is needed and kept. Not for two callers at once.

    ``prepare``: run once after each connect. Every statement commits by itself, unless ``work`` begins a transaction.
    """

    def __init__(self, parameters: Mapping[str, str], prepare: str = "") -> None:
        self._parameters = dict(parameters)
        self._prepare = prepare
        self._connection: Connection | None = None
        self._thread: ThreadPoolExecutor | None = None

    async def run(self, work: Callable[["Cursor"], T], within: float) -> T:
        """What ``work`` returns, done in the session's thread. Raises NotAnswering, or EngineError for an SQL error.

        When it takes longer than ``within`` seconds, or the caller is cancelled, the connection is cut, and the thread
        has ended before this returns.
        """
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="postgresql")
        future = asyncio.get_running_loop().run_in_executor(self._thread, self._call, work)
        try:
            async with asyncio.timeout(within):
                return await asyncio.shield(future)
        except TimeoutError:
            await self._abandon(future)
            raise NotAnswering(f"no answer within {within:g} s", late=True) from None
        except asyncio.CancelledError:
            await self._abandon(future)
            raise

    async def fetch(
        self, statement: str, values: tuple[object, ...] = (), within: float = 5.0
    ) -> list[tuple[Any, ...]]:
        """The rows of one statement; none for a statement that has none."""

        def work(cursor: "Cursor") -> list[tuple[Any, ...]]:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall()) if cursor.description else []

        return await self.run(work, within)

    async def value(self, statement: str, values: tuple[object, ...] = (), within: float = 5.0) -> Any:
        """The first column of the first row."""
        rows = await self.fetch(statement, values, within)
        return rows[0][0] if rows else None

    def close(self) -> None:
        """At once; what is under way fails."""
        self._cut()
        thread, self._thread = self._thread, None
        connection, self._connection = self._connection, None
        if thread is not None:
            if connection is not None:
                with suppress(RuntimeError):
                    thread.submit(connection.close)
            thread.shutdown(wait=False)

    def _call(self, work: Callable[["Cursor"], T]) -> T:
        import psycopg2

        try:
            connection = self._connect()
            with connection.cursor() as cursor:
                return work(cursor)
        except psycopg2.OperationalError as error:
            self._drop()
            raise NotAnswering(_words(error)) from None
        except psycopg2.InterfaceError as error:
            self._drop()
            raise NotAnswering(_words(error)) from None
        except psycopg2.Error as error:
            self._drop()
            raise EngineError(_words(error)) from None

    def _connect(self) -> "Connection":
        import psycopg2

        if self._connection is None:
            connection = psycopg2.connect(conninfo(self._parameters))
            connection.autocommit = True
            if self._prepare:
                with connection.cursor() as cursor:
                    cursor.execute(self._prepare)
            self._connection = connection
        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    async def _abandon(self, future: "asyncio.Future[Any]") -> None:
        """libpq waits on the socket: once it is shut, the thread comes back with an error."""
        while not future.done():
            self._cut()
            await asyncio.wait([future], timeout=0.05)
        future.exception()
        self.close()

    def _cut(self) -> None:
        connection = self._connection
        if connection is None:
            return
        with suppress(Exception):
            descriptor = os.dup(connection.fileno())
            with socket.socket(fileno=descriptor) as handle:
                handle.shutdown(socket.SHUT_RDWR)


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__
